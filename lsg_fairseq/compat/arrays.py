"""Arrays: names that fairseq's data sets take from numpy and numpy 2 no longer has."""

from __future__ import annotations

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fairseq.data import language_pair_dataset, token_block_dataset

# --- np.compat.long: masked_lm with --sample-break-mode eos, and buckets of lengths, end with an AttributeError.

MODULES = (token_block_dataset, language_pair_dataset)


class NumpyWithCompat(ModuleType):
    """Stands for the module `numpy` in fairseq's data sets: the same, and `compat.long` as it last was."""

    compat = SimpleNamespace(long=int)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def numpy_lacks_compat() -> bool:
    return any("np.compat." in inspect.getsource(module) and not hasattr(module.np, "compat") for module in MODULES)


def give_numpy_compat() -> None:
    for module in MODULES:
        module.np = NumpyWithCompat("numpy")
