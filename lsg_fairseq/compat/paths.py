"""Paths: a checkpoint that is not named, and a folder that cannot be written."""

from __future__ import annotations

import functools
from typing import Any

from fairseq import checkpoint_utils, utils

from lsg_fairseq.modules.lsg_config import LSGError

# --- fairseq-interactive and fairseq-validate without --path end in an AttributeError or a TypeError.


def missing_path_is_a_page() -> bool:
    return not hasattr(utils.split_paths, "lsg_fairseq_fix")


def ask_for_path() -> None:
    split_paths, load = utils.split_paths, checkpoint_utils.load_model_ensemble_and_task

    @functools.wraps(split_paths)
    def checked_split(paths: str | None, *args: Any, **kwargs: Any) -> list[str]:
        return split_paths(_given(paths), *args, **kwargs)

    @functools.wraps(load)
    def checked_load(filenames: list[str | None], *args: Any, **kwargs: Any) -> Any:
        return load([_given(name) for name in filenames], *args, **kwargs)

    checked_split.lsg_fairseq_fix = True
    utils.split_paths, checkpoint_utils.load_model_ensemble_and_task = checked_split, checked_load


# --- a --save-dir that cannot be written is named, if at all, by a file that fairseq tried to make in it.


def save_dir_is_not_named() -> bool:
    return not hasattr(checkpoint_utils.verify_checkpoint_directory, "lsg_fairseq_fix")


def name_save_dir() -> None:
    upstream = checkpoint_utils.verify_checkpoint_directory

    @functools.wraps(upstream)
    def verify_checkpoint_directory(save_dir: str) -> None:
        try:
            upstream(save_dir)
        except OSError as error:
            raise LSGError(
                f"--save-dir {save_dir} cannot be written ({error.strerror}): name a folder that can"
            ) from error

    verify_checkpoint_directory.lsg_fairseq_fix = True
    checkpoint_utils.verify_checkpoint_directory = verify_checkpoint_directory


def _given(path: str | None) -> str:
    if path is None:
        raise LSGError("no checkpoint is named: give --path FILE, such as --path checkpoints/checkpoint_best.pt")
    return path
