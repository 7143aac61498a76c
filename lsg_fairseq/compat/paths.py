"""Paths: a checkpoint that is not named, and a folder that cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairseq import checkpoint_utils, utils

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

# --- fairseq-interactive and fairseq-validate without --path end in an AttributeError or a TypeError.


@patches(utils, "split_paths")
def ask_for_split_path(upstream: Callable[..., list[str]], paths: str | None, *args: Any, **kwargs: Any) -> list[str]:
    return upstream(_given(paths), *args, **kwargs)


@patches(checkpoint_utils, "load_model_ensemble_and_task")
def ask_for_loaded_path(upstream: Callable[..., Any], filenames: list[str | None], *args: Any, **kwargs: Any) -> Any:
    return upstream([_given(name) for name in filenames], *args, **kwargs)


def _given(path: str | None) -> str:
    if path is None:
        raise LSGError("no checkpoint is named: give --path FILE, such as --path checkpoints/checkpoint_best.pt")
    return path


# --- a --save-dir that cannot be written is named, if at all, by a file that fairseq tried to make in it.


@patches(checkpoint_utils, "verify_checkpoint_directory")
def name_save_dir(upstream: Callable[..., None], save_dir: str) -> None:
    try:
        upstream(save_dir)
    except OSError as error:
        raise LSGError(f"--save-dir {save_dir} cannot be written ({error.strerror}): name a folder that can") from error
