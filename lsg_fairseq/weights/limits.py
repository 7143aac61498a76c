"""Size limits, checked before memory is allocated for what a file or a flag asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lsg_fairseq.modules.lsg_config import LSGError

# Far above every published model.
MAX_POSITIONS, MAX_LAYERS, MAX_WIDTH, MAX_VOCABULARY = 2**18, 1024, 2**17, 2**24
NAMES_SHOWN = 5
# fairseq's names of model arguments that are sizes: smallest and largest value.
SIDES = ("encoder", "decoder")
SIZES: dict[str, tuple[int, int]] = {
    **{f"{side}_layers": (0, MAX_LAYERS) for side in SIDES},
    **{f"{side}_{name}": (1, MAX_WIDTH) for side in SIDES for name in ("embed_dim", "ffn_embed_dim")},
    **{f"{side}_attention_heads": (1, MAX_WIDTH) for side in SIDES},
    **{f"decoder_{name}_dim": (1, MAX_WIDTH) for name in ("input", "output")},
    **dict.fromkeys(("max_source_positions", "max_target_positions", "max_positions"), (1, MAX_POSITIONS)),
}

RATES = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "pooler_dropout",
    "encoder_layerdrop",
    "decoder_layerdrop",
)


def check_size(name: str, value: Any, least: int, most: int) -> None:
    """Check one size.

    Raises:
        LSGError: it is not an integer from `least` to `most`.
    """
    if type(value) is not int or not least <= value <= most:
        raise LSGError(f"{name} must be an integer from {least} to {most:,}, not {value!r:.80}: correct it")


def check_sizes(args: Mapping[str, Any]) -> None:
    """Check the sizes and rates among fairseq's model arguments; missing ones pass.

    Raises:
        LSGError: one is not a number, or out of range.
    """
    for name, limits in SIZES.items():
        if args.get(name) is not None:
            check_size(name, args[name], *limits)
    for name in RATES:
        value = args.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            raise LSGError(f"{name} must be a number from 0 to 1, not {value!r:.80}: correct it")


def first_names(names: Iterable[str]) -> str:
    """The first names, and how many more there are: a model has thousands of tensors."""
    names = [str(name) for name in names]
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
