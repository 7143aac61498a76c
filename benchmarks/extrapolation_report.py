"""From vectors to figures: ranks, intervals, a table and a plot; used by extrapolation.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval_papers import DEPTHS

KINDS = ("abstract", *map(str, DEPTHS))
PASSAGES = KINDS[1:]
RESAMPLES = 2000
CHUNKS = "MiniLM, mean of 8 chunks of 512"
Results = dict[str, Any]


def measure(path: Path) -> Results:
    """Reciprocal ranks of the right paper, by kind of query and paper (None: it is too short), and what it cost."""
    with np.load(path) as arrays:
        documents, queries, names = arrays["documents"], arrays["queries"], arrays["names"]
        cost = json.loads(str(arrays["cost"]))
    ranks: dict[str, list[float | None]] = {kind: [None] * len(documents) for kind in KINDS}
    for scores, name in zip(queries @ documents.T, names, strict=True):
        paper, kind = name.split(":")
        ranks[kind][int(paper)] = 1.0 / int((scores >= scores[int(paper)]).sum())
    summary = {kind: summarise(ranks, (kind,)) for kind in KINDS} | {"passages": summarise(ranks, PASSAGES)}
    return {**summary, "cost": cost, "reciprocal_ranks": ranks}


def summarise(ranks: dict[str, list[float | None]], kinds: tuple[str, ...]) -> dict[str, Any]:
    """MRR and recall@1 in percent over the queries of these kinds, each with a 95% bootstrap interval over papers."""
    by_paper = [[r for r in row if r is not None] for row in zip(*(ranks[kind] for kind in kinds), strict=True)]
    figures: dict[str, Any] = {"queries": sum(map(len, by_paper))}
    for name, value in (("mrr", lambda r: r), ("recall", lambda r: float(r == 1.0))):
        points = [[100 * value(r) for r in row] for row in by_paper if row]
        figures[name] = float(np.mean([x for row in points for x in row]))
        figures[f"{name}_interval"] = interval(points)
    return figures


def interval(by_paper: list[list[float]]) -> list[float]:
    """2.5 and 97.5 percent points of the mean when papers are drawn with replacement."""
    sums, counts = np.array([sum(row) for row in by_paper]), np.array([len(row) for row in by_paper])
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def paired_difference(one: Results, other: Results) -> tuple[float, list[float]]:
    """How much higher the passages' MRR of `one` is, in percent points, and its 95% interval over the same papers."""
    rows = []
    for paper in range(len(one["reciprocal_ranks"]["abstract"])):
        pairs = [(one["reciprocal_ranks"][kind][paper], other["reciprocal_ranks"][kind][paper]) for kind in PASSAGES]
        rows.append([100 * (a - b) for a, b in pairs if a is not None and b is not None])
    rows = [row for row in rows if row]
    return float(np.mean([x for row in rows for x in row])), interval(rows)


def to_markdown(results: Results) -> str:
    """The reported table, then what the settings were chosen by."""
    reporting, counts = results["reporting"], results["papers"]
    lines = [
        "# Reading 4,096 tokens with a model of 512, untrained (`benchmarks/extrapolation.py`)",
        "",
        f"{results['machine']}. MRR / recall@1 in percent of the right paper among {counts['reporting']}; in brackets "
        "the 95% bootstrap interval of the passages' MRR; seconds: the median a paper; extra MiB: the peak over the "
        f"model. Settings were chosen on {counts['choosing']} other papers: {results['chosen']}.",
        "",
        f"| | abstracts | {' | '.join(f'passages at {int(kind):,} words' for kind in PASSAGES)} | all passages | "
        "minus chunks | seconds | extra MiB |",
        "|---|" + "--:|" * (len(KINDS) + 4),
    ]
    for name, row in reporting.items():
        cells = [f"{row[kind]['mrr']:.1f} / {row[kind]['recall']:.1f}" for kind in (*KINDS, "passages")]
        low, high = row["passages"]["mrr_interval"]
        cells[-1] += f" [{low:.1f}, {high:.1f}]"
        difference, (low, high) = paired_difference(row, reporting[CHUNKS])
        cells.append("" if name == CHUNKS else f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]")
        cells += [f"{row['cost']['seconds']:.2f}", f"{row['cost']['extra_mib']:,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"On the {counts['choosing']} papers for choosing:",
        "",
        "| LSG | abstracts | all passages | seconds |",
    ]
    lines.append("|---|--:|--:|--:|")
    for name, row in results["choosing"].items():
        cells = [f"{row[kind]['mrr']:.1f} / {row[kind]['recall']:.1f}" for kind in ("abstract", "passages")]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['cost']['seconds']:.2f} |")
    return "\n".join(lines) + "\n"


def draw(results: Results, path: Path) -> None:
    """A row for each contestant: the passages' MRR with its interval, and the seconds that a paper takes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(results["reporting"].items())
    names = [name for name, _ in rows]
    colours = ["C3" if name.startswith("LSG") else "C0" for name in names]
    figure, (quality, cost) = pyplot.subplots(1, 2, figsize=(10, 5), sharey=True, width_ratios=(3, 2))
    for name, colour, (_, row) in zip(names, colours, rows, strict=True):
        mrr, (low, high) = row["passages"]["mrr"], row["passages"]["mrr_interval"]
        quality.errorbar(mrr, name, xerr=[[mrr - low], [high - mrr]], fmt="o", color=colour, capsize=3)
    quality.axvline(results["reporting"][CHUNKS]["passages"]["mrr"], color="grey", linestyle=":", zorder=0)
    quality.set_xlabel("MRR of passages deep in the paper, percent (95% interval)")
    cost.barh(names, [row["cost"]["seconds"] for _, row in rows], color=colours)
    cost.set_xlabel("seconds a paper, 2 CPU cores")
    quality.invert_yaxis()
    for axis in (quality, cost):
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
