"""The encoder: fairseq's own layers, with a registered self-attention and learned global tokens in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fairseq.models.transformer import TransformerConfig, TransformerEncoderBase
from fairseq.modules import gelu, transformer_layer
from torch import Tensor, nn

from lsg_fairseq.models.layer_building import PackableFeedForward, with_quant_noise, wrapped
from lsg_fairseq.modules.lsg_config import MAX_GLOBAL_TOKENS, LSGConfig, LSGError
from lsg_fairseq.modules.registry import ENCODER_ATTENTIONS, look_up

# Without gradients, larger batches go through the layers in groups of this many tokens, padding included.
GROUP_ROWS = 4352
# Tokens whose feed-forward activations (the wide ones) are computed at once.
WIDE_ROWS = 1024
# fairseq's activations that oneDNN computes with a product.
FUSED_ACTIVATIONS = {gelu: "gelu", nn.functional.relu: "relu"}


class LSGEncoderLayer(PackableFeedForward, transformer_layer.TransformerEncoderLayerBase):
    """fairseq's encoder layer with the self-attention that the LSGConfig names."""

    def __init__(
        self, cfg: TransformerConfig, lsg_config: LSGConfig, layer_index: int, return_fc: bool = False
    ) -> None:
        # Plain attributes, needed by build_self_attention while the base class builds itself.
        self.lsg_config = lsg_config
        self.layer_index = layer_index
        super().__init__(cfg, return_fc=return_fc)

    def build_self_attention(self, embed_dim: int, cfg: TransformerConfig) -> nn.Module:
        build = look_up(ENCODER_ATTENTIONS, "attention", self.lsg_config.attention, LSGError)
        attention = build(
            embed_dim, cfg.encoder.attention_heads, self.lsg_config, cfg.attention_dropout, self.layer_index
        )
        return with_quant_noise(attention, self)

    def forward(self, x: Tensor, encoder_padding_mask: Tensor | None, attn_mask: Tensor | None = None) -> Any:
        """fairseq's (L,B,C) -> (L,B,C); with packed weights, the wide rows of the feed-forward part stay in cache."""
        is_packed = getattr(self.fc1, "_activated_product", None) is not None and not torch.is_grad_enabled()
        if not is_packed or self.training or self.return_fc or attn_mask is not None:
            return super().forward(x, encoder_padding_mask, attn_mask)
        x = self._added(x, self.self_attn_layer_norm, lambda y: self.self_attn(y, y, y, encoder_padding_mask)[0])
        return self._added(x, self.final_layer_norm, self._feed_forward)

    def _added(self, x: Tensor, norm: nn.Module, function: Callable[[Tensor], Tensor]) -> Tensor:
        """x + function(x), normalized before or afterwards."""
        y = function(norm(x) if self.normalize_before else x)
        x = self.residual_connection(y, x)
        return x if self.normalize_before else norm(x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        name = FUSED_ACTIVATIONS.get(self.activation_fn)
        output = torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, target in zip(x.flatten(0, 1).split(WIDE_ROWS), output.flatten(0, 1).split(WIDE_ROWS), strict=True):
            if name is None:
                wide = self.activation_fn(self.fc1(part))
            else:
                wide = self.fc1.activated(part, name, self.activation_fn)
            target.copy_(self.fc2(wide))
        return output


class LSGEncoder(TransformerEncoderBase):
    """Encode (B,T0) tokens to (G+T0,B,C): right_pad, pad, embed, prepend globals, layers, unpad.

    Args:
        cfg: fairseq's transformer configuration.
        dictionary, embed_tokens: as for fairseq's encoder.
        lsg_config: attention settings; built once by the model and handed on as an object.
    """

    layer_class: type[LSGEncoderLayer] = LSGEncoderLayer

    def __init__(self, cfg, dictionary, embed_tokens: nn.Embedding, lsg_config: LSGConfig, return_fc: bool = False):
        # Plain attributes, needed by build_encoder_layer while the base class builds itself.
        self.lsg_config = lsg_config
        self._layers_built = 0
        super().__init__(cfg, dictionary, embed_tokens, return_fc=return_fc)
        self.global_embeddings = nn.Embedding(MAX_GLOBAL_TOKENS, embed_tokens.embedding_dim)
        nn.init.normal_(self.global_embeddings.weight, std=embed_tokens.embedding_dim**-0.5)
        self.attention_class = ENCODER_ATTENTIONS[lsg_config.attention]
        self.beams_share_output = False
        self.is_frozen = False

    def freeze(self) -> None:
        """Train nothing of the encoder's own from now on: no gradient flows in, and no parameter asks for one."""
        self.is_frozen = True
        self.requires_grad_(False)

    def build_encoder_layer(self, cfg: TransformerConfig) -> nn.Module:
        layer = self.layer_class(cfg, self.lsg_config, self._layers_built, return_fc=self.return_fc)
        self._layers_built += 1
        return wrapped(layer, cfg)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
        token_embeddings: Tensor | None = None,
    ) -> dict[str, list[Tensor]]:
        """Encode src_tokens (B,T0), padded on either side.

        Returns:
            fairseq's dictionary of lists: encoder_out (G+T0,B,C) and encoder_padding_mask (B,G+T0) with the padding
            right, or T0 rows when the global rows are not passed on; encoder_states likewise if return_all_hiddens.
            encoder_embedding (B,T0,C) is left out where gradients are off, unless return_all_hiddens.

        Raises:
            LSGError: a source is longer than the position table, or needs padding that adaptive=False forbids.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return self._encode(src_tokens, return_all_hiddens, token_embeddings)

    def _encode(
        self, src_tokens: Tensor, return_all_hiddens: bool, token_embeddings: Tensor | None
    ) -> dict[str, list[Tensor]]:
        src_len, left_padding = src_tokens.size(1), self.left_padding(src_tokens)
        src_tokens, token_embeddings = self.right_pad(src_tokens, token_embeddings)
        self._check_length(src_tokens)
        src_tokens, token_embeddings = self.pad_to_block_multiple(src_tokens, token_embeddings)
        x, *embed = self.forward_embedding(src_tokens, token_embeddings)
        # Layers' outputs and embeddings are two fifths of the memory of a long forward: keep only what is asked for.
        if not (return_all_hiddens or torch.is_grad_enabled()):
            embed = []
        padding_mask = self.padding_mask(src_tokens)
        keys_masked = self.masked_keys(padding_mask)
        x = x.masked_fill(padding_mask[..., None], 0.0).transpose(0, 1)
        states = [x] if return_all_hiddens else []
        x = self._by_groups(x, keys_masked) if _is_large(x) and not states else self._layers(x, keys_masked, states)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return {
            "encoder_out": [self.output_rows(x, src_len)],
            "encoder_padding_mask": [self.output_mask(padding_mask, src_len)],
            "encoder_embedding": [tokens[:, :src_len] for tokens in embed],
            "encoder_states": [self.output_rows(state, src_len) for state in states],
            "fc_results": [],
            "src_tokens": [],
            "src_lengths": [src_tokens.ne(self.padding_idx).sum(1, dtype=torch.int32)[:, None]],
            # Where the padding is that right_pad has moved, for alignments.
            "left_padding": [] if keys_masked is None else [left_padding],
        }

    def _layers(self, x: Tensor, keys_masked: Tensor | None, states: list[Tensor]) -> Tensor:
        """Run x (G+T,B,C) through all layers; append each layer's output to `states` unless it is empty."""
        for layer in self.layers:
            x = layer(x, encoder_padding_mask=keys_masked)
            x = x[0] if self.return_fc else x
            if states:
                states.append(x)
        return x

    def _by_groups(self, x: Tensor, keys_masked: Tensor | None) -> Tensor:
        """`_layers` for a few documents at a time: reused memory stays in cache and needs no clearing."""
        size = max(1, GROUP_ROWS // x.size(0))
        parts = []
        for start in range(0, x.size(1), size):
            mask = None if keys_masked is None else keys_masked[start : start + size]
            mask = mask if mask is not None and mask.any() else None
            parts.append(self._layers(x[:, start : start + size].contiguous(), mask, []))
        return torch.cat(parts, dim=1)

    def left_padding(self, src_tokens: Tensor) -> Tensor:
        """(B,1) how many padding tokens each row of (B,T0) tokens begins with."""
        return src_tokens.ne(self.padding_idx).cumsum(1).eq(0).sum(1, keepdim=True)

    def right_pad(self, src_tokens: Tensor, token_embeddings: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Move padding in front of (B,T0) tokens behind them, so that the side does not change the output."""
        positions = torch.arange(src_tokens.size(1), device=src_tokens.device)
        order = (positions + self.left_padding(src_tokens)) % src_tokens.size(1)
        if token_embeddings is not None:
            token_embeddings = token_embeddings.gather(1, order[..., None].expand_as(token_embeddings))
        return src_tokens.gather(1, order), token_embeddings

    def pad_to_block_multiple(
        self, src_tokens: Tensor, token_embeddings: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Pad (B,T0) tokens to the (B,T) that the attention works on."""
        src_len = src_tokens.size(1)
        missing = self.attention_class.padded_length(src_len, self.lsg_config) - src_len
        if token_embeddings is not None:
            token_embeddings = nn.functional.pad(token_embeddings, (0, 0, 0, missing))
        return nn.functional.pad(src_tokens, (0, missing), value=self.padding_idx), token_embeddings

    def forward_embedding(self, src_tokens: Tensor, token_embedding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embed (B,T) tokens: returns (B,G+T,C), globals in front, and the scaled token embeddings (B,T,C)."""
        if token_embedding is None:
            token_embedding = self.embed_tokens(src_tokens)
        x = embed = self.embed_scale * token_embedding
        if self.embed_positions is not None:
            x = embed + self.embed_positions(src_tokens)
        x = self.prepend_global_tokens(x)
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        x = self.dropout_module(x)
        if self.quant_noise is not None:
            x = self.quant_noise(x)
        return x, embed

    def prepend_global_tokens(self, x: Tensor) -> Tensor:
        """(B,T,C) -> (B,G+T,C). Global tokens carry their position in the table and are never scaled."""
        rows = self.global_embeddings.weight[: self.lsg_config.num_global_tokens]
        return torch.cat([rows.to(x).expand(x.size(0), -1, -1), x], dim=1)

    def padding_mask(self, src_tokens: Tensor) -> Tensor:
        """(B,G+T) bool, True = padding; the globals never are."""
        return nn.functional.pad(src_tokens.eq(self.padding_idx), (self.lsg_config.num_global_tokens, 0), value=False)

    def masked_keys(self, padding_mask: Tensor) -> Tensor | None:
        """The keys that self-attention must not see (B,G+T), or None if it may see all: masks cost time."""
        if self.lsg_config.mask_first_token:
            masked = padding_mask.clone()
            masked[:, self.lsg_config.num_global_tokens] = True
            return masked
        # The one look at the data in a forward. A compiled graph cannot have it and keeps the mask, and a batch of
        # several on a GPU is padded nearly always: not worth waiting for the GPU.
        is_costly = padding_mask.is_cuda and padding_mask.size(0) > 1
        if torch.compiler.is_compiling() or is_costly or padding_mask.any():
            return padding_mask
        return None

    def output_rows(self, x: Tensor, src_len: int) -> Tensor:
        """(G+T,B,C) -> (G+T0,B,C), or (T0,B,C) where the decoder is not given the globals."""
        num_globals = self.lsg_config.num_global_tokens
        if self.lsg_config.pass_global_tokens_to_decoder:
            return x[: num_globals + src_len]
        rows = x[num_globals : num_globals + src_len]
        return torch.cat([x[:1], rows[1:]]) if self.lsg_config.pool_with_global else rows

    def output_mask(self, padding_mask: Tensor, src_len: int) -> Tensor:
        """(B,G+T) -> the mask of `output_rows`, (B,G+T0) or (B,T0), in which no row is masked altogether.

        A source of nothing but padding keeps its first row: a decoder that may look nowhere computes NaN.
        """
        num_globals = self.lsg_config.num_global_tokens
        if self.lsg_config.pass_global_tokens_to_decoder:
            return padding_mask[:, : num_globals + src_len]
        mask = padding_mask[:, num_globals : num_globals + src_len]
        is_empty = mask.all(1, keepdim=True)
        return torch.cat([mask[:, :1] & ~is_empty, mask[:, 1:]], dim=1)

    def reorder_encoder_out(self, encoder_out: dict[str, list[Tensor]], new_order: Tensor) -> dict[str, list[Tensor]]:
        """Reorder the batch, unless beams share their source's output: then there is nothing to move."""
        moved = encoder_out if self.beams_share_output else super().reorder_encoder_out(encoder_out, new_order)
        return {**moved, "left_padding": [x.index_select(0, new_order) for x in encoder_out["left_padding"]]}

    def _check_length(self, src_tokens: Tensor) -> None:
        longest, allowed = src_tokens.size(1), self.max_positions()
        if longest > allowed:  # perhaps in padding alone
            longest = int(src_tokens.ne(self.padding_idx).sum(1).max())
        if longest > allowed:
            raise LSGError(
                f"a source of {longest} tokens is longer than the model's {allowed} source positions; truncate it, or "
                f"build a model with {longest} or more (--max-source-positions; --max-positions if encoder-only)"
            )


def _is_large(x: Tensor) -> bool:
    """Whether (L,B,C) is computed in groups: on CPUs, without gradients, and not while somebody records a graph."""
    is_recorded = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled()
    return x.device.type == "cpu" and not is_recorded and x.size(1) > 1 and x.size(0) * x.size(1) > GROUP_ROWS
