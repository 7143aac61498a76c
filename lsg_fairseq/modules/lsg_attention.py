"""LSG attention: a pure function, and the encoder self-attention modules built around it.

"LSG Attention: Extrapolation of pretrained Transformers to long sequences", Condevaux and Harispe, arXiv 2210.15497.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from lsg_fairseq.modules.attention_heads import check_heads, split_heads
from lsg_fairseq.modules.block_attention import Tokens, block_attention, full_attention
from lsg_fairseq.modules.kernel_precision import in_kernel_dtype
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.packed_linear import PackableLinear
from lsg_fairseq.modules.registry import register_encoder_attention
from lsg_fairseq.modules.sparse_tokens import select_sparse_tokens


def lsg_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: LSGConfig,
    key_padding_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Attend locally, sparsely and globally.

    Args:
        query, key, value: (B,H,G+T,D), the G = config.num_global_tokens global tokens first; query not yet scaled.
        config: block sizes and selection; its padding and pooling fields play no part here.
        key_padding_mask: (B,G+T) bool, True where a key is absent; None: every key is present.
        dropout_p: dropout of the attention probabilities.
        generator: source of lsh's random projections; None: torch's default generator.

    Returns:
        (B,H,G+T,D). Up to two blocks (T <= 2b) this is plain attention over all G+T keys.

    Raises:
        LSGError (a ValueError): T > 2b is not a multiple of the block size b.
    """
    num_globals, block_size = config.num_global_tokens, config.block_size
    src_len = query.size(2) - num_globals
    tokens = Tokens(query, key, value, key_padding_mask)
    if src_len <= 2 * block_size:
        return full_attention(query, tokens, dropout_p)
    if src_len % block_size:
        raise LSGError(
            f"{src_len} tokens are no multiple of block_size {block_size}; pad them, or let the encoder do it "
            "(adaptive=True)"
        )
    regular = tokens.rows(num_globals)
    sparse = select_sparse_tokens(*regular, config, generator) if config.has_sparse_tokens else None
    global_rows = full_attention(query[:, :, :num_globals], tokens, dropout_p)
    block_rows = block_attention(tokens, sparse, config, dropout_p)
    # Laid out as (G+T,B,H,D), so that the module's next step, (G+T,B,C), needs no second copy.
    return torch.cat([rows.permute(2, 0, 1, 3) for rows in (global_rows, block_rows)]).permute(1, 2, 0, 3)


class EncoderSelfAttention(nn.Module):
    """Projections and heads around an attention function: the contract of @register_encoder_attention.

    A registered class takes these constructor arguments, has the parameters of fairseq's MultiheadAttention under the
    same names (q_proj, k_proj, v_proj, out_proj), and answers `padded_length` and `forward`. Override `attend`.

    Args:
        embed_dim: C, a multiple of num_heads.
        num_heads: H.
        config: the model's LSGConfig.
        dropout: dropout of the attention probabilities while training.
        layer_index: which layer this is, so that layers draw different random numbers.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, config: LSGConfig, dropout: float = 0.0, layer_index: int = 0
    ) -> None:
        super().__init__()
        check_heads(embed_dim, num_heads)
        self.num_heads = num_heads
        self.config = config
        self.dropout = dropout
        self.layer_index = layer_index
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (PackableLinear(embed_dim, embed_dim) for _ in range(4))

    @staticmethod
    def padded_length(src_len: int, config: LSGConfig) -> int:
        """How many regular tokens the encoder has to pad a source of `src_len` to."""
        return src_len

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        """Attend from (B,H,G+T,D) to (B,H,G+T,D); key_padding_mask (B,G+T) bool or None."""
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Self-attention over query = key = value (G+T,B,C); returns (G+T,B,C) and, as fairseq expects a pair, None.

        Raises:
            LSGError: attention weights or an attention mask were asked for; only padding can be masked.
        """
        if need_weights or attn_mask is not None:
            raise LSGError("encoder self-attention here gives no attention weights and takes no attn_mask")
        heads = tuple(
            split_heads(proj(x), self.num_heads)
            for proj, x in zip(self._projections(), (query, key, value), strict=True)
        )
        mask = None if key_padding_mask is None else key_padding_mask.bool()
        attended = self.attend(*in_kernel_dtype(heads, self.training, self._dropout_p), mask).to(heads[0].dtype)
        return self.out_proj(attended.permute(2, 0, 1, 3).flatten(2)), None

    def _projections(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.q_proj, self.k_proj, self.v_proj

    def extra_repr(self) -> str:
        """What fairseq's log shows of the module."""
        return f"num_heads={self.num_heads}, dropout={self.dropout}, {self.config}"

    @property
    def _dropout_p(self) -> float:
        return self.dropout if self.training else 0.0


@register_encoder_attention("lsg")
class LSGMultiheadAttention(EncoderSelfAttention):
    """Local + sparse + global attention with the settings of an LSGConfig."""

    def __init__(
        self, embed_dim: int, num_heads: int, config: LSGConfig, dropout: float = 0.0, layer_index: int = 0
    ) -> None:
        super().__init__(embed_dim, num_heads, config, dropout, layer_index)
        if config.sparsity_type in ("stride", "block_stride") and config.sparsity_factor > num_heads:
            warnings.warn(
                f"sparsity_type {config.sparsity_type!r} with sparsity_factor {config.sparsity_factor} and {num_heads} "
                "heads: some tokens are a sparse token of no head; use a factor of at most the number of heads",
                stacklevel=2,
            )

    @staticmethod
    def padded_length(src_len: int, config: LSGConfig) -> int:
        """The next multiple of the block size, beyond two blocks; at most two blocks need no padding.

        Raises:
            LSGError: padding is needed, and config.adaptive forbids it.
        """
        missing = -src_len % config.block_size
        if src_len <= 2 * config.block_size or not missing:
            return src_len
        if not config.adaptive:
            raise LSGError(
                f"a source of {src_len} tokens is no multiple of block_size {config.block_size} and adaptive is off; "
                "pad it, or set adaptive to true"
            )
        return src_len + missing

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        """Attend from (B,H,G+T,D) to (B,H,G+T,D); key_padding_mask (B,G+T) bool or None."""
        return lsg_attention(query, key, value, self.config, key_padding_mask, self._dropout_p, self._generator())

    def _generator(self) -> torch.Generator | None:
        """Fixed in evaluation; in training the default one, the only one activation checkpointing restores."""
        if self.training or self.config.sparsity_type != "lsh":
            return None
        return torch.Generator().manual_seed(self.config.lsh_seed + self.layer_index)


@register_encoder_attention("full")
class FullMultiheadAttention(EncoderSelfAttention):
    """Every token sees every token: the quadratic attention that LSG replaces, for comparison."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        """Attend from (B,H,G+T,D) to (B,H,G+T,D); key_padding_mask (B,G+T) bool or None."""
        return full_attention(query, Tokens(query, key, value, key_padding_mask), self._dropout_p)
