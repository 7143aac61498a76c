"""The two registries that this library is extended through: encoder attentions and sparse selections.

Someone else's --user-dir adds to them with a decorator; nothing in this package has to change:

    @register_sparse_selection("every_other")
    def select_every_other(query, key, value, key_padding_mask, config, generator): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Entry = TypeVar("Entry", bound=Callable[..., Any])

# name -> nn.Module class; modules/lsg_attention.py documents what it must accept.
ENCODER_ATTENTIONS: dict[str, Callable[..., Any]] = {}
# name -> function; modules/sparse_tokens.py documents what it must accept.
SPARSE_SELECTIONS: dict[str, Callable[..., Any]] = {}


def register_encoder_attention(name: str) -> Callable[[Entry], Entry]:
    """Make a self-attention class available as `--lsg-attention NAME`."""
    return _registrar(ENCODER_ATTENTIONS, "encoder attention", name)


def register_sparse_selection(name: str) -> Callable[[Entry], Entry]:
    """Make a selection function available as `--lsg-sparsity-type NAME`."""
    return _registrar(SPARSE_SELECTIONS, "sparse selection", name)


def look_up(entries: Mapping[str, Entry], setting: str, name: str, error: type[Exception] = ValueError) -> Entry:
    """Return the entry of that name, or raise `error` with the names that exist."""
    if name not in entries:
        choices = [*sorted(entries), *(["none"] if entries is SPARSE_SELECTIONS else [])]
        raise error(
            f"{setting} {name!r} is not registered; choose from {', '.join(choices)}, or have the module that "
            "registers it imported first (--user-dir DIR; in Python, import it)"
        )
    return entries[name]


def _registrar(entries: dict[str, Callable[..., Any]], kind: str, name: str) -> Callable[[Entry], Entry]:
    def register(entry: Entry) -> Entry:
        if name == "none" or name in entries:
            raise ValueError(f"the name {name!r} is already taken by another {kind}; choose a different one")
        entries[name] = entry
        return entry

    return register
