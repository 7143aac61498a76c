"""A fix, and the two usual ways to make one: wrap a function of fairseq, or give its module another `torch`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Fix:
    """A bug of an installed package: its name, the upstream issue, whether it is present, and the patch."""

    name: str
    issue: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


@dataclass(frozen=True)
class Patch:
    """`owner.name`, a function or method, replaced by one that calls `wrapper(upstream, *args, **kwargs)`.

    `bug_is_there` says whether the installed fairseq has the bug; a patch is not applied twice in any case.
    """

    wrapper: Callable[..., Any]
    owner: Any
    name: str
    bug_is_there: Callable[[], bool]

    def needed(self) -> bool:
        """Whether the bug is there, and not patched yet."""
        return self.wrapper not in _wrappers(getattr(self.owner, self.name)) and self.bug_is_there()

    def apply(self) -> None:
        """Put the wrapper in place."""
        upstream = getattr(self.owner, self.name)

        @functools.wraps(upstream)
        def patched(*args: Any, **kwargs: Any) -> Any:
            return self.wrapper(upstream, *args, **kwargs)

        patched.lsg_fairseq_wrappers = (*_wrappers(upstream), self.wrapper)
        setattr(self.owner, self.name, patched)


def patches(
    owner: Any, name: str, bug_is_there: Callable[[], bool] = lambda: True
) -> Callable[[Callable[..., Any]], Patch]:
    """Make a Patch of the wrapper `function(upstream, *args, **kwargs)` that this decorates."""
    return lambda wrapper: Patch(wrapper, owner, name, bug_is_there)


def fix_of(name: str, issue: str, *parts: Patch) -> Fix:
    """The fix that consists of these patches."""

    def apply() -> None:
        for patch in parts:
            if patch.needed():
                patch.apply()

    return Fix(name, issue, lambda: any(patch.needed() for patch in parts), apply)


class StandIn(ModuleType):
    """Stands for a module in fairseq: the names that a subclass defines, and the module's own for all others."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _wrappers(function: Any) -> tuple[Callable[..., Any], ...]:
    return getattr(function, "lsg_fairseq_wrappers", ())
