"""Which packages' descriptions are kept: nothing that is in a test set, and one of each group of like ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.manpages.corpus.pages import TEST_SETS, Example, Reason, Record, read_records
from examples.manpages.corpus.selection import VALID_SHARE, fraction, signatures_of, without_duplicates, without_generic
from examples.manpages.corpus.similarity import ALIKE, contained_in_any, near_duplicates, similar_pairs, words_of

TRAIN, VALID = "train", "valid"


@dataclass(frozen=True)
class HeldOut:
    """What nothing may be learnt of: the source packages of test_unseen, and the pages of valid and both test sets."""

    sources: frozenset[str]
    pages: Sequence[Record]
    # Packages of test_unseen whose source nobody knows: they count as sources of their own name.
    not_in_lists: tuple[str, ...] = ()


def read_split_pages(data: Path) -> dict[str, list[Record]]:
    """The pages of valid and of both test sets that lie in `data`.

    Raises:
        LSGError: they have not been prepared.
    """
    return {split: read_records(data, split) for split in (VALID, *TEST_SETS)}


def hold_out(pages: Mapping[str, Sequence[Record]], sources: Mapping[str, str]) -> HeldOut:
    """What those pages hold out, where `sources` has the source of each package.

    A package that it lacks counts as its own source, as it does where the pages come from a folder, and is named.
    """
    packages = {page["package"] for page in pages["test_unseen"]}
    return HeldOut(
        frozenset(sources.get(package, package) for package in packages),
        [page for split in pages.values() for page in split],
        tuple(sorted(packages - sources.keys())),
    )


def select_descriptions(
    examples: Sequence[Example], held_out: HeldOut
) -> tuple[dict[str, list[Example]], Counter[Reason]]:
    """The examples of train and valid, in the order of their keys, and how many were dropped, by reason.

    Of like ones, that of the package with the shortest name is kept: rather of foo than of foo-doc.
    """
    dropped: Counter[Reason] = Counter()
    left = sorted(examples, key=lambda example: (len(example.package), example.key, example.document))
    known = {_normalised(page["summary"]) for page in held_out.pages}

    def keep(kept: list[Example], reason: Reason) -> list[Example]:
        dropped[reason] += len(left) - len(kept)
        return kept

    left = keep([e for e in left if e.source not in held_out.sources], Reason.HELD_OUT_SOURCE)
    left = keep([e for e in left if _normalised(e.summary) not in known], Reason.SAME_AS_HELD_OUT)
    contained = contained_in_any((e.document for e in left), (page["document"] for page in held_out.pages))
    left = keep([e for e, is_contained in zip(left, contained, strict=True) if not is_contained], Reason.LIKE_HELD_OUT)
    left = keep(without_duplicates(left), Reason.DUPLICATE)
    left = keep(_one_of_each_summary(left), Reason.SAME_AS_ANOTHER)
    left = keep(_without_like(left), Reason.LIKE_ANOTHER)
    left = keep(without_generic(left), Reason.SHARED)
    return split_by_source(sorted(left, key=lambda example: example.key)), +dropped


def split_by_source(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """All examples of a source package are in one split, which a hash of its name decides."""
    splits: dict[str, list[Example]] = {TRAIN: [], VALID: []}
    for example in examples:
        # Another word than held_out_sources hashes, so that the two choices have nothing to do with one another.
        splits[VALID if fraction(f"described {example.source}") < VALID_SHARE else TRAIN].append(example)
    return splits


def _normalised(summary: str) -> str:
    return " ".join(words_of(summary))


def _one_of_each_summary(examples: Sequence[Example]) -> list[Example]:
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(_normalised(example.summary), example)
    return list(first.values())


def _without_like(examples: Sequence[Example]) -> list[Example]:
    pairs, similarity = similar_pairs(signatures_of([example.document for example in examples], "description"))
    dropped = near_duplicates(pairs, similarity, ALIKE)
    return [example for index, example in enumerate(examples) if index not in dropped]
