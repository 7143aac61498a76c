"""--eval-rouge-args: fairseq's generation settings as JSON, each name and value checked before training."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

from lsg_fairseq.modules.lsg_config import LSGError

FLAG = "--eval-rouge-args"
# Name -> (kind, smallest value): what a task's build_generator reads. The others of fairseq's generation settings
# (nbest, prefix_size, ...) are read by its commands and would do nothing in validation.
SETTINGS: dict[str, tuple[type, float]] = {
    "beam": (int, 1),
    "max_len_a": (float, 0),
    "max_len_b": (int, 1),
    "min_len": (int, 0),
    "lenpen": (float, -math.inf),
    "unkpen": (float, -math.inf),
    "temperature": (float, 1e-6),
    "no_repeat_ngram_size": (int, 0),
    "unnormalized": (bool, 0),
    "match_source_len": (bool, 0),
    "sampling": (bool, 0),
    "sampling_topk": (int, -1),
    "sampling_topp": (float, -1),
    "diverse_beam_groups": (int, -1),
    "diverse_beam_strength": (float, 0),
    "diversity_rate": (float, -1),
    "print_alignment": (str, 0),
    "forced_first_token": (str, 0),
    "forced_eos": (bool, 0),
}
KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


def parse_rouge_arguments(text: str) -> dict[str, Any]:
    """The generation settings of --eval-rouge-args.

    Raises:
        LSGError: the text is no JSON object, or a name or a value in it is not one that generation takes.
    """
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise LSGError(f"{FLAG} is not JSON ({error}): {text!r}") from error
    if not isinstance(settings, dict):
        raise LSGError(f'{FLAG} must be a JSON object such as {{"beam": 4}}, not {text!r}')
    for name, value in settings.items():
        _check_name(name)
        _check_value(name, value)
    _check_together(settings)
    return settings


def _check_name(name: str) -> None:
    if name in SETTINGS:
        return
    with_underscores = name.strip("-").replace("-", "_")
    if with_underscores in SETTINGS:
        raise LSGError(f"{FLAG}: write {name!r} with underscores: {with_underscores!r}")
    close = difflib.get_close_matches(with_underscores, SETTINGS, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise LSGError(f"{FLAG} has no setting {name!r}; {meant}choose from {', '.join(SETTINGS)}")


def _check_value(name: str, value: object) -> None:
    kind, least = SETTINGS[name]
    types = (int, float) if kind is float else (kind,)
    fits = isinstance(value, types) and (kind is bool or not isinstance(value, bool))
    if fits and kind in (int, float):
        fits = math.isfinite(value) and value >= least
    if fits and name == "print_alignment":
        fits = value in ("hard", "soft")
    if not fits:
        above = f" of at least {least:g}" if kind in (int, float) and math.isfinite(least) else ""
        allowed = '"hard" or "soft"' if name == "print_alignment" else KINDS[kind] + above
        raise LSGError(f"{FLAG}: {name} must be {allowed}, not {json.dumps(value)}")


def _check_together(settings: Mapping[str, Any]) -> None:
    """What each value alone allows and fairseq's search refuses, after an epoch."""
    searches = {
        "sampling": settings.get("sampling", False),
        "diverse_beam_groups": settings.get("diverse_beam_groups", -1) > 0,
        "match_source_len": settings.get("match_source_len", False),
        "diversity_rate": settings.get("diversity_rate", -1) > 0,
    }
    chosen = [name for name, is_chosen in searches.items() if is_chosen]
    if len(chosen) > 1:
        raise LSGError(f"{FLAG}: {' and '.join(chosen)} exclude each other: choose one")
    for name in ("sampling_topk", "sampling_topp"):
        if settings.get(name, -1) >= 0 and not searches["sampling"]:
            raise LSGError(f'{FLAG}: {name} needs "sampling": true')
    beam, groups = settings.get("beam", 5), settings.get("diverse_beam_groups", -1)
    if groups > 0 and beam % groups:
        raise LSGError(f"{FLAG}: diverse_beam_groups ({groups}) must divide beam ({beam})")
    shortest, longest = settings.get("min_len", 1), settings.get("max_len_b", 200)
    if shortest > longest and not settings.get("max_len_a") and not searches["match_source_len"]:
        raise LSGError(f"{FLAG}: min_len ({shortest}) must not be above max_len_b ({longest})")
