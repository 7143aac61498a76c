"""What fairseq builds from a checkpoint's arguments: an LSG model and no other, and the task that goes with it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY, BaseFairseqModel
from fairseq.tasks import FairseqTask
from fairseq.tasks.masked_lm import MaskedLMConfig, MaskedLMTask

from lsg_fairseq.models.lsg_model import LSGModelMixin
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.languages import in_task_languages
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig, LSGSummarizationTask
from lsg_fairseq.tokenizers.fairseq_bpe import DocumentTokenizer, build_dictionary, read_dictionary, with_task_symbols
from lsg_fairseq.tokenizers.sequence_format import SEQUENCE_FORMAT_FILE, SequenceFormat
from lsg_fairseq.weights.families import family_of_arch

# --- the model: a checkpoint must not choose a class that is not an LSG model.


def check_architecture(args: Namespace, checkpoint: Path) -> None:
    """Refuse a model whose class is neither of this package nor a subclass of one.

    Raises:
        LSGError: the architecture is unknown, or registered with such a class.
    """
    if not is_lsg_architecture(args):
        known = sorted(name for name, model in ARCH_MODEL_REGISTRY.items() if issubclass(model, LSGModelMixin))
        raise LSGError(
            f"{checkpoint} asks for the architecture {_built_name(args)!r}, which is not an LSG model (known: "
            f"{', '.join(known)}): if a package of yours registers it with a subclass of one, have that imported first "
            "(--user-dir DIR; in Python, import it)"
        )


def is_lsg_architecture(args: Namespace) -> bool:
    """Whether fairseq builds a class of this package, or a subclass, from these arguments."""
    name = _built_name(args)
    model = ARCH_MODEL_REGISTRY.get(name)
    if model is None and name in MODEL_DATACLASS_REGISTRY:
        model = MODEL_REGISTRY[name]
    return model is not None and issubclass(model, LSGModelMixin)


def own_flags(arch: str) -> set[str]:
    """The arguments that a user's own subclass adds to those of its family's model."""
    model = ARCH_MODEL_REGISTRY[arch]
    stock = ARCH_MODEL_REGISTRY[family_of_arch(arch).arch]
    return set() if model is stock else _flags_of(model) - _flags_of(stock)


def _flags_of(model: type[BaseFairseqModel]) -> set[str]:
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    model.add_args(parser)
    return {action.dest for action in parser._actions}


def _built_name(args: Namespace) -> str:
    """The name that fairseq goes by, as in fairseq/models/__init__.py: `_name` comes before `arch`."""
    name = getattr(args, "_name", None) or getattr(args, "arch", None)
    return name if isinstance(name, str) else repr(name)


# --- the task: its vocabulary and what surrounds a sequence, without its data.


def build_task(
    args: Namespace, vocabulary: Path, tokenizer: DocumentTokenizer, trained_with: Mapping[str, Any]
) -> FairseqTask:
    """The task for a model: lsg_summarization, or masked_lm for an encoder-only model.

    Args:
        args: the model's arguments.
        vocabulary: folder with dict.txt and sequence_format.json; where it has none, the tokenizer's own apply.
        trained_with: the arguments of the task that the checkpoint was trained with.
    """
    build = _build_summarization if family_of_arch(args.arch).has_decoder else _build_masked_lm
    task = build(args, vocabulary, tokenizer, trained_with)
    stored = _sequence_format(vocabulary, tokenizer, trained_with)
    task.sequence_format = in_task_languages(stored, Namespace(**trained_with), task.source_dictionary)
    return task


def set_max_positions(task: FairseqTask, length: int | None) -> None:
    """Make the task cut documents to `length` tokens; None: to what the model reads."""
    if isinstance(task, LSGSummarizationTask):
        task.cfg.max_source_positions = length
    elif length is not None:
        task.cfg.tokens_per_sample = length


def _build_summarization(
    args: Namespace, vocabulary: Path, tokenizer: DocumentTokenizer, trained_with: Mapping[str, Any]
) -> LSGSummarizationTask:
    sides = [trained_with.get(f"{side}_lang") or side for side in ("source", "target")]
    dictionaries = [
        with_task_symbols(_read_dictionary(vocabulary, side, tokenizer), trained_with.get("langs")) for side in sides
    ]
    forced = {name: trained_with[name] for name in ("forced_first_token", "forced_eos") if name in trained_with}
    return LSGSummarizationTask(LSGSummarizationConfig(data=str(vocabulary), **forced), *dictionaries)


def _build_masked_lm(
    args: Namespace, vocabulary: Path, tokenizer: DocumentTokenizer, trained_with: Mapping[str, Any]
) -> MaskedLMTask:
    length = getattr(args, "max_positions", None)
    if length is None:
        raise LSGError(
            f"the checkpoint states the architecture {args.arch} and no max_positions, which such a model has: use it "
            "as it was written, it may be another one"
        )
    cfg = MaskedLMConfig(data=str(vocabulary), tokens_per_sample=length)
    # The task adds <mask> to the dictionary, as it did in training.
    return MaskedLMTask(cfg, _read_dictionary(vocabulary, "input0", tokenizer))


def _read_dictionary(folder: Path, side: str, tokenizer: DocumentTokenizer) -> Dictionary:
    for name in (f"dict.{side}.txt", "dict.txt", f"{side}/dict.txt"):
        if (folder / name).is_file():
            return read_dictionary(folder / name)
    return build_dictionary(tokenizer)


def _sequence_format(folder: Path, tokenizer: DocumentTokenizer, trained_with: Mapping[str, Any]) -> SequenceFormat:
    trained_task = trained_with.get("_name", trained_with.get("task"))
    if trained_task == "translation":
        # fairseq's own task puts nothing in front, and the model has never seen anything else.
        return SequenceFormat(source_bos=False, target_bos=False)
    if trained_task == "sentence_prediction":
        return SequenceFormat(source_bos=trained_with.get("init_token") is not None)
    if (folder / SEQUENCE_FORMAT_FILE).is_file():
        return SequenceFormat.load(folder)
    return tokenizer.sequence_format
