"""Which pages are alike: MinHash over five-word shingles, and equal descriptions.

MinHash: Broder, "On the resemblance and containment of documents" (1997). Bands of rows that find candidates without
comparing all pairs: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

SHINGLE = 5  # words
HASHES, ROWS = 128, 4
ALIKE, NEAR_DUPLICATE = 0.5, 0.9  # estimated Jaccard similarity of the sets of shingles
CHUNK = 4096  # shingles hashed at once, pairs compared at once: what bounds the memory


def words_of(text: str) -> list[str]:
    """Lower-case words, which is all that similarity looks at."""
    return re.findall(r"\w+", text.lower())


def shingle_hashes(words: Sequence[str]) -> np.ndarray:
    """One uint64 for every different run of SHINGLE words (or for all of them, if they are fewer), sorted."""
    codes = np.array([zlib.crc32(word.encode()) for word in words], dtype=np.uint64)
    length = min(SHINGLE, len(codes))
    count = len(codes) - length + 1
    hashes = np.zeros(count if length else 0, dtype=np.uint64)
    for offset in range(length):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + count]
    return np.unique(hashes)


class MinHash:
    """Signatures (HASHES,) uint32; the share of equal entries estimates the Jaccard similarity."""

    def __init__(self, seed: int = 0) -> None:
        draw = np.random.default_rng(seed).integers(0, 1 << 63, size=(2, 1, HASHES), dtype=np.uint64)
        self.factors, self.offsets = draw[0] * np.uint64(2) + np.uint64(1), draw[1]

    def signature(self, text: str) -> np.ndarray:
        """The signature of a text; texts without a word have the signature of the empty set."""
        smallest = np.full(HASHES, np.iinfo(np.uint32).max, dtype=np.uint32)
        shingles = shingle_hashes(words_of(text))
        for start in range(0, len(shingles), CHUNK):
            hashed = shingles[start : start + CHUNK, None] * self.factors + self.offsets
            smallest = np.minimum(smallest, (hashed >> np.uint64(32)).min(axis=0).astype(np.uint32))
        return smallest


def similar_pairs(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (P,2) i < j, sorted, whose estimated similarity (P,) is at least ALIKE.

    A pair at 0.5 is found with probability 0.87, one at 0.7 with 0.9998.
    """
    pairs = _candidates(signatures)
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    shares = [(signatures[chunk[:, 0]] == signatures[chunk[:, 1]]).mean(axis=1) for chunk in chunks]
    similarity = np.concatenate([np.zeros(0), *shares])
    return pairs[similarity >= ALIKE], similarity[similarity >= ALIKE]


def _candidates(signatures: np.ndarray) -> np.ndarray:
    """Pairs (P,2) that agree in all rows of at least one band."""
    count = len(signatures)
    codes = np.zeros(0, dtype=np.int64)
    for start in range(0, signatures.shape[1], ROWS):
        buckets = defaultdict(list)
        for index, band in enumerate(np.ascontiguousarray(signatures[:, start : start + ROWS])):
            buckets[band.tobytes()].append(index)
        found = [_pairs_within(np.array(bucket), count) for bucket in buckets.values() if len(bucket) > 1]
        codes = np.unique(np.concatenate([codes, *found]))
    return np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)


def _pairs_within(members: np.ndarray, count: int) -> np.ndarray:
    left, right = np.triu_indices(len(members), k=1)
    return members[left] * count + members[right]


def near_duplicates(pairs: np.ndarray, similarity: np.ndarray, least: float = NEAR_DUPLICATE) -> set[int]:
    """What to drop so that no two of those left have at least that similarity; of two, the later goes."""
    dropped: set[int] = set()
    for left, right in pairs[similarity >= least].tolist():
        # Pairs are sorted: whether `left` stays is known by now.
        if left not in dropped:
            dropped.add(right)
    return dropped


def contained_in_any(texts: Iterable[str], others: Iterable[str], share: float = ALIKE) -> list[bool]:
    """For each text whether at least that share of its shingles stands in one of the others.

    So does everything of at least that Jaccard similarity, and a short text that is a part of a long one, too.
    """
    found = [shingle_hashes(words_of(other)) for other in others]
    hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *found])
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], np.repeat(np.arange(len(found)), [len(own) for own in found])[order]

    def is_contained(text: str) -> bool:
        wanted = shingle_hashes(words_of(text))
        ranges = zip(np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right"), strict=True)
        shared = np.concatenate([np.zeros(0, dtype=int), *(owners[start:end] for start, end in ranges)])
        return np.bincount(shared, minlength=1).max() >= max(share * len(wanted), 1)

    return [bool(is_contained(text)) for text in texts]


def equal_pairs(labels: Sequence[Hashable]) -> list[tuple[int, int]]:
    """For each member the first one whose label is the same."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(label, index), index) for index, label in enumerate(labels)]


def group(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of 0..count-1 the smallest member of its group: those that pairs link, in any number of steps."""
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = index = parents[parents[index]]
        return index

    for left, right in pairs:
        low, high = sorted((root(left), root(right)))
        parents[high] = low
    return [root(index) for index in range(count)]
