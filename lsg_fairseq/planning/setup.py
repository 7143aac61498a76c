"""fairseq-train's flags -> what a training's memory depends on: sizes of model and batch, dtypes, optimizer."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
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
from lsg_fairseq.weights.limits import check_number

PROGRAM = "lsg-plan"
USAGE = "lsg-plan [options] FLAGS OF fairseq-train, such as --arch lsg_bart_large --max-tokens 4096 --fp16"
# The backends of block attention, in the order in which they are tried.
BACKENDS = ("fused_cpu", "flex", "triton", "chunked")
# The dictionary sizes of facebook/bart-large, google/pegasus-large and facebook/mbart-large-cc25 in fairseq.
VOCABULARIES = {"bart": 50265, "pegasus": 96104, "mbart": 250027}
# Flags with effects on memory that the plan does not count.
NOT_COUNTED = ("amp", "freeze_encoder", "freeze_embeddings", "offload_activations", "store_ema", "use_bmuf")


class Stack(NamedTuple):
    """The layers of the encoder or decoder: their number and sizes, and the parameters of one and of its FFN part."""

    layers: int
    width: int
    ffn: int
    heads: int
    layer_parameters: int
    ffn_parameters: int


class Batch(NamedTuple):
    """The examples in a batch, and the tokens in each source and target, including padding."""

    rows: int
    source: int
    target: int


@dataclass(frozen=True)
class Model:
    """The sizes of a model, read from the model itself."""

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
        """The number of trained parameters; a shared table counts once."""
        return sum(map(prod, self.shapes))

    @property
    def largest(self) -> int:
        """The number of elements of the largest parameter."""
        return max(map(prod, self.shapes))


@dataclass(frozen=True)
class Setup:
    """Everything about a training that its memory depends on."""

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
        """Bytes per element of parameters and activations."""
        return 4 if self.dtype == "fp32" else 2

    @property
    def attention_itemsize(self) -> int:
        """Bytes per element in attention kernels (modules/kernel_precision.py): CPUs use float32 without dropout."""
        return self.itemsize if self.is_cuda or self.model.attention_dropout else 4

    @property
    def noise_itemsize(self) -> int:
        """Bytes that dropout keeps per element: a mask on CUDA (native_dropout), the factors on a CPU."""
        return 1 if self.is_cuda else self.itemsize

    @property
    def keeps_scores(self) -> bool:
        """Whether torch's attention keeps its probabilities: with dropout, no fused CPU kernel supports it."""
        return not self.is_cuda and self.model.attention_dropout > 0

    @property
    def padded_source(self) -> int:
        """The number of source tokens in the encoder's layers, padded to whole blocks."""
        attention = ENCODER_ATTENTIONS[self.model.config.attention]
        return attention.padded_length(self.batch.source, self.model.config)

    @property
    def attends_by_blocks(self) -> bool:
        """Whether the encoder uses block attention: not up to two blocks, nor with --lsg-attention full."""
        return self.model.config.attention != "full" and self.padded_source > 2 * self.model.config.block_size

    @property
    def decoder_source(self) -> int:
        """The number of encoder outputs that the decoder attends to."""
        config = self.model.config
        return self.batch.source + (config.num_global_tokens if config.pass_global_tokens_to_decoder else 0)

    def with_rows(self, rows: int) -> Setup:
        """A copy with `rows` examples in a batch."""
        return replace(self, batch=self.batch._replace(rows=rows))


def read_model(args: Namespace, vocabulary: int) -> Model:
    """Build the model of fairseq-train's arguments without allocating its weights, and read its sizes.

    Raises:
        LSGError: the embeddings are not shared, or a setting is not allowed.
    """
    dictionary = Dictionary()
    # Only its length matters.
    dictionary.symbols += ["word"] * (vocabulary - len(dictionary))
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    # The meta device does not work: fairseq copies weights to the CPU to initialise them.
    with FakeTensorMode():
        model = ARCH_MODEL_REGISTRY[args.arch].build_model(args, task)
    encoder, decoder, cfg = model.encoder, model.decoder, model.encoder.cfg
    if encoder.embed_tokens is not decoder.embed_tokens or not decoder.share_input_output_embed:
        raise LSGError("lsg-plan supports only shared embeddings: leave --share-all-embeddings on")
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
        raise LSGError("lsg-plan does not support a model without layers on one side: use at least one on both")
    layer = layers[0]
    parts = [sum(p.numel() for p in part.parameters()) for part in (layer, layer.fc1, layer.fc2)]
    return Stack(len(layers), layer.embed_dim, ffn, heads, parts[0], parts[1] + parts[2])


@dataclass(frozen=True)
class Machine:
    """The device ("cuda" or "cpu") and backend of a training, "auto" for the one that block_attention chooses.

    `vocabulary` is the dictionary's size; None: the data folder's, else the published model's.
    """

    device: str = "cuda"
    backend: str = "auto"
    vocabulary: int | None = None


