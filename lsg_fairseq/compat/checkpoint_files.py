"""Checkpoint files hold plain values, which torch.load(weights_only=True) reads, and are replaced atomically.

fairseq keeps a command line as argparse.Namespace, which torch takes for code. Files hold dicts in its place, and
reading makes a Namespace of them again where fairseq, its upgrades and --model-overrides look for one.
"""

from __future__ import annotations

import functools
import os
import shutil
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

# --- trainings write their arguments as argparse.Namespace, which torch's weights_only loading refuses.


def checkpoints_hold_namespaces() -> bool:
    return not hasattr(checkpoint_utils.torch_persistent_save, "lsg_fairseq_fix")


def write_plain_checkpoints() -> None:
    upstream = checkpoint_utils.torch_persistent_save

    @functools.wraps(upstream)
    def torch_persistent_save(obj: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(filename, str):
            remove_link(f"{filename}.tmp")
        upstream(as_plain(obj), filename, *args, **kwargs)

    torch_persistent_save.lsg_fairseq_fix = True
    checkpoint_utils.torch_persistent_save = torch_persistent_save


def remove_link(path: str) -> None:
    """Take a link out of the way of a file that is to be written: in a folder from somebody else it leads anywhere."""
    if os.path.islink(path):
        os.unlink(path)


def as_plain(value: Any) -> Any:
    """A copy in which each Namespace is a dict; tensors and other values are the same objects."""
    if isinstance(value, Namespace):
        return {name: as_plain(held) for name, held in vars(value).items()}
    if type(value) is dict:
        return {name: as_plain(held) for name, held in value.items()}
    return [as_plain(held) for held in value] if type(value) is list else value


def with_namespaces(state: Any) -> Any:
    """The content of a checkpoint file with its arguments as fairseq expects them; files of both kinds are taken.

    `args` was always a Namespace. A group of `cfg` was one if it holds `arch`: fairseq puts the whole command line into
    groups without a dataclass of their own, and neither dataclasses nor hydra have a setting of that name.
    """
    if not isinstance(state, dict):
        return state
    if isinstance(state.get("args"), Mapping):
        state["args"] = _as_namespace(state["args"])
    groups = state.get("cfg")
    if isinstance(groups, dict):
        for name, group in groups.items():
            if isinstance(group, Mapping) and "arch" in group:
                groups[name] = _as_namespace(group)
    return state


def _as_namespace(settings: Mapping[str, Any]) -> Namespace:
    # Not Namespace(**settings), which fails on a name that is not a string.
    namespace = Namespace()
    vars(namespace).update(settings)
    return namespace


# --- checkpoint_last.pt is copied over the old one in place: a kill meanwhile leaves neither.


class AtomicCopies(PathManager):
    """Stands for PathManager in fairseq.checkpoint_utils: the same, but a local copy gets its name once it is whole."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if not PathManager.supports_rename(dst_path) or not os.path.isfile(src_path):
            return PathManager.copy(src_path, dst_path, overwrite=overwrite)
        # The name that fairseq gives a checkpoint while it writes it; what a kill leaves is written over.
        staged = f"{dst_path}.tmp"
        remove_link(staged)
        shutil.copyfile(src_path, staged)
        os.replace(staged, dst_path)
        return dst_path


def copies_are_made_in_place() -> bool:
    return not issubclass(checkpoint_utils.PathManager, AtomicCopies)


def copy_aside_and_rename() -> None:
    checkpoint_utils.PathManager = AtomicCopies
