"""From all examples to the splits: what says nothing of its own page goes, what is left is grouped and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from examples.manpages.corpus.moulds import MOST_SHARING, mould_of, words_of_name
from examples.manpages.corpus.pages import Example, Reason
from examples.manpages.corpus.similarity import MinHash, equal_pairs, group, near_duplicates, similar_pairs, words_of
from examples.manpages.corpus.splits import SPLITS, assign_splits


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
