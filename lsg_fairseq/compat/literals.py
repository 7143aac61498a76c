"""Literals: text that a checkpoint brings along is run neither as Python nor by a shell."""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.data import fasta_dataset
from fairseq.data.fasta_dataset import FastaDataset

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

# Far more layers, heads or languages than any model has.
MAX_ITEMS = 10_000
MAX_CHARACTERS = 100_000
SEQUENCES = (list, tuple)
NUMBERS = (int, float, complex)
# What fairseq's own defaults are made of, such as fconv's "[(512, 3)] * 20".
OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate_literal(text: str) -> Any:
    """The value of a Python literal; sums and products of numbers, and of lists and tuples, count as literals.

    Takes the place of the builtin `eval`, so anything but a string raises TypeError, as fairseq expects.

    Raises:
        TypeError: `text` is not a string.
        LSGError: it holds anything else than literals, or makes more than MAX_ITEMS items.
    """
    if not isinstance(text, str):
        raise TypeError(f"a literal must be a string, not {type(text).__name__}")
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError("it is too long")
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, TypeError, SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        raise LSGError(
            f"a setting of the model, task, criterion or optimizer is {text!r:.200}, which is not a literal such as "
            "True, '(0.9, 0.98)' or '[(512, 3)] * 20', and code is not run: correct it where it was set, or do not use "
            "the checkpoint it came with"
        ) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        return (list if isinstance(node, ast.List) else tuple)(map(_value, node.elts))
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return _combined(OPERATORS[type(node.op)], _value(node.left), _value(node.right))
    return ast.literal_eval(node)


def _combined(combine: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    if isinstance(left, NUMBERS) and isinstance(right, NUMBERS):
        return combine(left, right)
    if combine is operator.mul and isinstance(left, int):
        left, right = right, left
    repeats = combine is operator.mul and isinstance(left, SEQUENCES) and isinstance(right, int)
    joins = combine is operator.add and isinstance(left, SEQUENCES) and type(left) is type(right)
    if not repeats and not joins:
        raise ValueError("only numbers are computed with, and lists or tuples joined or repeated")
    items = _count(left) * right if repeats else _count(left) + _count(right)
    if items > MAX_ITEMS:
        raise ValueError(f"it makes {items} items")
    return combine(left, right)


def _count(value: Any) -> int:
    """How many items there are, those of inner lists included; an empty list counts, too."""
    return 1 + sum(map(_count, value)) if isinstance(value, SEQUENCES) else 1


# --- eval: fairseq runs what a checkpoint's cfg.model, cfg.criterion and so on say as code.


def settings_are_run() -> bool:
    return "eval" not in vars(utils)


def read_settings_as_literals() -> None:
    """A module's own `eval` comes before the builtin, and functions that are known under other names find it too."""
    for module in _fairseq_modules():
        vars(module).setdefault("eval", evaluate_literal)


def _fairseq_modules() -> list[ModuleType]:
    """All that is loaded of fairseq: with `import fairseq`, that is all whose functions a checkpoint can reach."""
    package = utils.__name__.partition(".")[0]
    outside = (f"{package}.examples.",)
    names = [name for name in sys.modules if name.startswith(f"{package}.") and not name.startswith(outside)]
    return [module for name in names if isinstance(module := sys.modules[name], ModuleType)]


# --- A language of cfg.task, which a checkpoint brings along, is part of the name: `;` and all.


@patches(FastaDataset, "_build_index")
def build_fasta_index(_upstream: Callable[..., Any], _dataset: Any, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Where each entry's header starts in bytes, and how many letters its sequence has; int64 each."""
    offsets, sizes, place = [], [], 0
    with Path(fasta_dataset.fasta_file_path(path)).open("rb") as file:
        for line in file:
            if line.startswith(b">"):
                offsets.append(place)
                sizes.append(0)
            elif sizes:
                sizes[-1] += len(line.strip())
            place += len(line)
    return np.array(offsets, np.int64), np.array(sizes, np.int64)
