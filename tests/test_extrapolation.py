"""From vectors to the figures of benchmarks/extrapolation.py, on vectors whose ranks are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import extrapolation
from benchmarks.extrapolation_report import CHUNKS, draw, measure, paired_difference, to_markdown
from benchmarks.retrieval_papers import DEPTHS, PASSAGE, make_paper

# Cosines of three papers with each other are 0, so a query's rank is what its scores say.
PAPERS = np.eye(3)
RIGHT, SECOND = (1.0, 0.5, 0.1), (0.5, 1.0, 0.1)


def write_vectors(path: Path, first: tuple[float, ...]) -> Path:
    """Abstracts that find their papers; paper 0 has two passages, paper 1 one, paper 2 is too short for any."""
    queries = np.array([*PAPERS, first, SECOND, (0.1, 1.0, 0.5)])
    names = np.array(["0:abstract", "1:abstract", "2:abstract", "0:1000", "0:2000", "1:1000"])
    np.savez(path, documents=PAPERS, queries=queries, names=names, cost=json.dumps({"seconds": 2, "extra_mib": 5}))
    return path


def test_ranks_are_those_of_the_scores(tmp_path: Path) -> None:
    found = measure(write_vectors(tmp_path / "a.npz", RIGHT))
    assert (found["abstract"]["mrr"], found["abstract"]["recall"]) == (100, 100)
    assert found["2000"]["mrr"] == 50
    assert found["passages"]["queries"] == 3
    assert found["passages"]["mrr"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    assert found["passages"]["recall"] == pytest.approx(200 / 3)
    low, high = found["passages"]["mrr_interval"]
    assert low <= found["passages"]["mrr"] <= high


def test_a_tie_is_no_hit(tmp_path: Path) -> None:
    found = measure(write_vectors(tmp_path / "a.npz", (1.0, 1.0, 0.1)))
    assert found["reciprocal_ranks"]["1000"] == [0.5, 1.0, None]


def test_differences_are_of_the_same_queries(tmp_path: Path) -> None:
    better, worse = (measure(write_vectors(tmp_path / f"{i}.npz", first)) for i, first in enumerate((RIGHT, SECOND)))
    difference, (low, high) = paired_difference(better, worse)
    assert difference == pytest.approx(50 / 3)
    assert low <= difference <= high
    assert paired_difference(better, better) == (0, [0, 0])


def test_results_are_told_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the benchmarks extra")
    better, worse = (measure(write_vectors(tmp_path / f"{i}.npz", first)) for i, first in enumerate((RIGHT, SECOND)))
    results = {"machine": "one", "papers": {"choosing": 3, "reporting": 3}, "chosen": "norm"}
    results |= {"choosing": {"norm": better}, "reporting": {CHUNKS: worse, "LSG norm": better}}
    rows = [line for line in to_markdown(results).splitlines() if line.startswith("| LSG norm |")]
    assert len(rows) == 1
    assert "83.3 / 66.7" in rows[0]
    assert "+16.7" in rows[0]
    draw(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_passage_is_not_left_in_its_paper() -> None:
    words = [f"w{i}" for i in range(DEPTHS[1] + PASSAGE)]
    paper = make_paper({"document": " ".join(words), "summary": "short"})
    assert set(paper.queries) == {"abstract", "1000", "2000"}
    assert not set(paper.queries["1000"].split()) & set(paper.document.split())
    assert len(paper.document.split()) == len(words) - 2 * PASSAGE


def test_what_is_chosen_is_among_what_is_tried(tmp_path: Path) -> None:
    """Every setting differs from the others, and the chosen one is reported as it was tried."""
    tried = extrapolation.candidates(tmp_path)
    assert len({json.dumps(spec, sort_keys=True) for spec in tried.values()}) == len(tried)
    reported = extrapolation.contestants(tmp_path, tmp_path, "norm, 256/0/2", peers=False)
    assert reported["LSG norm, 256/0/2 (chosen)"] == tried["norm, 256/0/2"]
    assert (tried["norm, 256/0/2"]["block_size"], tried["norm, 256/0/2"]["sparse_block_size"]) == (256, 0)
    assert CHUNKS in reported
