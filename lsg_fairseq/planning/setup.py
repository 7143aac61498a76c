"""fairseq-train's own flags -> what a training's memory depends on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from fairseq import options
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lsg_fairseq.checkpoints.build_task import is_lsg_architecture
from lsg_fairseq.data.preprocessing import DICTIONARY_FILES
from lsg_fairseq.models.half_precision import ClampedLayer
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.registry import ENCODER_ATTENTIONS
from lsg_fairseq.tokenizers.fairseq_bpe import read_dictionary
from lsg_fairseq.weights.families import family_of_arch
from lsg_fairseq.weights.limits import MAX_POSITIONS, MAX_VOCABULARY, check_size

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


PROGRAM = "lsg-plan"
USAGE = "lsg-plan [options] FLAGS OF fairseq-train, such as --arch lsg_bart_large --max-tokens 4096 --fp16"
# Rows of fairseq's table for facebook/bart-large, google/pegasus-large and facebook/mbart-large-cc25.
VOCABULARIES = {"bart": 50265, "pegasus": 96104, "mbart": 250027}
# Flags that change what is trained or computed in ways that are not counted here.
NOT_COUNTED = ("amp", "freeze_encoder", "freeze_embeddings", "offload_activations", "store_ema", "use_bmuf")


@dataclass(frozen=True)
class Machine:
    """Where a training is to run; backend "auto": what block_attention would choose."""

    device: str = "cuda"
    backend: str = "auto"
    vocabulary: int | None = None


def parse_flags(flags: Sequence[str]) -> Namespace:
    """Parse fairseq-train's flags as it would; the data folder may be left out.

    Raises:
        LSGError: fairseq-train has no such flag or architecture, or what it does is not counted here.
    """
    parser = options.get_training_parser(default_task="lsg_summarization")
    parser.set_defaults(arch="lsg_bart_large", optimizer="adam")
    parser.prog, parser.usage = PROGRAM, USAGE
    args, rest = options.parse_args_and_arch(parser, list(flags), parse_known=True, modify_parser=_make_data_optional)
    if not is_lsg_architecture(args) or not family_of_arch(args.arch).has_decoder:
        raise LSGError(f"lsg-plan knows this package's encoder-decoders, lsg_bart_large for example, not {args.arch!r}")
    if rest:
        raise LSGError(f"fairseq-train has no such flag for {args.arch}: {' '.join(rest)}; correct it or leave it out")
    given = [name for name in NOT_COUNTED if getattr(args, name, None)]
    if given or args.ddp_backend == "slowmo":
        flag = given[0].replace("_", "-") if given else "ddp-backend slowmo"
        raise LSGError(f"lsg-plan does not know what --{flag} costs; leave it out, and take the plan for an estimate")
    if args.optimizer not in ("adam", "adafactor"):
        raise LSGError(f"lsg-plan knows --optimizer adam and adafactor, not {args.optimizer!r}")
    return args


def _make_data_optional(parser: object) -> None:
    for action in parser._actions:
        if action.dest == "data":
            action.nargs, action.default = "?", None


def read_setup(args: Namespace, machine: Machine) -> Setup:
    """What memory depends on, from parsed flags.

    Raises:
        LSGError: sizes or flags that do not go together.
    """
    vocabulary = _vocabulary(args, machine)
    model = read_model(args, vocabulary)
    dtype = "fp16" if args.fp16 else "bf16" if args.bf16 else "fp32"
    is_efficient = bool(args.memory_efficient_fp16 or args.memory_efficient_bf16)
    is_flat = dtype == "fp16" and not is_efficient and not args.fp16_no_flatten_grads
    _check_combinations(args, machine, dtype, is_flat)
    return Setup(
        model=model,
        batch=batch_of(args),
        dtype=dtype,
        is_memory_efficient=is_efficient,
        is_cuda=machine.device == "cuda",
        backend=choose_backend(machine, model, dtype),
        optimizer=args.optimizer,
        is_flat=is_flat,
        has_first_moment=args.optimizer == "adam" or args.beta1 is not None,
        accumulates=max(args.update_freq) > 1,
        world_size=max(1, args.distributed_world_size),
        ddp_backend=args.ddp_backend,
        zero_sharding=args.zero_sharding,
        reads_weights=args.task != "lsg_summarization" or args.load_alignments,
    )


def batch_of(args: Namespace) -> Batch:
    """The batch of the longest documents, with summaries of full length.

    Raises:
        LSGError: neither --batch-size nor --max-tokens is given, or not even one document fits into --max-tokens.
    """
    source, target = args.max_source_positions, args.max_target_positions
    check_size("max_source_positions", source, 1, MAX_POSITIONS)
    check_size("max_target_positions", target, 1, MAX_POSITIONS)
    longest = max(source, target)
    if args.batch_size is None and args.max_tokens is None:
        raise LSGError("how large is a batch? Give --batch-size or --max-tokens, as to fairseq-train")
    for name, value in (("batch-size", args.batch_size), ("max-tokens", args.max_tokens)):
        if value is not None and value < 1:
            raise LSGError(f"--{name} must be at least 1, not {value}")
    if args.max_tokens is not None and args.max_tokens < longest:
        raise LSGError(
            f"--max-tokens {args.max_tokens} holds no document of {longest} tokens, which fairseq-train refuses: give "
            f"--max-tokens {longest} or more, or fewer positions"
        )
    by_tokens = longest if args.max_tokens is None else args.max_tokens // longest
    rows = args.batch_size if args.max_tokens is None else min(by_tokens, args.batch_size or by_tokens)
    return Batch(rows, source, target)


def short_documents(args: Namespace) -> Batch | None:
    """The batch with most target tokens that --max-tokens allows: documents as short as their summaries."""
    if args.max_tokens is None or args.max_source_positions <= args.max_target_positions:
        return None
    rows = args.max_tokens // args.max_target_positions
    return Batch(min(rows, args.batch_size or rows), args.max_target_positions, args.max_target_positions)


def choose_backend(machine: Machine, model: Model, dtype: str) -> str:
    """What block_attention takes on a machine where every kernel works, or the one that is asked for.

    Raises:
        LSGError: that one does not serve the device, the dtype or dropout.
    """
    on_cuda, has_dropout = machine.device == "cuda", model.attention_dropout > 0
    fits = {
        "fused_cpu": not on_cuda and not has_dropout,
        "flex": on_cuda and not has_dropout,
        "triton": on_cuda and dtype != "fp32",
        "chunked": True,
    }
    if machine.backend == "auto":
        return next(name for name in BACKENDS if fits[name])
    if not fits[machine.backend]:
        what = f"{dtype} on {machine.device} with attention dropout {model.attention_dropout:g}"
        raise LSGError(f"--backend {machine.backend} does not serve {what}; leave --backend out")
    return machine.backend


def _vocabulary(args: Namespace, machine: Machine) -> int:
    if machine.vocabulary is not None:
        check_size("--vocab-size", machine.vocabulary, 5, MAX_VOCABULARY)
        return machine.vocabulary
    for name in DICTIONARY_FILES:
        path = Path(args.data or "") / name
        if args.data and path.is_file():
            return len(read_dictionary(path))
    return VOCABULARIES[family_of_arch(args.arch).name]


def _check_combinations(args: Namespace, machine: Machine, dtype: str, is_flat: bool) -> None:
    if machine.device == "cpu" and dtype == "fp16":
        raise LSGError("--fp16 on a CPU is not counted: plan --bf16, or --device cuda")
    if is_flat and (args.zero_sharding == "os" or args.optimizer == "adafactor"):
        flag = "--zero-sharding os" if args.zero_sharding == "os" else "--optimizer adafactor"
        raise LSGError(f"{flag} with --fp16 needs --fp16-no-flatten-grads as well, or --memory-efficient-fp16")
