"""A fairseq checkpoint file -> task and model, in no more memory than the weights take."""

from __future__ import annotations

import logging
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lsg_fairseq.checkpoints.build_task import build_task, check_architecture, set_max_positions
from lsg_fairseq.compat.checkpoint_parts import check_parts
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.data.kept_part import PART_STATE, KeptPart
from lsg_fairseq.models.classification import register_heads_of
from lsg_fairseq.models.lsg_model import FLAG_PREFIX
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationTask
from lsg_fairseq.tokenizers.fairseq_bpe import (
    DICTIONARY_STATE,
    DocumentTokenizer,
    build_dictionary,
    dictionary_fingerprint,
    load_tokenizer,
)
from lsg_fairseq.weights.limits import check_sizes, first_names
from lsg_fairseq.weights.model_spec import spec_from_fairseq_args
from lsg_fairseq.weights.position_tables import resize_both
from lsg_fairseq.weights.state_dicts import check_kind, describe_misfit

logger = logging.getLogger(__name__)

# Where a checkpoint keeps the fingerprint of its dictionary: in the state of its task.
OWN_TASK = "lsg_summarization"
# Symbols that no tokenizer needs to have: special tokens, language codes, and what fairseq pads a dictionary with.
NO_PIECE = re.compile(r"<.*>|\[.*\]|madeupword\d+")


@dataclass(frozen=True)
class CheckpointFiles:
    """Where the parts of a checkpoint are.

    `vocabulary` is the folder with dict.txt and sequence_format.json; where it has none, the tokenizer's own apply.
    `generation` holds fairseq's names of the generation settings that belong to the checkpoint, with
    `forced_first_token` and `forced_eos`. `is_replaced_as_a_whole`: such a file is never written in place, so its
    weights may stay in it, mapped into memory.
    """

    model: Path
    vocabulary: Path
    tokenizer: Path
    generation: Mapping[str, Any] = field(default_factory=dict)
    is_replaced_as_a_whole: bool = False


@dataclass(frozen=True)
class Overrides:
    """What replaces the checkpoint's own settings: LSGConfig fields, dropout of the attention, and lengths."""

    lsg: Mapping[str, Any] = field(default_factory=dict)
    attention_dropout: float | None = None
    max_source_positions: int | None = None


def open_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a fairseq checkpoint, tensors mapped into memory where the file's format allows.

    Raises:
        LSGError: the file is damaged, is a pickle that asks for code, or is not a fairseq checkpoint.
    """
    state = load_checkpoint_file(str(path), mmap=True)
    check_parts(path, state)
    return state


def model_arguments(state: Mapping[str, Any]) -> Namespace:
    """The arguments that the checkpoint's model was built from; `arch` is "" where they name none."""
    args = Namespace(**_stored_arguments(state, "model"))
    if not getattr(args, "arch", None):
        args.arch = getattr(args, "_name", None) or ""
    return args


