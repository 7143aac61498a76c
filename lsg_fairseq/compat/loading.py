"""Loading: checkpoints since torch 2.6, and torchaudio where its build does not fit torch's."""

from __future__ import annotations

import argparse
import inspect
import pickle
import re
import sys
import zipfile
from types import ModuleType
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils

from lsg_fairseq.compat.checkpoint_files import with_namespaces
from lsg_fairseq.compat.checkpoint_parts import check_parts, has_an_end
from lsg_fairseq.modules.lsg_config import LSGError

# --- torchaudio: fairseq requires it, PyPI's build does not load beside a CPU torch, and transformers then fails too.


def torchaudio_fails_to_load() -> bool:
    try:
        import torchaudio  # noqa: F401
    except OSError:
        return True
    except ImportError:
        return False
    return False


def hide_torchaudio() -> None:
    # None makes `import torchaudio` an ImportError, which fairseq and transformers both expect and handle.
    sys.modules["torchaudio"] = None  # type: ignore[assignment]


# --- torch.load: fairseq does not say weights_only, so its own checkpoints are refused since torch 2.6.


class SafeLoadingTorch(ModuleType):
    """Stands for the module `torch` in fairseq.checkpoint_utils: the same, but `load` runs no code from a file."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(file: Any, map_location: Any = None) -> Any:
        state = load_checkpoint_file(file, map_location)
        check_parts(getattr(file, "name", file), state)
        return state


class DamagedCheckpointError(LSGError):
    """A file that is not a checkpoint, or is truncated."""


def load_checkpoint_file(file: Any, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """Load tensors, plain Python values and argparse.Namespace from a checkpoint; anything else is refused.

    With `mmap`, tensors are mapped into memory where the file's format allows.

    A command line stored as a dict is made a Namespace, as fairseq expects.

    Raises:
        DamagedCheckpointError: the file is damaged, or not a checkpoint.
        LSGError: it holds a pickle that asks for other classes or functions.
    """
    name = getattr(file, "name", file)
    try:
        if not has_an_end(file):
            raise DamagedCheckpointError(f"{name} is a device or a pipe, no checkpoint file: name a file")
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
    checkpoint_utils.torch = SafeLoadingTorch("torch")


# --- torch.load again: workers receive what rank 0 read as a pickle, which is refused since torch 2.6.


class PeerLoadingTorch(ModuleType):
    """Stands for `torch` in fairseq.distributed.utils, which unpickles only what another rank of the same run sent."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(file: Any, map_location: Any = None) -> Any:
        return torch.load(file, map_location=map_location, weights_only=False)


def broadcast_objects_are_refused() -> bool:
    if isinstance(distributed_utils.torch, PeerLoadingTorch):
        return False
    return "weights_only" not in inspect.getsource(distributed_utils._broadcast_object_slow)


def trust_broadcast_objects() -> None:
    distributed_utils.torch = PeerLoadingTorch("torch")
