"""Checkpoint files are loaded without running code from them, hold plain values, and are replaced atomically.

fairseq keeps a command line as argparse.Namespace, which torch takes for code. Files hold dicts in its place, and
reading makes a Namespace of them again where fairseq, its upgrades and --model-overrides look for one.
"""

from __future__ import annotations

import argparse
import inspect
import os
import pickle
import re
import shutil
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager

from lsg_fairseq.compat.checkpoint_parts import check_parts, has_an_end
from lsg_fairseq.compat.patch import StandIn, patches
from lsg_fairseq.modules.lsg_config import LSGError

# --- trainings write their arguments as argparse.Namespace, which torch's weights_only loading refuses.


@patches(checkpoint_utils, "torch_persistent_save")
def write_plain_checkpoints(upstream: Callable[..., None], obj: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(filename, str):
        remove_link(f"{filename}.tmp")
    upstream(as_plain(obj), filename, *args, **kwargs)


def remove_link(path: str) -> None:
    """Remove a link that is in the way of a file to be written: in somebody else's folder it may lead anywhere."""
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


# --- torch.load: fairseq does not say weights_only, so its own checkpoints are refused since torch 2.6.


class SafeLoadingTorch(StandIn):
    """torch in fairseq.checkpoint_utils: `load` runs no code from a file."""

    @staticmethod
    def load(file: Any, map_location: Any = None) -> Any:
        state = load_checkpoint_file(file, map_location)
        check_parts(getattr(file, "name", file), state)
        return state


class DamagedCheckpointError(LSGError):
    """A file that is not a checkpoint, or is truncated."""


def load_checkpoint_file(file: Any, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """Load tensors, plain Python values and argparse.Namespace from a checkpoint; anything else is refused.

    Tensors are mapped into memory with `mmap` where the file's format allows. A command line stored as a dict becomes a
    Namespace, as fairseq expects.

    Raises:
        DamagedCheckpointError: the file is damaged, or not a checkpoint.
        LSGError: it holds a pickle that asks for other classes or functions.
    """
    name = getattr(file, "name", file)
    try:
        if not has_an_end(file):
            raise DamagedCheckpointError(f"{name} is a device or a pipe, not a checkpoint file: name a file")
        with torch.serialization.safe_globals([argparse.Namespace]):
            mmap = mmap and zipfile.is_zipfile(file)  # no other format can be mapped
            return with_namespaces(torch.load(file, map_location=map_location, weights_only=True, mmap=mmap or None))
    except pickle.UnpicklingError as error:
        asked_for = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
        if asked_for:
            raise LSGError(
                f"{name} is refused: it is a pickle that may run code (it asks for {asked_for[1]})"
            ) from error
        raise DamagedCheckpointError(f"{name} is not a checkpoint, or is damaged; copy or download it again") from error
    except (LSGError, FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # a file of another kind fails in many ways, IndexError among them
        raise DamagedCheckpointError(f"{name} is damaged or cut short ({error}); copy or download it again") from error


def checkpoint_loading_is_unsafe() -> bool:
    if isinstance(checkpoint_utils.torch, SafeLoadingTorch):
        return False
    return "weights_only=True" not in inspect.getsource(checkpoint_utils.load_checkpoint_to_cpu)


def load_weights_only() -> None:
    checkpoint_utils.torch = SafeLoadingTorch(torch)


# --- torch.load again: workers receive what rank 0 read as a pickle, which is refused since torch 2.6.


class PeerLoadingTorch(StandIn):
    """torch in fairseq.distributed.utils, which unpickles only what another rank of the same run sent."""

    @staticmethod
    def load(file: Any, map_location: Any = None) -> Any:
        return torch.load(file, map_location=map_location, weights_only=False)


def broadcast_objects_are_refused() -> bool:
    if isinstance(distributed_utils.torch, PeerLoadingTorch):
        return False
    return "weights_only" not in inspect.getsource(distributed_utils._broadcast_object_slow)


def trust_broadcast_objects() -> None:
    distributed_utils.torch = PeerLoadingTorch(torch)
