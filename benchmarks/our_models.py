"""What speed.py measures of this project: its encoder, its attention layer, its beam search."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.contestant_sizes import (
    BEAM,
    BLOCK,
    DECODER_LAYERS,
    FFN,
    HEADS,
    LAYER_HEADS,
    LAYER_WIDTH,
    LAYERS,
    NEW_TOKENS,
    POSITIONS,
    SEEN,
    VOCABULARY,
    WIDTH,
    random_ids,
    without_projections,
)

Built = tuple[torch.nn.Module, Callable[[], object]]


def build_encoder(tokens: int, attention: str = "lsg", sparsity: str = "norm", dropout: float = 0.0) -> Built:
    """An encoder of BART-base's sizes."""
    model = _build(60, decoder_layers=1, lsg_attention=attention, lsg_sparsity_type=sparsity, attention_dropout=dropout)
    ids = random_ids(tokens, 60)
    return model.encoder, lambda: model.encoder(ids)["encoder_out"][0]


def build_floor(tokens: int) -> Built:
    """The same encoder with an attention that only multiplies its projections: what everything else costs."""
    from lsg_fairseq.modules.lsg_attention import EncoderSelfAttention
    from lsg_fairseq.modules.registry import register_encoder_attention

    @register_encoder_attention("floor")
    class Floor(EncoderSelfAttention):
        def attend(self, query, key, value, key_padding_mask):
            return query * key * value

    return build_encoder(tokens, "floor")


def build_product_floor(tokens: int) -> Built:
    """The same encoder with an attention that is the matrix products of 641 keys a query, without a softmax."""
    from lsg_fairseq.modules.lsg_attention import EncoderSelfAttention
    from lsg_fairseq.modules.registry import register_encoder_attention

    @register_encoder_attention("products")
    class Products(EncoderSelfAttention):
        def attend(self, query, key, value, key_padding_mask):
            seen = (query, key[:, :, :SEEN], value[:, :, :SEEN])
            queries, keys, values = (x.flatten(0, 1).contiguous() for x in seen)
            # A block of queries at a time, so that its scores stay in cache.
            parts = [torch.bmm(torch.bmm(part, keys.transpose(1, 2)), values) for part in queries.split(BLOCK, dim=1)]
            return torch.cat(parts, dim=1).view(query.shape)

    return build_encoder(tokens, "products")


def build_layer(tokens: int, full: bool = False) -> Built:
    """One attention of 16 heads of 64 without its projections."""
    from lsg_fairseq.modules.lsg_attention import FullMultiheadAttention, LSGMultiheadAttention
    from lsg_fairseq.modules.lsg_config import LSGConfig

    kind = FullMultiheadAttention if full else LSGMultiheadAttention
    module = without_projections(kind(LAYER_WIDTH, LAYER_HEADS, LSGConfig()))
    x = torch.randn(tokens + 1, 1, LAYER_WIDTH)
    return module, lambda: module(x, x, x)[0]


def build_products(tokens: int) -> Built:
    """Scores and weighted sums of 641 keys a query as plain matrix products, and nothing else."""
    queries, keys, values = (torch.randn(LAYER_HEADS, n, LAYER_WIDTH // LAYER_HEADS) for n in (tokens, SEEN, SEEN))
    products = lambda: torch.stack([(q @ k.T) @ v for q, k, v in zip(queries, keys, values, strict=True)])  # noqa: E731
    return torch.nn.Identity(), products


def build_generation(tokens: int) -> Built:
    """Beam search over one document, to the same number of new tokens whatever they are."""
    model = _build(VOCABULARY, decoder_layers=DECODER_LAYERS)
    from lsg_fairseq.generation import LSGSequenceGenerator

    limits = {"beam_size": BEAM, "min_len": NEW_TOKENS - 1, "max_len_a": 0, "max_len_b": NEW_TOKENS - 1}
    generator = LSGSequenceGenerator([model], model.decoder.dictionary, **limits)
    ids = random_ids(tokens, VOCABULARY)
    sample = {"net_input": {"src_tokens": ids, "src_lengths": torch.tensor([tokens])}}
    return model, lambda: _checked(generator.generate([model], sample)[0][0]["tokens"])


def _checked(output: torch.Tensor) -> torch.Tensor:
    if len(output) != NEW_TOKENS:
        raise SystemExit(f"{len(output)} new tokens and not {NEW_TOKENS}")
    return output


def _build(num_symbols: int, decoder_layers: int, **flags: object) -> torch.nn.Module:
    from recipes.tiny_models import build_model

    sizes = {"embed_dim": WIDTH, "ffn_embed_dim": FFN, "attention_heads": HEADS}
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}
    lsg = {"lsg_block_size": BLOCK, "lsg_sparse_block_size": BLOCK, "lsg_sparsity_factor": 2}
    flags = {"dropout": 0.0, "max_source_positions": POSITIONS, **sizes, **lsg, **flags}
    return build_model("lsg_bart_base", num_symbols, encoder_layers=LAYERS, decoder_layers=decoder_layers, **flags)
