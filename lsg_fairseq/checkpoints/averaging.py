"""Checkpoints of one training -> one whose weights are their mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsg_fairseq.checkpoints.loading import model_arguments, open_checkpoint
from lsg_fairseq.compat.loading import as_plain
from lsg_fairseq.data.one_sentence import written_whole
from lsg_fairseq.data.output_folder import staged_file
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.state_dicts import check_kind

BY_EPOCH = re.compile(r"checkpoint(\d+)\.pt")
BY_UPDATE = re.compile(r"checkpoint_\d+_(\d+)\.pt")
EMA_PARTS = ("ema", "ema_fp32_params")
NAMES_SHOWN = 3


def last_checkpoints(folder: Path, count: int, by_update: bool, upper_bound: int | None = None) -> list[Path]:
    """The last `count` checkpoints of a training folder, oldest first.

    Args:
        by_update: those that --save-interval-updates wrote, rather than those at the ends of epochs.
        upper_bound: the last epoch or update that counts.

    Raises:
        LSGError: there are fewer.
    """
    if not folder.is_dir():
        raise LSGError(f"{folder} is not a folder: give the --save-dir of a training")
    pattern, kind = (BY_UPDATE, "checkpoint_EPOCH_UPDATE.pt") if by_update else (BY_EPOCH, "checkpointEPOCH.pt")
    matches = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()]
    numbered = sorted((int(match[1]), path) for match, path in matches if match)
    chosen = [path for number, path in numbered if upper_bound is None or number <= upper_bound]
    if not 1 <= count <= len(chosen):
        limit = "" if upper_bound is None else f" up to {upper_bound}"
        raise LSGError(
            f"{folder} has {len(chosen)} files {kind}{limit}, so {count} of them cannot be averaged: "
            + (f"ask for 1 to {len(chosen)}" if chosen else "name files, or another folder")
        )
    return chosen[-count:]


def average_checkpoints(paths: Sequence[Path], output: Path, overwrite: bool = False) -> list[str]:
    """Write the mean of the weights of `paths` to `output`, and everything else as the last has it.

    Optimizer states and moving averages of weights belong to one checkpoint and are left out; the sentences returned
    say so. The file appears as a whole or not at all.

    Raises:
        LSGError: a file is not a checkpoint, they are not of one model, or `output` exists.
    """
    if output.exists() and any(output.samefile(path) for path in paths if path.exists()):
        raise LSGError(f"{output} is one of the checkpoints to be averaged: choose another --output")
    if output.is_dir() or (output.exists() and not overwrite):
        raise LSGError(
            f"{output} exists: choose another --output" + ("" if output.is_dir() else ", or use --overwrite")
        )
    states = [open_checkpoint(path) for path in paths]
    for path, state in zip(paths, states, strict=True):
        check_same_model(states[-1], state, f"{path} and {paths[-1]}")
        _check_kinds(state["model"], path)
    # The weights stay in their files, mapped into memory; only the mean is held.
    result = {**states[-1], "model": mean_of([state["model"] for state in states])}
    result, notes = without_training_state(result)
    _save(result, output)
    return notes


def check_same_model(expected: Mapping[str, Any], state: Mapping[str, Any], names: str) -> None:
    """Compare names, shapes and dtypes of the weights, the architecture and the attention's settings.

    Raises:
        LSGError: they differ, with the first differences.
    """
    mine, theirs = expected["model"], state["model"]
    found = [f"{name} is in only one of them" for name in sorted({*mine} ^ {*theirs})]
    for name in mine:
        pair = [_kind_of(weights[name]) for weights in (theirs, mine) if name in weights]
        if len(pair) == 2 and pair[0] != pair[1]:
            found.append(f"{name} is {pair[0]} and {pair[1]}")
    if not found:
        settings = [
            {k: v for k, v in vars(model_arguments(s)).items() if k == "arch" or k.startswith("lsg_")}
            for s in (state, expected)
        ]
        names_of_settings = sorted({*settings[0], *settings[1]} - {"lsg_tokenizer"})
        pairs = [(name, settings[0].get(name), settings[1].get(name)) for name in names_of_settings]
        found = [f"{name} is {one} and {other}" for name, one, other in pairs if one != other]
    if found:
        more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
        raise LSGError(
            f"{names} are not of one model ({'; '.join(found[:NAMES_SHOWN])}{more}): take checkpoints of one training"
        )


def _check_kinds(weights: Mapping[str, Tensor], path: Path) -> None:
    """See that a mean can be made of all of them; counts and marks stay what they are."""
    for name, tensor in weights.items():
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
            check_kind(f"{name} of {path}", tensor)


def _kind_of(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def mean_of(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means of the tensors, summed in float64 and in the dtype that they had; tied ones stay tied.

    Integers and booleans, which count or mark, are those of the last.

    Raises:
        LSGError: a mean is not finite.
    """
    means: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], Tensor] = {}
    for name in weights[-1]:
        held = [tensors[name] for tensors in weights]
        # Two names of one tensor in every file, as for tied embeddings, are one tensor in the mean.
        key = tuple((t.untyped_storage().data_ptr(), t.storage_offset(), t.shape, t.stride()) for t in held)
        if key not in known:
            known[key] = _mean(held, name)
        means[name] = known[key]
    return means


def _mean(tensors: Sequence[Tensor], name: str) -> Tensor:
    if not tensors[-1].is_floating_point():
        return tensors[-1].clone()
    total = torch.zeros(tensors[-1].shape, dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    if not total.isfinite().all():
        raise LSGError(f"the mean of {name} is not finite: one of the checkpoints holds NaN or infinity, leave it out")
    return (total / len(tensors)).to(tensors[-1].dtype)


def without_training_state(state: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The state without the optimizer's and without moving averages of the weights, and a line for each left out."""
    notes = []
    extra = dict(state.get("extra_state") or {})
    if any(part in extra for part in EMA_PARTS):
        extra = {name: value for name, value in extra.items() if name not in EMA_PARTS}
        notes.append("the moving average of the weights (--store-ema) is left out: what is averaged are the weights")
    if state.get("last_optimizer_state") is not None:
        notes.append("optimizer states are left out: train on with --finetune-from-model")
    return {**state, "extra_state": extra, "last_optimizer_state": None}, notes


def _save(state: dict[str, Any], output: Path) -> None:
    with written_whole(output), staged_file(output) as staged:
        torch.save(as_plain(state), staged)
