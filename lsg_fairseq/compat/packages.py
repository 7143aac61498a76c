"""Packages that fairseq needs in another version: numpy 1's names, and a torchaudio that loads."""

from __future__ import annotations

import inspect
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from fairseq.data import data_utils, language_pair_dataset, token_block_dataset
from fairseq.modules import dynamic_crf_layer

from lsg_fairseq.compat.patch import StandIn

# --- np.compat.long (masked_lm with --sample-break-mode eos), np.percentile(interpolation=...) (--num-batch-buckets),
# --- np.int and Generator.randint (spans that do not overlap) and np.float end with an AttributeError or a TypeError.

MODULES = (token_block_dataset, language_pair_dataset, data_utils, dynamic_crf_layer)
GONE = re.compile(r"\bnp\.(compat|int|float)\b|\binterpolation=")


class GeneratorWithRandint(np.random.Generator):
    """numpy's random generator, with a method of RandomState that fairseq calls on it."""

    randint = np.random.Generator.integers


class RandomAsItWas(StandIn):
    """numpy.random, whose generators are GeneratorWithRandint."""

    @staticmethod
    def default_rng(seed: Any = None) -> np.random.Generator:
        return GeneratorWithRandint(np.random.default_rng(seed).bit_generator)


class NumpyAsItWas(StandIn):
    """numpy with the names that version 2 removed."""

    compat = SimpleNamespace(long=int)
    int = int
    float = float
    random = RandomAsItWas(np.random)

    @staticmethod
    def percentile(values: Any, percents: Any, interpolation: str = "linear") -> Any:
        return np.percentile(values, percents, method=interpolation)


def numpy_lacks_names() -> bool:
    return any(GONE.search(inspect.getsource(module)) and module.np is np for module in MODULES)


def give_numpy_names() -> None:
    for module in MODULES:
        module.np = NumpyAsItWas(np)


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
