"""What each stage reads: the files that are binarized into a folder, and the splits that they follow from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.manpages.corpus.pages import as_jsonl, read_records
from lsg_fairseq.data.output_folder import staged_output

# --- the first words of pages: what a page is about mostly stands there, and they are quick to read -------------------
# A mixture has more texts than pages, so that a model reads each of them less often: pages that have more than a line
# before their DESCRIPTION are in it a second time, from there on, and texts of another split are, too.

BEFORE = 20  # words before DESCRIPTION, from which on a page is worth a second reading
WORDS = 140  # about 260 tokens: pages are full of names, which are spelled in pieces


def opening_of(split: str) -> str:
    """The name of the file with a split's openings."""
    return f"{split}_{WORDS}_words.jsonl"


def write_opening(data: Path, split: str) -> None:
    """Write the pages of a split, cut to WORDS words, into a file in DATA; an interruption leaves no half of it.

    Raises:
        LSGError: the split has not been prepared.
    """
    records = [record | {"document": cut(record["document"], WORDS)} for record in read_records(data, split)]
    with staged_output(data) as aside:
        (aside / opening_of(split)).write_text(as_jsonl(records), encoding="utf-8")


def mixture_of(split: str) -> str:
    """The name of the file with a split's openings, and what is mixed with them."""
    return f"{split}_mixture.jsonl"


def write_mixture(data: Path, split: str, others: str) -> None:
    """Write the openings of a split, their second versions and the texts of another split into a file in DATA.

    Raises:
        LSGError: a split has not been prepared.
    """
    pages = read_records(data, split)
    second = [page | {"document": text} for page in pages if (text := from_description(page["document"]))]
    records = [page | {"document": cut(page["document"], WORDS)} for page in [*pages, *second]]
    with staged_output(data) as aside:
        (aside / mixture_of(split)).write_text(as_jsonl([*records, *read_records(data, others)]), encoding="utf-8")


def from_description(page: str) -> str:
    """A page from its DESCRIPTION on; nothing if hardly anything stands before that, or it has none."""
    heading = re.search(r"^DESCRIPTION$", page, re.MULTILINE)
    return page[heading.start() :] if heading and len(page[: heading.start()].split()) > BEFORE else ""


def cut(text: str, words: int) -> str:
    """The first words of a text, with the white space between them."""
    return re.match(rf"(?:\s*\S+){{0,{words}}}", text)[0]


# --- what each stage reads --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Two splits as they are."""

    training: str
    validation: str

    @property
    def splits(self) -> tuple[str, ...]:
        """What the files follow from."""
        return self.training, self.validation

    def files(self) -> tuple[str, str]:
        """The names of the files for training and validation."""
        return f"{self.training}.jsonl", f"{self.validation}.jsonl"

    def settings(self) -> dict[str, Any]:
        """What else the files depend on."""
        return {}

    def write(self, data: Path) -> None:
        """Write those of the files that are not splits themselves into DATA.

        Raises:
            LSGError: a split has not been prepared.
        """


class Openings(Texts):
    """The first words of both."""

    def files(self) -> tuple[str, str]:
        return opening_of(self.training), opening_of(self.validation)

    def settings(self) -> dict[str, Any]:
        return {"words": WORDS}

    def write(self, data: Path) -> None:
        write_opening(data, self.training)
        write_opening(data, self.validation)


@dataclass(frozen=True)
class Mixture(Openings):
    """More for training, texts of another split among it; validated on openings, so that the losses compare."""

    others: str

    @property
    def splits(self) -> tuple[str, ...]:
        return *super().splits, self.others

    def files(self) -> tuple[str, str]:
        return mixture_of(self.training), opening_of(self.validation)

    def write(self, data: Path) -> None:
        write_mixture(data, self.training, self.others)
        write_opening(data, self.validation)


DESCRIPTIONS, OPENINGS, MIXTURE, PAGES = (f"data-{name}" for name in ("descriptions", "openings", "mixture", "pages"))
TEXTS: dict[str, Texts] = {
    DESCRIPTIONS: Texts("descriptions_train", "descriptions_valid"),
    OPENINGS: Openings("train", "valid"),
    MIXTURE: Mixture("train", "valid", "descriptions_train"),
    PAGES: Texts("train", "valid"),
}
