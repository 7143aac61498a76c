"""Flags with impossible values: which one it is, and what is wrong with it, before anything is loaded."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import re
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from fairseq import options
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass import utils as dataclass_utils
from hydra.errors import HydraException

from lsg_fairseq.compat.literals import evaluate_literal
from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import MANY, NUMBERS, Bounds, check_number

# Integers that are passed to C fit 64 bits.
ANY = Bounds(int, -(2**63), 2**63 - 1)
# Outside of these, fairseq's numbers end in a traceback of Python, torch or numpy, a signal, or fill the memory.
SEARCH = ("beam", "lenpen", "unkpen", "temperature", "min_len", "max_len_a", "max_len_b", "no_repeat_ngram_size")
SEARCH += ("sampling_topk", "sampling_topp", "diverse_beam_groups", "diverse_beam_strength", "diversity_rate")
BOUNDS: dict[str, Bounds] = {
    **{name: NUMBERS[name] for name in (*SEARCH, "batch_size", "max_tokens", "update_freq")},
    **dict.fromkeys(("batch_size_valid", "max_tokens_valid"), NUMBERS["batch_size"]),
    **dict.fromkeys(("log_interval", "save_interval", "validate_interval"), Bounds(int, 1, MANY)),
    **dict.fromkeys(
        ("save_interval_updates", "validate_interval_updates", "prefix_size", "max_valid_steps"), Bounds(int, 0, MANY)
    ),
    **dict.fromkeys(("num_workers", "num_workers_valid"), Bounds(int, 0, 1024)),
    # The order of the data adds the epoch to it, and numpy takes 32 bits.
    "seed": Bounds(int, 0, MANY),
    "required_batch_size_multiple": Bounds(int, 1, 2**16),
    "required_seq_len_multiple": Bounds(int, 1, 2**13),
    "num_batch_buckets": Bounds(int, 0, 2**16),
    "data_buffer_size": Bounds(int, 0, 2**16),
    "buffer_size": Bounds(int, 0, 2**20),
    "nbest": Bounds(int, 1, 1000),
    "distributed_port": Bounds(int, -1, 2**16 - 1),
}
# Lists that need a number; texts that are two rates.
LISTS, BETAS = ("lr", "update_freq"), ("adam_betas",)
# Texts that are a dictionary of settings.
SETTINGS = ("model_overrides",)

# --- a NaN, or a number out of bounds, ends wherever it is used first, in a traceback or worse.


@patches(options, "parse_args_and_arch")
def check_numbers(upstream: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    parsed = upstream(*args, **kwargs)
    check_flags(parsed[0] if isinstance(parsed, tuple) else parsed)  # (args, rest) with parse_known
    return parsed


def check_flags(flags: Namespace) -> None:
    """Check all numbers among parsed flags.

    Raises:
        LSGError: one is NaN, beyond 64 bits or out of its own bounds, or a list has none.
    """
    for name, value in vars(flags).items():
        if name in LISTS and value == []:
            raise LSGError(f"{flag_of(name)} names no number: give one, or leave it out")
        if name in BETAS:
            _check_betas(name, value)
        if name in SETTINGS:
            _check_settings(name, value)
        for number in value if isinstance(value, list | tuple) else [_as_number(name, value)]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check_number(name, number)


def _as_number(name: str, value: Any) -> Any:
    """fairseq leaves the text of a flag whose default is another flag's value."""
    return int(value) if name in BOUNDS and isinstance(value, str) and re.fullmatch(r"-?\d{1,30}", value) else value


def _check_number(name: str, value: float) -> None:
    if name in BOUNDS:
        check_number(name, value, BOUNDS[name], flag_of(name))
    elif isinstance(value, int):
        check_number(name, value, ANY, flag_of(name))
    elif math.isnan(value):
        raise LSGError(f"{flag_of(name)} must be a number, not nan: correct it")


def _read(value: Any) -> Any:
    """What the text of a literal stands for, None if it is none; other values as they are."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(LSGError):
        return evaluate_literal(value)
    return None


def _check_betas(name: str, value: Any) -> None:
    betas = _read(value)
    rates = betas if isinstance(betas, list | tuple) else ()
    if len(rates) != 2 or not all(isinstance(rate, int | float) and 0 <= rate < 1 for rate in rates):
        raise LSGError(
            f"{flag_of(name)} must be two numbers from 0 to below 1, such as '(0.9, 0.98)', not {value!r:.80}"
        )


def _check_settings(name: str, value: Any) -> None:
    settings = _read(value)
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise LSGError(
            f"{flag_of(name)} must be a Python dictionary of settings, such as \"{{'lsg_block_size': 64}}\", not "
            f"{value!r:.80}"
        )


# --- a list that Python cannot read as numbers, or as integers, is not a usage error to argparse.


@patches(dataclass_utils, "eval_str_list")
def name_lists(upstream: Callable[..., Any], text: Any, x_type: type = float) -> Any:
    try:
        return upstream(text, x_type)
    except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no list of numbers, such as 4 or 4,8") from error


# --- a value that is not a literal, or of another type than its setting, ends in a traceback of ast, hydra or omegaconf
# --- and a line with all settings there are.


@patches(dataclass_utils, "_override_attr")
def name_literals(upstream: Callable[..., list[str]], group: str, data_class: Any, args: Namespace) -> list[str]:
    try:
        return upstream(group, data_class, args)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _of_literal(upstream, data_class, args, error) from error


@patches(dataclass_utils, "compose")
def name_overrides(upstream: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # A filter that is there already is not added again.
    dataclass_utils.logger.addFilter(_is_about_one_setting)
    try:
        return upstream(*args, **kwargs)
    except HydraException as error:
        raise _of_override(error) from error


def _is_about_one_setting(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Error when composing")


def _of_literal(
    override_attr: Callable[..., list[str]], data_class: Any, args: Namespace, error: Exception
) -> LSGError:
    """The error that names the flag whose text fairseq does not take for a value; no flag where none can be told."""
    given = {name: getattr(args, name, None) for name in data_class.__dataclass_fields__}
    texts = {name: value for name, value in given.items() if isinstance(value, str) and not value.startswith("${")}
    for name, value in texts.items():
        try:
            override_attr("x", _only(data_class, name), args)
        except Exception:
            return LSGError(f"{flag_of(name)} cannot be {value!r:.80}, which is no value of its kind: correct it")
    return LSGError(f"a flag has no value of its kind ({' '.join(str(error).split()):.200}): correct it")


def _only(data_class: Any, name: str) -> Any:
    """What _override_attr looks at, with one field."""
    return type("One", (FairseqDataclass,), {"__dataclass_fields__": {name: data_class.__dataclass_fields__[name]}})


def _of_override(error: HydraException) -> LSGError:
    stated = getattr(error, "override", None) or "".join(re.findall(r"override ([^\s=]+=\S*)", str(error))[:1])
    name, _, value = str(stated).partition("=")
    reason = " ".join(str(error.__cause__ or error).split("full_key")[0].split())
    if not name:
        return LSGError(f"the flags make no configuration ({reason:.200}): correct them")
    return LSGError(f"{flag_of(name.rpartition('.')[2])} cannot be {value!r:.80} ({reason:.200}): correct it")


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")
