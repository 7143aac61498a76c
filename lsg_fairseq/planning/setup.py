"""What a training's memory depends on: sizes of the model, of a batch, dtypes, and what the flags switch on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import NamedTuple

from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lsg_fairseq.models.half_precision import ClampedLayer
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.registry import ENCODER_ATTENTIONS

# What serves the encoder's block attention, in the order in which it is tried.
BACKENDS = ("fused_cpu", "flex", "triton", "chunked")


class Stack(NamedTuple):
    """Layers of one side: how many, sizes, and the parameters of one layer and of its feed-forward part."""

    layers: int
    width: int
    ffn: int
    heads: int
    layer_parameters: int
    ffn_parameters: int


class Batch(NamedTuple):
    """Examples in a batch and tokens in each one's source and target, padding included."""

    rows: int
    source: int
    target: int


@dataclass(frozen=True)
class Model:
    """Sizes of a built model, counted on the model itself."""

    encoder: Stack
    decoder: Stack
    vocabulary: int
    shapes: tuple[tuple[int, ...], ...]
    is_clamped: bool
    has_embedding_norm: bool
    has_learned_positions: bool
    has_final_norm: bool
    dropout: float
    attention_dropout: float
    activation_dropout: float
    activation: str
    checkpoints: bool
    config: LSGConfig

    @property
    def parameters(self) -> int:
        """How many numbers are trained; a shared table counts once."""
        return sum(_numel(shape) for shape in self.shapes)

    @property
    def largest(self) -> int:
        """Numbers in the largest parameter."""
        return max(_numel(shape) for shape in self.shapes)


@dataclass(frozen=True)
class Setup:
    """A training, as far as its memory depends on it."""

    model: Model
    batch: Batch
    dtype: str
    is_memory_efficient: bool
    is_cuda: bool
    backend: str
    optimizer: str
    is_flat: bool
    has_first_moment: bool
    accumulates: bool
    world_size: int
    ddp_backend: str
    zero_sharding: str
    # Whether the criterion may read the last decoder layer's attention weights.
    reads_weights: bool = True

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the model."""
        return 4 if self.dtype == "fp32" else 2

    @property
    def attention_itemsize(self) -> int:
        """Bytes in attention kernels (modules/kernel_precision.py): float32 on a CPU unless there is dropout."""
        return self.itemsize if self.is_cuda or self.model.attention_dropout else 4

    @property
    def noise_itemsize(self) -> int:
        """What dropout keeps of each number: a byte on CUDA (native_dropout), the factor itself on a CPU."""
        return 1 if self.is_cuda else self.itemsize

    @property
    def keeps_scores(self) -> bool:
        """Whether torch's attention keeps probabilities: on a CPU, with dropout, none of its fused kernels serves."""
        return not self.is_cuda and self.model.attention_dropout > 0

    @property
    def padded_source(self) -> int:
        """Tokens in front of the encoder's layers: whole blocks."""
        attention = ENCODER_ATTENTIONS[self.model.config.attention]
        return attention.padded_length(self.batch.source, self.model.config)

    @property
    def attends_by_blocks(self) -> bool:
        """Up to two blocks, and with --lsg-attention full, attention is plain."""
        return self.model.config.attention != "full" and self.padded_source > 2 * self.model.config.block_size

    @property
    def decoder_source(self) -> int:
        """Encoder rows that the decoder reads."""
        config = self.model.config
        return self.batch.source + (config.num_global_tokens if config.pass_global_tokens_to_decoder else 0)

    def with_rows(self, rows: int) -> Setup:
        """The same training with another number of examples in a batch."""
        return replace(self, batch=self.batch._replace(rows=rows))


def read_model(args: Namespace, vocabulary: int) -> Model:
    """Build the model that fairseq-train's arguments describe, without memory for its weights, and read its sizes.

    Raises:
        LSGError: the sides have tables of their own, or a setting is not allowed.
    """
    dictionary = Dictionary()
    # Only its length matters.
    dictionary.symbols += ["word"] * (vocabulary - len(dictionary))
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    # Not on the meta device: fairseq initialises weights by way of the CPU.
    with FakeTensorMode():
        model = ARCH_MODEL_REGISTRY[args.arch].build_model(args, task)
    encoder, decoder, cfg = model.encoder, model.decoder, model.encoder.cfg
    if encoder.embed_tokens is not decoder.embed_tokens or not decoder.share_input_output_embed:
        raise LSGError("lsg-plan counts one table of embeddings: leave --share-all-embeddings on")
    return Model(
        encoder=_stack(encoder.layers, args.encoder_ffn_embed_dim, args.encoder_attention_heads),
        decoder=_stack(decoder.layers, args.decoder_ffn_embed_dim, args.decoder_attention_heads),
        vocabulary=vocabulary,
        shapes=tuple(tuple(p.shape) for p in model.parameters() if p.requires_grad),
        is_clamped=isinstance(encoder.layers[0], ClampedLayer),
        has_embedding_norm=encoder.layernorm_embedding is not None,
        has_learned_positions=isinstance(encoder.embed_positions, nn.Embedding),
        has_final_norm=encoder.layer_norm is not None,
        dropout=cfg.dropout,
        attention_dropout=cfg.attention_dropout,
        activation_dropout=cfg.activation_dropout or cfg.relu_dropout,
        activation=cfg.activation_fn,
        checkpoints=cfg.checkpoint_activations,
        config=encoder.lsg_config,
    )


def _stack(layers: Sequence[nn.Module], ffn: int, heads: int) -> Stack:
    if not len(layers):
        raise LSGError("a model without layers on one side is not planned: give both sides at least one")
    layer = layers[0]
    parts = [sum(p.numel() for p in part.parameters()) for part in (layer, layer.fc1, layer.fc2)]
    return Stack(len(layers), layer.embed_dim, ffn, heads, parts[0], parts[1] + parts[2])


def _numel(shape: tuple[int, ...]) -> int:
    numel = 1
    for size in shape:
        numel *= size
    return numel
