"""Queries in front of documents: where they stand in a split's rows, in a file beside it.

A row of a document with a query has the query's tokens, `</s>`, the document's tokens, `</s>`: the pair form of every
family that summarises (`encode(query, document)` of torch.hub). `{split}.source-target.queries` has a line for each
row: how many tokens the query has, 0 for none. They are the first that the model reads behind what its family puts in
front of a source (`<s>`, a language code; SequenceFormat.num_front), whatever was cut of the document.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError

SEPARATOR = ("</s>",)


def queries_file(folder: Path, split: str) -> Path:
    """Where the lengths of a split's queries are."""
    return folder / f"{split}.source-target.queries"


def write_queries(path: Path, lengths: Iterable[int]) -> None:
    """Write how many tokens each row's query has."""
    path.write_text("".join(f"{length}\n" for length in lengths), encoding="utf-8")


def read_queries(folder: Path, split: str, count: int) -> list[int] | None:
    """How many tokens the query of each of `count` rows has; None where the split has no queries.

    Raises:
        LSGError: the file is damaged or has another number of lines.
    """
    path = queries_file(folder, split)
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(lines) != count or not all(line.isdecimal() and line.isascii() for line in lines):
        raise LSGError(
            f"{path} must have a number of tokens in each of {count} lines, one a document of {split}, and has "
            f"{len(lines)} lines: make the data again (lsg-preprocess --query-field)"
        )
    return [int(line) for line in lines]


def lead_of(query_length: int) -> int:
    """How many tokens are in front of a document for a query of so many: its own, and the separator."""
    return query_length + len(SEPARATOR) if query_length else 0


def check_room(leads: Iterable[int], room: int, where: str) -> None:
    """Refuse queries that leave no room for a document.

    Raises:
        LSGError: there is one.
    """
    for number, lead in enumerate(leads, start=1):
        if lead >= room:
            raise LSGError(
                f"{where} {number} has a query of {lead - len(SEPARATOR)} tokens, and {room} tokens of text are read, "
                "so that none of the document would be: shorten the query, or raise --max-source-positions"
            )
