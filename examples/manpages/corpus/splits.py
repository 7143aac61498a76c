"""Four splits that share no group of like pages; a hash decides, so that a page more moves few others."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from examples.manpages.corpus.pages import Example, Reason

SPLITS = ("train", "valid", "test_seen", "test_unseen")
VALID_SHARE, TEST_SHARE = 0.03, 0.04
# No source may be more than this share of test_unseen: one large package would decide its figures.
LARGEST_SHARE = 0.1
# Larger groups are families of pages from one mould: they would be most of a small split.
LARGEST_GROUP = 10

Assignment = list[str | Reason]


def fraction(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def assign_splits(examples: Sequence[Example], groups: Sequence[int]) -> Assignment:
    """The split of each example, or why it has none. `groups` holds each example's group.

    Sources held out for test_unseen are in no other split, and every package of test_seen is in train as well.
    """
    held_out = held_out_sources(examples)
    members = defaultdict(list)
    for index, label in enumerate(groups):
        members[label].append(index)
    splits: Assignment = [Reason.LIKE_TRAINING] * len(examples)
    for indices in members.values():
        known = [index for index in indices if examples[index].source not in held_out]
        # A held-out page that is like a page of another source stays out: it would be known.
        split = _split_of([examples[index].key for index in known]) if known else "test_unseen"
        for index in known or indices:
            splits[index] = split
    return _with_packages_known(examples, groups, splits)


def held_out_sources(examples: Sequence[Example]) -> set[str]:
    """Sources in the order of their hash, none of them large, until they have TEST_SHARE of all pages.

    One at least, the smallest if all are large; none if there is only one.
    """
    pages = Counter(example.source for example in examples)
    quota = TEST_SHARE * len(examples)
    largest = max(LARGEST_SHARE * quota, min(pages.values()))
    held_out: set[str] = set()
    count = 0
    for source in sorted(pages, key=lambda source: fraction(f"source {source}")):
        if pages[source] <= largest and (not held_out or count + pages[source] <= quota):
            held_out.add(source)
            count += pages[source]
    return held_out if len(pages) > 1 else set()


def _split_of(keys: Sequence[str]) -> str:
    place = fraction(min(keys))
    if len(keys) > LARGEST_GROUP or place >= VALID_SHARE + TEST_SHARE:
        return "train"
    return "valid" if place < VALID_SHARE else "test_seen"


def _with_packages_known(examples: Sequence[Example], groups: Sequence[int], splits: Assignment) -> Assignment:
    """Move to train the groups of valid and test_seen with a package that train lacks."""
    trained = {example.package for example, split in zip(examples, splits, strict=True) if split == "train"}
    seen = ("valid", "test_seen")
    rows = list(zip(examples, groups, splits, strict=True))
    moved = {label for example, label, split in rows if split in seen and example.package not in trained}
    return ["train" if label in moved and split in seen else split for _, label, split in rows]