def parse_flags(flags: Sequence[str]) -> Namespace:
    """Parse flags as fairseq-train does, except that the data folder is optional.

    Raises:
        LSGError: a flag or the architecture is unknown, a number is out of range, or memory is not counted here.
    """
    parser = options.get_training_parser(default_task="lsg_summarization")
    parser.set_defaults(arch="lsg_bart_large", optimizer="adam")
    parser.prog, parser.usage = PROGRAM, USAGE
    args, rest = options.parse_args_and_arch(parser, list(flags), parse_known=True, modify_parser=_make_data_optional)
    if not is_lsg_architecture(args) or not family_of_arch(args.arch).has_decoder:
        raise LSGError(
            f"lsg-plan supports only this package's encoder-decoders, such as --arch lsg_bart_large, not {args.arch!r}"
        )
    if rest:
        raise LSGError(f"fairseq-train has no such flag for {args.arch}: {' '.join(rest)}: correct it or leave it out")
    given = [name for name in NOT_COUNTED if getattr(args, name, None)]
    if given or args.ddp_backend == "slowmo":
        flag = given[0].replace("_", "-") if given else "ddp-backend slowmo"
        raise LSGError(f"lsg-plan does not count what --{flag} takes: leave it out, and take the plan as an estimate")
    if args.optimizer not in ("adam", "adafactor"):
        raise LSGError(f"lsg-plan supports --optimizer adam and adafactor, not {args.optimizer!r}: choose one of them")
    _check_numbers(args)
    return args


def _check_numbers(args: Namespace) -> None:
    """Check the numbers that the plan multiplies; those of the model are checked when it is built."""
    if not args.update_freq:
        raise LSGError("--update-freq names no number: give one, such as 4")
    values = [(name, getattr(args, name)) for name in ("batch_size", "max_tokens", "distributed_world_size")]
    values += [(f"max_{side}_positions", getattr(args, f"max_{side}_positions")) for side in ("source", "target")]
    for name, value in [*values, *(("update_freq", value) for value in args.update_freq)]:
        if value is not None:
            check_number(name, value, called=f"--{name.replace('_', '-')}")


def _make_data_optional(parser: object) -> None:
    for action in parser._actions:
        if action.dest == "data":
            action.nargs, action.default = "?", None


def read_setup(args: Namespace, machine: Machine) -> Setup:
    """The setup of a training with these parsed flags on a machine.

    Raises:
        LSGError: sizes or flags that contradict each other.
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
        world_size=args.distributed_world_size,
        ddp_backend=args.ddp_backend,
        zero_sharding=args.zero_sharding,
        reads_weights=args.task != "lsg_summarization" or args.load_alignments,
    )


def batch_of(args: Namespace) -> Batch:
    """The batch of documents and summaries of full length.

    Raises:
        LSGError: neither --batch-size nor --max-tokens is given, or a document does not fit into --max-tokens.
    """
    source, target = args.max_source_positions, args.max_target_positions
    longest = max(source, target)
    if args.batch_size is None and args.max_tokens is None:
        raise LSGError("the size of a batch is not given: use --batch-size or --max-tokens, as in fairseq-train")
    if args.max_tokens is not None and args.max_tokens < longest:
        raise LSGError(
            f"--max-tokens {args.max_tokens} is less than one document of {longest} tokens, which fairseq-train "
            f"refuses: give --max-tokens {longest} or more, or fewer positions"
        )
    by_tokens = longest if args.max_tokens is None else args.max_tokens // longest
    rows = args.batch_size if args.max_tokens is None else min(by_tokens, args.batch_size or by_tokens)
    return Batch(rows, source, target)


def short_documents(args: Namespace) -> Batch | None:
    """The batch with the most target tokens that --max-tokens allows: its documents are as short as their summaries.

    None if --max-tokens is not given, or if that is the batch of full length.
    """
    if args.max_tokens is None or args.max_source_positions <= args.max_target_positions:
        return None
    rows = args.max_tokens // args.max_target_positions
    return Batch(min(rows, args.batch_size or rows), args.max_target_positions, args.max_target_positions)


def choose_backend(machine: Machine, model: Model, dtype: str) -> str:
    """The backend that block_attention chooses if every kernel works on the machine, or the machine's own choice.

    Raises:
        LSGError: that one does not support the device, the dtype or dropout.
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
        raise LSGError(f"--backend {machine.backend} does not support {what}: leave --backend out")
    return machine.backend


def _vocabulary(args: Namespace, machine: Machine) -> int:
    if machine.vocabulary is not None:
        check_number("vocab_size", machine.vocabulary, called="--vocab-size")
        return machine.vocabulary
    for name in DICTIONARY_FILES:
        path = Path(args.data or "") / name
        if args.data and path.is_file():
            return len(read_dictionary(path))
    return VOCABULARIES[family_of_arch(args.arch).name]


def _check_combinations(args: Namespace, machine: Machine, dtype: str, is_flat: bool) -> None:
    if machine.device == "cpu" and dtype == "fp16":
        raise LSGError("lsg-plan does not support --fp16 on a CPU: use --bf16, or --device cuda")
    if is_flat and (args.zero_sharding == "os" or args.optimizer == "adafactor"):
        flag = "--zero-sharding os" if args.zero_sharding == "os" else "--optimizer adafactor"
        raise LSGError(f"{flag} with --fp16 needs --fp16-no-flatten-grads as well, or --memory-efficient-fp16")
