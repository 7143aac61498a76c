"""Settings and weights that make no model: the errors of fairseq and torch in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lsg_fairseq.compat.commands import is_raised_in_fairseq
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.state_dicts import check_kind

LONGEST_REASON = 300
# How torch's load_state_dict begins its list of keys that do not fit.
MISFIT = "Error(s) in loading state_dict"
# Settings of fairseq's transformers that an LSG model cannot have, and what to do instead.
WITHOUT_PLACE = {
    "encoder_xformers_att_config": "it would replace LSG attention; use --lsg-attention",
    "base_layers": "leave it out: generation and conversion know no mixtures of experts",
    "quant_noise_scalar": "leave it out: fairseq replaces layers that it does not know here; --quant-noise-pq works",
}


def refuse_what_has_no_place(settings: Mapping[str, Any]) -> None:
    """Refuse settings that an LSG model cannot have.

    Raises:
        LSGError: one of WITHOUT_PLACE is set.
    """
    for name, advice in WITHOUT_PLACE.items():
        if settings.get(name):
            raise LSGError(f"--{name.replace('_', '-')} {settings[name]!r:.80} has no place here: {advice}")


@contextmanager
def building() -> Iterator[None]:
    """Say that no model can be built with these settings; errors from other code than fairseq's pass.

    Raises:
        LSGError: fairseq could not build it.
    """
    try:
        yield
    except (LSGError, OSError, MemoryError):
        raise
    except Exception as error:
        if not is_raised_in_fairseq(error):
            raise
        raise LSGError(
            f"fairseq can build no model of these settings ({_reason(error)}): correct the flags, or, if a checkpoint "
            "states them, use it as it was written"
        ) from error


@contextmanager
def loading() -> Iterator[None]:
    """Say that weights do not fit a model.

    Raises:
        LSGError: fairseq or torch could not load them.
    """
    try:
        yield
    except (LSGError, OSError, MemoryError):
        raise
    except Exception as error:
        if not (is_raised_in_fairseq(error) or str(error).startswith(MISFIT)):
            raise
        raise LSGError(
            f"the weights do not fit the model ({_reason(error)}): use weights and settings of one checkpoint"
        ) from error


def check_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check that weights for the floating-point tensors of a model are dense and floating-point, too.

    Raises:
        LSGError: a weight is something else.
    """
    for name, own in model.state_dict(keep_vars=True).items():
        if own.is_floating_point() and name in weights:
            check_kind(name, weights[name])


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    named = said if type(error) in (Exception, RuntimeError) else f"{type(error).__name__}: {said}"
    return named if len(named) <= LONGEST_REASON else named[: LONGEST_REASON - 4] + " ..."
