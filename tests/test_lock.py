"""What `make` installs unhashed: torch, and nothing that torch requires on a CPU."""

from __future__ import annotations

import re
from importlib.metadata import requires

from conftest import REPOSITORY

LOCK = (REPOSITORY / "requirements" / "lock.txt").read_text()


def required_by(package: str) -> set[str]:
    """Names, with their requirements; without extras, other systems, and a CUDA build's libraries."""
    names = {re.split(r"[^\w.-]", line)[0] for line in requires(package) or () if ";" not in line}
    return names.union(*(required_by(name) for name in names))


def test_all_that_torch_requires_is_locked() -> None:
    locked = set(re.findall(r"^([\w.-]+)==", LOCK, re.M))
    needed = {name.lower().replace("_", "-") for name in required_by("torch")}
    assert {"sympy", "mpmath", "markupsafe"} <= needed
    assert needed <= locked


def test_lock_is_installed_before_torch() -> None:
    recipe = (REPOSITORY / "Makefile").read_text()
    first, second = recipe.index("--no-deps --require-hashes -r"), recipe.index("--no-deps torch==")
    assert first < second
    assert "torch" not in re.findall(r"^([\w.-]+)==", LOCK, re.M)
