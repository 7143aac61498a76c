"""The parts of a checkpoint: each is what fairseq takes it for, or the file is named in one sentence."""

from __future__ import annotations

import os
import stat
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from fairseq import checkpoint_utils
from torch import Tensor

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import MANY

STATES = ("task_state", "extra_state")
GROUPS = ("args", "cfg", *STATES)


def check_parts(path: object, state: Any) -> None:
    """Check what every reader of a checkpoint relies on.

    Raises:
        LSGError: it is no fairseq checkpoint.
    """
    if not isinstance(state, dict) or not isinstance(state.get("model"), Mapping):
        raise LSGError(f"{path} is not a fairseq checkpoint, as it has no 'model': give a model.pt or checkpoint_*.pt")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state["model"].items()):
        raise LSGError(f"{path} is not a fairseq checkpoint: 'model' must hold named tensors and nothing else")
    groups = {name: state.get(name) for name in GROUPS}
    cfg = groups["cfg"]
    if isinstance(cfg, Mapping):
        groups |= {f"cfg.{name}": cfg.get(name) for name in ("model", "task", "checkpoint")}
    for name, group in groups.items():
        if group is not None:
            _check_group(path, name, group)
    _check_history(path, state)


def _check_group(path: object, name: str, group: Any) -> None:
    names = vars(group) if isinstance(group, Namespace) and name not in STATES else group
    if not isinstance(names, Mapping) or not all(isinstance(key, str) for key in names):
        raise LSGError(f"{path} is not a fairseq checkpoint: its {name} is {group!r:.80}, not named arguments")
    for argument in ("_name", "arch", "task"):
        # Where a command line is stored as a whole, `task` is a name; in `cfg` it is a group.
        value = None if name == "cfg" else names.get(argument)
        if not isinstance(value, str | None):
            raise LSGError(f"{path} states {argument} as {value!r:.80}, not as a name: use it as it was written")


def _check_history(path: object, state: Mapping[str, Any]) -> None:
    history = state.get("optimizer_history")
    if history is not None and not (isinstance(history, list) and all(isinstance(each, dict) for each in history)):
        raise LSGError(f"{path} is not a fairseq checkpoint: its optimizer_history is {history!r:.80}, not a list")
    place = (state.get("extra_state") or {}).get("train_iterator")
    if place is None:
        return
    counts = [place.get(name, 1) for name in ("epoch", "iterations_in_epoch")] if isinstance(place, dict) else [None]
    if not all(isinstance(count, int) and 0 <= count <= MANY for count in counts):
        raise LSGError(f"{path} states its place in the training as {place!r:.80}: use it as it was written")


def has_an_end(file: Any) -> bool:
    """Whether reading it comes to an end, unlike /dev/zero, which would fill the memory, or a pipe nobody writes to."""
    try:
        mode = os.stat(file if isinstance(file, str | os.PathLike) else file.fileno()).st_mode
    except (OSError, ValueError):  # a file in memory, or a missing one, which its reader reports
        return True
    return not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


# --- a checkpoint whose parts are missing, or of other kinds, ends in the traceback of whatever reads them first.


@patches(checkpoint_utils, "load_checkpoint_to_cpu")
def say_which_file_lacks_parts(upstream: Callable[..., Any], path: str, *args: Any, **kwargs: Any) -> Any:
    if not has_an_end(path):
        raise LSGError(f"{path} is a device or a pipe, not a checkpoint file: name a file")
    try:
        return upstream(path, *args, **kwargs)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, LSGError):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise LSGError(
            f"{path} lacks a part that fairseq reads, or has it of another kind ({reason:.200}): use it as it was "
            "written"
        ) from error
