"""Tensor names as they were before a model was wrapped: DataParallel and torch.compile put a name of theirs in."""

from __future__ import annotations

from collections.abc import Iterable

from lsg_fairseq.modules.lsg_config import LSGError

# nn.DataParallel and DistributedDataParallel; torch.compile.
WRAPPERS = ("module", "_orig_mod")


def unwrapped_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> the same without the wrappers' names, wherever in the model they are; no part of a model is called so.

    Raises:
        LSGError: two tensors would have one name.
    """
    unwrapped = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in names}
    first: dict[str, str] = {}
    for name, bare in unwrapped.items():
        if first.setdefault(bare, name) != name:
            raise LSGError(
                f"the tensors {first[bare]} and {name} are one and the same without {' and '.join(WRAPPERS)}"
                ": save the model once, unwrapped"
            )
    return unwrapped
