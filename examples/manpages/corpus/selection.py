"""From all examples to the splits: what says nothing of its own page goes, what is left is grouped and split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Container, Sequence

import numpy as np
from tqdm import tqdm

from examples.manpages.corpus.pages import Example, Reason
from examples.manpages.corpus.similarity import MinHash, equal_pairs, group, near_duplicates, similar_pairs, words_of

# --- moulds: texts that are the same but for the names in them, as "Functions for wxSizer class" ----------------------

MOST_SHARING = 10  # what more pages, or packages of more sources, say of themselves says too little of any of them
WORD = re.compile(r"[a-z0-9]+")


def words_of_name(name: str) -> set[str]:
    """The words that a name consists of, in lower case."""
    return set(WORD.findall(name.lower()))


def mould_of(text: str, name: Container[str]) -> str:
    """The words of the text, in lower case, without those of the name."""
    return " ".join(word for word in WORD.findall(text.lower()) if word not in name)


# --- four splits that share no group of like pages; a hash decides, so that one more page moves few others ------------

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


# --- from all examples to the splits ----------------------------------------------------------------------------------


def select(examples: Sequence[Example]) -> tuple[dict[str, list[Example]], Counter[Reason]]:
    """The examples of each split, in the order of their keys, and how many were dropped, by reason."""
    ordered = sorted(examples, key=lambda example: (example.key, example.document))
    different = without_duplicates(ordered)
    specific = without_generic(different)
    kept, groups = _without_near_duplicates(specific)
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    dropped = Counter(
        {
            Reason.DUPLICATE: len(ordered) - len(different),
            Reason.GENERIC: len(different) - len(specific),
            Reason.NEAR_DUPLICATE: len(specific) - len(kept),
        }
    )
    for example, split in zip(kept, assign_splits(kept, groups), strict=True):
        if isinstance(split, Reason):
            dropped[split] += 1
        else:
            splits[split].append(example)
    return splits, +dropped


def _mould(example: Example) -> str:
    return mould_of(example.summary, words_of_name(example.name))


def without_duplicates(examples: Sequence[Example]) -> list[Example]:
    """The first of those whose documents have the same words."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(" ".join(words_of(example.document)), example)
    return list(first.values())


def without_generic(examples: Sequence[Example]) -> list[Example]:
    """Those whose descriptions are not from a mould that more than MOST_SHARING share."""
    sharing = Counter(_mould(example) for example in examples)
    return [example for example in examples if sharing[_mould(example)] <= MOST_SHARING]


def _without_near_duplicates(examples: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """What is left, and the group of each; what was dropped still holds its group together."""
    pairs, similarity = similar_pairs(signatures_of([example.document for example in examples], "page"))
    same_description = equal_pairs([" ".join(words_of(example.summary)) for example in examples])
    same_mould = equal_pairs([_mould(example) for example in examples])
    groups = group(len(examples), [*map(tuple, pairs.tolist()), *same_description, *same_mould])
    dropped = near_duplicates(pairs, similarity)
    left = [index for index in range(len(examples)) if index not in dropped]
    return [examples[index] for index in left], [groups[index] for index in left]


def signatures_of(documents: Sequence[str], unit: str) -> np.ndarray:
    """Signatures (N,HASHES) for similar_pairs; the progress bar counts them as `unit`."""
    hashing = MinHash()
    bar = tqdm(documents, desc=f"comparing {unit}s", unit=unit, disable=len(documents) < 1000)
    return np.array([hashing.signature(document) for document in bar])
