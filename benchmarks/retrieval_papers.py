"""The documents and queries of extrapolation.py: 250 ACL papers, and what asks for each of them.

A paper's queries are its abstract, and passages of 120 words that begin 1,000, 2,000 and 3,000 words into it and are
taken out of it, so that a paper is never found by an exact copy. All three lie beyond a BERT's 512 tokens.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from recipes.papers import example_from_paper, fetch_papers

DEPTHS = (1000, 2000, 3000)  # words
PASSAGE = 120
CHOOSING = 50


@dataclass(frozen=True)
class Paper:
    """A document without its passages, and its queries by kind: "abstract", "1000", ...; not every paper is so long."""

    document: str
    queries: dict[str, str]


def read_papers(folder: Path) -> tuple[list[Paper], list[Paper]]:
    """Papers to choose settings on, and the others, to report on: split by a hash, so that neither depends on order."""
    with zipfile.ZipFile(fetch_papers(folder)) as archive:
        names = sorted(n for n in archive.namelist() if "/paper_jsons/" in n and n.endswith(".json"))
        examples = filter(None, (example_from_paper(json.loads(archive.read(name))) for name in names))
        papers = sorted(map(make_paper, examples), key=lambda p: hashlib.sha256(p.document.encode()).digest())
    return papers[:CHOOSING], papers[CHOOSING:]


def make_paper(example: dict[str, str]) -> Paper:
    """Take the passages out of a paper's body."""
    words = example["document"].split()
    depths = [depth for depth in DEPTHS if depth + PASSAGE <= len(words)]
    queries = {str(depth): " ".join(words[depth : depth + PASSAGE]) for depth in depths}
    taken = {place for depth in depths for place in range(depth, depth + PASSAGE)}
    document = " ".join(word for place, word in enumerate(words) if place not in taken)
    return Paper(document, {"abstract": example["summary"], **queries})


def write_papers(papers: list[Paper], path: Path) -> None:
    """One paper a line, for embedders.py."""
    path.write_text("".join(json.dumps(asdict(paper)) + "\n" for paper in papers))


def load_papers(path: Path) -> Iterator[Paper]:
    """What write_papers wrote."""
    for line in path.read_text().splitlines():
        yield Paper(**json.loads(line))
