"""fairseq-train's own flags -> what its memory depends on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq import options

from lsg_fairseq.checkpoints.build_task import is_lsg_architecture
from lsg_fairseq.data.preprocessing import DICTIONARY_FILES
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.planning.setup import BACKENDS, Batch, Model, Setup, read_model
from lsg_fairseq.tokenizers.fairseq_bpe import read_dictionary
from lsg_fairseq.weights.families import family_of_arch
from lsg_fairseq.weights.limits import check_number

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
        LSGError: fairseq-train has no such flag or architecture, a number is out of range, or what it does is not
            counted here.
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
    _check_numbers(args)
    return args


def _check_numbers(args: Namespace) -> None:
    """Those that are multiplied here; a model's own are checked when it is built."""
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
        world_size=args.distributed_world_size,
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
    longest = max(source, target)
    if args.batch_size is None and args.max_tokens is None:
        raise LSGError("how large is a batch? Give --batch-size or --max-tokens, as to fairseq-train")
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
        check_number("vocab_size", machine.vocabulary, called="--vocab-size")
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