def task_arguments(state: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the task that the checkpoint was trained with."""
    return _stored_arguments(state, "task")


def training_arguments(state: Mapping[str, Any]) -> dict[str, Any]:
    """task_arguments and where the training kept its checkpoints, `save_dir`."""
    return {**task_arguments(state), "save_dir": _stored_arguments(state, "checkpoint").get("save_dir")}


def _stored_arguments(state: Mapping[str, Any], group: str) -> dict[str, Any]:
    """A copy of the arguments of a group: hydra's in `cfg`, those of an older fairseq all together in `args`."""
    stored = (state.get("cfg") or {}).get(group) or state.get("args") or {}
    return dict(vars(stored) if isinstance(stored, Namespace) else stored)


def part_of_checkpoint(state: Mapping[str, Any]) -> str | None:
    """Which part of long documents the checkpoint was trained on, as far as it says so."""
    return (state.get("task_state") or {}).get(PART_STATE)


def load_task_and_model(
    files: CheckpointFiles, overrides: Overrides
) -> tuple[FairseqTask, nn.Module, DocumentTokenizer]:
    """Build task and model (in evaluation mode) and fill in the weights.

    Raises:
        LSGError: a setting is not allowed, or vocabulary, weights and sizes are not those of one model.
    """
    state = open_checkpoint(files.model)
    tokenizer = load_tokenizer(files.tokenizer)
    args = _overridden(model_arguments(state), overrides)
    check_architecture(args, files.model)
    check_sizes(vars(args))
    task = build_task(args, files.vocabulary, tokenizer, task_arguments(state))
    check_dictionary(task.source_dictionary, state, tokenizer, files)
    if isinstance(task, LSGSummarizationTask):
        check_dictionary(task.target_dictionary, state, tokenizer, files)
        task.kept_part = KeptPart(None, part_of_checkpoint(state))
    weights = _with_longer_tables(
        dict(state["model"]), args, overrides.max_source_positions, len(task.source_dictionary)
    )
    # The task cuts documents to what is asked for, which may be less than the model could read.
    set_max_positions(task, overrides.max_source_positions)
    model = _build_filled_model(task, args, weights, copy=not files.is_replaced_as_a_whole)
    return task, model.eval(), tokenizer


def check_dictionary(
    dictionary: Dictionary, state: Mapping[str, Any], tokenizer: DocumentTokenizer, files: CheckpointFiles
) -> None:
    """Check that a dictionary is the one that the checkpoint was trained with, as far as the checkpoint says.

    Raises:
        LSGError: it is another, has the tokenizer's tokens in another order, or pieces that the tokenizer lacks.
    """
    known = (state.get("task_state") or {}).get(DICTIONARY_STATE)
    if known is not None:
        if known != dictionary_fingerprint(dictionary):
            raise LSGError(
                f"the dictionary in {files.vocabulary} is not the one that {files.model} was trained with: give the "
                "tokenizer folder that belongs to the checkpoint"
            )
        _check_tokenizer(dictionary, tokenizer, files)
        return
    if task_arguments(state).get("_name") == OWN_TASK and not _is_in_order(dictionary, tokenizer):
        raise LSGError(
            f"the dictionary in {files.vocabulary} has the tokens of {files.tokenizer} in another order: give the "
            "dict.txt and the tokenizer of one data folder"
        )
    logger.info(
        f"{files.model} does not say which dictionary it was trained with: taken to be that of {files.vocabulary}, "
        f"whose {len(dictionary):,} symbols are as many as it has embeddings"
    )


def _check_tokenizer(dictionary: Dictionary, tokenizer: DocumentTokenizer, files: CheckpointFiles) -> None:
    own = set(build_dictionary(tokenizer).symbols)
    strange = [symbol for symbol in dictionary.symbols if symbol not in own and not NO_PIECE.fullmatch(symbol)]
    if strange:
        raise LSGError(
            f"the tokenizer in {files.tokenizer} lacks pieces that {files.model} was trained with "
            f"({first_names(strange)}): give the tokenizer folder that belongs to the checkpoint"
        )


def _is_in_order(dictionary: Dictionary, tokenizer: DocumentTokenizer) -> bool:
    own = build_dictionary(tokenizer).symbols
    known = set(own)
    return [s for s in dictionary.symbols if s in known] == [s for s in own if s in dictionary.indices]


def _overridden(args: Namespace, overrides: Overrides) -> Namespace:
    for name, value in overrides.lsg.items():
        setattr(args, FLAG_PREFIX + name, value)
    if overrides.attention_dropout is not None:
        args.attention_dropout = overrides.attention_dropout
    # The embeddings are in the checkpoint; the files that they once came from need not exist any more.
    args.encoder_embed_path = args.decoder_embed_path = None
    return args


def _with_longer_tables(
    weights: dict[str, Tensor], args: Namespace, length: int | None, vocab_size: int
) -> dict[str, Tensor]:
    """Lengthen the position tables, and `args` with them, if more is asked for than there is."""
    if length is None:
        return weights
    spec = spec_from_fairseq_args(vars(args), vocab_size)
    source, target = spec.max_source_positions, spec.max_target_positions
    if length <= source:
        return weights
    weights, spec = resize_both(weights, spec, length, length if target == source else target)
    if spec.has_decoder:
        args.max_source_positions, args.max_target_positions = spec.max_source_positions, spec.max_target_positions
    else:
        args.max_positions = spec.max_source_positions
    return weights


def _build_filled_model(task: FairseqTask, args: Namespace, weights: dict[str, Tensor], copy: bool) -> nn.Module:
    """Build a model without storage and put the weights in place; with storage if a part of it needs that."""
    with _without_storage():
        model = _built(task, args, weights)
    # Outside: an upgrade may make tensors, which need storage.
    model.upgrade_state_dict(weights)
    fill_weights(model, weights, copy)
    if not _is_complete(model):
        model = _built(task, args, weights)
        fill_weights(model, weights, copy)
    return model


def _built(task: FairseqTask, args: Namespace, weights: dict[str, Tensor]) -> nn.Module:
    model = task.build_model(Namespace(**vars(args)), from_checkpoint=True)
    register_heads_of(model, weights)
    return model


def fill_weights(model: nn.Module, weights: Mapping[str, Tensor], copy: bool = True) -> None:
    """Make `weights` the model's parameters and buffers, as float32; tied ones stay tied.

    Args:
        copy: whether tensors are copied one by one rather than used as they are.

    Raises:
        LSGError: names or shapes are not the model's.
    """
    expected = model.state_dict(keep_vars=True)
    misfit = describe_misfit(weights, {name: tuple(old.shape) for name, old in expected.items()})
    if misfit:
        raise LSGError(f"the weights do not fit the model and its vocabulary ({misfit}): use files of one checkpoint")
    replaced: dict[int, Tensor] = {}
    for name, old in expected.items():
        if id(old) not in replaced:
            if old.is_floating_point():
                check_kind(name, weights[name])
            new = weights[name].float() if weights[name].is_floating_point() else weights[name]
            new = new.clone() if copy and new is weights[name] else new
            replaced[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        path, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(path), attribute, replaced[id(old)])


def _is_complete(model: nn.Module) -> bool:
    """Whether every tensor has storage: a user's own module may compute a table when it is built."""
    return not any(
        isinstance(value, Tensor) and value.is_meta and value.numel()
        for module in model.modules()
        for value in [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]
    )


class _MetaStaysMeta(TorchFunctionMode):
    """fairseq's BART initialises through `.cpu()`, which a tensor without storage cannot follow."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.cpu and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_storage() -> Iterator[None]:
    """Build modules with shapes but without memory, and without drawing random numbers."""
    with torch.device("meta"), _MetaStaysMeta():
        yield
