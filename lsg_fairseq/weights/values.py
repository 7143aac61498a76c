"""What a weight may be: a dense tensor of finite floating-point numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import first_names

# Minus infinity there says that a token is never generated.
BIAS_OF_LOGITS = "final_logits_bias"


def check_kind(name: str, tensor: object) -> None:
    """Check that a weight is a dense tensor of real floating-point numbers.

    Raises:
        LSGError: it is integer, bool, complex, sparse, quantised, without numbers, or not a tensor.
    """
    if not isinstance(tensor, Tensor):
        raise LSGError(f"{name} is not a tensor but a {type(tensor).__name__}: the checkpoint is damaged, or no model")
    if tensor.is_meta:
        raise LSGError(
            f"{name} has a shape and no numbers (a tensor on the meta device): give a checkpoint with weights"
        )
    if tensor.layout is torch.strided and tensor.is_floating_point() and not tensor.is_quantized:
        return
    kind = str(tensor.layout if tensor.layout is not torch.strided else tensor.dtype).removeprefix("torch.")
    raise LSGError(
        f"{name} holds {kind} numbers, and weights must be dense floating-point ones: give the checkpoint as it was "
        "before it was quantised or pruned"
    )


def check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Check that all weights are finite floating-point numbers.

    Raises:
        LSGError: there is a NaN or an infinity, or a weight of another kind.
    """
    for name, tensor in state.items():
        check_kind(name, tensor)
    bad = [name for name, tensor in state.items() if not _is_usable(name, tensor)]
    if bad:
        raise LSGError(
            f"{source} has NaN or infinite values in {first_names(bad)}: its training diverged or the file was "
            "damaged before it came here; use another checkpoint"
        )


def _is_usable(name: str, tensor: Tensor) -> bool:
    if BIAS_OF_LOGITS in name:
        return not (tensor.isnan() | tensor.isposinf()).any()
    return bool(tensor.isfinite().all())
