"""The task of needle.py: documents with a needle, and the answers to them counted by where the needle stood.

A document is filler: common words in random order. Once, anywhere, a marker word stands in it, and the symbols after it
are the summary: a colour, an animal, a tree, a fruit, 12 of each. What they are gives nothing away: one filler word in
32 is followed by another such run of four, also right before or after the needle, so that 4,096 tokens hold over 400
such symbols, and only the marker tells the answer from the rest. One word is one token. Guessing is right once in
20,736 times.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recipes.answers import read_answers

COMMON_WORDS = """
    the of and to in is that for it was on are as with they at be this have from or one had by but not what all were
    when we there can an your which their said if do will each about how up out them then she many some so these would
    other into has more her two like him see time could no
"""
SYMBOL_WORDS = """
    red blue green yellow black white brown pink purple grey orange golden
    fox bear wolf owl hare deer mouse crow goat swan seal toad
    oak elm birch pine maple willow cedar beech spruce poplar alder rowan
    plum apple pear cherry grape lemon melon peach fig quince mango kiwi
"""
FILLER = COMMON_WORDS.split()
SLOTS = [line.split() for line in SYMBOL_WORDS.strip().splitlines()]
MARKER, NEEDLE, DECOYS = "remember", len(SLOTS), 1 / 32
# Tokens of a document; <s> and </s> are two of them.
SHORT, LONG = 256, 4096
BINS = 8
BIN = LONG // BINS


@dataclass(frozen=True)
class Plan:
    """How much of everything. Short documents come in two kinds: of any length, and of full length."""

    any_length: int = 50_000
    full_length: int = 150_000
    short_updates: int = 5_560
    long_documents: int = 4_000
    long_updates: int = 1_000
    tests_per_bin: int = 40


QUICK = Plan(400, 100, 12, 16, 2, 1)


def make_document(
    rng: random.Random, words: int, marker: int | None = None, decoys: float = DECOYS
) -> dict[str, object]:
    """A document of so many words, its summary, and the number of the marker's word (anywhere if None)."""
    text: list[str] = []
    while len(text) < words:
        text.append(rng.choice(FILLER))
        if rng.random() < decoys:
            text += map(rng.choice, SLOTS)
    answer = [rng.choice(slot) for slot in SLOTS]
    marker = rng.randrange(words - NEEDLE) if marker is None else marker
    text[marker : marker + NEEDLE + 1] = [MARKER, *answer]
    return {"document": " ".join(text[:words]), "summary": " ".join(answer), "marker": marker}


def training_document(rng: random.Random, words: int, marker: int | None = None) -> dict[str, object]:
    """As make_document, with up to 8 times as many decoys: that teaches where exactly to look."""
    return make_document(rng, words, marker, decoys=rng.uniform(0, 8 * DECOYS))


def short_lengths(rng: random.Random, plan: Plan) -> Iterator[int]:
    """Words a document. Without thousands of tiny ones, training never finds out what the marker is for."""
    longest = SHORT - 2
    for _ in range(plan.any_length):
        yield round(math.exp(rng.uniform(math.log(NEEDLE + 2), math.log(longest))))
    for _ in range(plan.full_length):
        yield longest


def long_markers(rng: random.Random, plan: Plan) -> Iterator[int]:
    """Markers anywhere, but each second one by a seam of the tiled positions, where 255 is followed by 0 again.

    The short model never met that, nor any word at position 0, which `<s>` always had; and by chance only one needle in
    32 would lie there.
    """
    for i in range(plan.long_documents):
        seam = SHORT * rng.randrange(1, LONG // SHORT) - 1  # <s> is token 0
        yield rng.randrange(LONG - 2 - NEEDLE) if i % 2 else seam + rng.randint(-NEEDLE - 1, 2)


def test_markers(rng: random.Random, plan: Plan) -> Iterator[int]:
    """Markers spread evenly over all positions: one, drawn at random, in each stretch of the same length."""
    number = BINS * plan.tests_per_bin
    for i in range(number):
        yield min(int((i + rng.random()) * LONG / number), LONG - 3 - NEEDLE)


def write_corpora(folder: Path, plan: Plan) -> None:
    """Write short, long and test.jsonl, each from its own seed."""
    rng = random.Random(1)
    _write(folder / "short.jsonl", (training_document(rng, words) for words in short_lengths(rng, plan)))
    rng = random.Random(2)
    _write(folder / "long.jsonl", (training_document(rng, LONG - 2, m) for m in long_markers(rng, plan)))
    rng = random.Random(3)
    _write(folder / "test.jsonl", (make_document(rng, LONG - 2, marker) for marker in test_markers(rng, plan)))


def exact_matches(test: Path, printed: str) -> list[list[int]]:
    """[right answers, documents] for each bin of the marker's source position, from fairseq-generate's D- lines.

    Raises:
        LSGError: not every document was answered exactly once.
    """
    documents = [json.loads(line) for line in test.read_text().splitlines()]
    answers = read_answers(printed, len(documents))
    counts = [[0, 0] for _ in range(BINS)]
    for document, answer in zip(documents, answers, strict=True):
        count = counts[(document["marker"] + 1) // BIN]  # <s> is token 0
        count[0] += answer == document["summary"]
        count[1] += 1
    return counts


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
