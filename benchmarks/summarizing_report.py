"""What summarizing.py measures, and its figures as tables and a plot beside the goals set beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Results = dict[str, Any]
LABELS = {
    "lsg_fairseq": "**lsg_fairseq**",
    "as_they_come": "lsg_fairseq, batches of 8 as documents come",
    "public_lsg": "public LSG-BART, transformers",
    "ctranslate2": "CTranslate2, full attention",
    "step": "steps of a generation",
    "reading": "reading what they have to",
}


class Contest(NamedTuple):
    """One comparison: documents, new tokens of each, at most how many rounds, and who takes part, as (name, dtype)."""

    title: str
    documents: int
    mixed: bool
    new_tokens: int
    contestants: tuple[tuple[str, str], ...]
    most_rounds: int = 100


class Goal(NamedTuple):
    """A bound on the time of `name` over that of `other` in one comparison."""

    title: str
    name: str
    other: str
    bound: float
    at_most: bool = False


LONG = "four documents of 4,096 tokens"
MIXED = "64 documents of 200 to 4,096 tokens"
STEPS = "steps for four documents of 4,096 tokens, {}"
GOALS = (
    Goal(LONG, "public_lsg float32", "lsg_fairseq float32", 2.2),
    Goal(LONG, "ctranslate2 float32", "lsg_fairseq float32", 2.0),
    Goal(LONG, "ctranslate2 int8", "lsg_fairseq bfloat16", 3.2),
    Goal(STEPS.format("float32"), "step float32", "reading float32", 1.3, True),
    Goal(STEPS.format("bfloat16"), "step bfloat16", "reading bfloat16", 1.3, True),
    Goal(MIXED, "as_they_come float32", "lsg_fairseq float32", 1.5),
)


def rows(quick: bool) -> list[Contest]:
    """Everything that is measured, the short rows first."""
    types = ("float32", "bfloat16")
    ours = tuple(("lsg_fairseq", dtype) for dtype in (*types, "int8"))
    theirs = (("public_lsg", "float32"), ("ctranslate2", "float32"), ("ctranslate2", "int8"))
    mixed = (("lsg_fairseq", "float32"), ("as_they_come", "float32"), ("lsg_fairseq", "bfloat16"))
    new_tokens = 8 if quick else 128
    table = [Contest(STEPS.format(t), 4, False, new_tokens, (("step", t), ("reading", t))) for t in types]
    table.append(Contest(LONG, 1 if quick else 4, False, new_tokens, ours + theirs))
    number, new_tokens = 9 if quick else 64, min(new_tokens, 32)
    table.append(Contest(MIXED, number, True, new_tokens, mixed, most_rounds=3))
    return [*table, Contest(f"{MIXED}, with the peers", number, True, new_tokens, (*mixed, *theirs), most_rounds=1)]


def to_markdown(results: Results) -> str:
    """The goals, then a table a comparison: medians, and their ratio to ours in float32."""
    intro = (
        f"{results['machine']}; medians of up to {results['rounds']} interleaved rounds; the same random weights "
        "of BART-base's sizes for all; beam 4; extra MiB: the peak over the built model. Same ids: the first "
        "four documents' outputs are those of the table's first line."
    )
    lines = ["# Summaries (`benchmarks/summarizing.py`)", "", intro, *_goal_lines(results)]
    if results.get("quick"):
        lines.insert(2, "**A quick run, to see that it works: these are no results.**\n")
    return "\n".join([*lines, *(line for row in results["rows"] for line in _table(row))]) + "\n"


def _goal_lines(results: Results) -> Iterator[str]:
    yield from ("", "| goal | ratio | wanted | reached |", "|---|--:|--:|---|")
    found = {row["title"]: row["results"] for row in results["rows"]}
    for goal in GOALS:
        seconds = {label: figures["median_s"] for label, figures in found.get(goal.title, {}).items()}
        if not {goal.name, goal.other} <= set(seconds):
            continue
        ratio = seconds[goal.name] / seconds[goal.other]
        reached = ratio <= goal.bound if goal.at_most else ratio >= goal.bound
        what = f"{goal.title}: time of {label_of(goal.name)} / {label_of(goal.other)}"
        sign = "≤" if goal.at_most else "≥"
        yield f"| {what} | {ratio:.2f} | {sign} {goal.bound:g} | {'yes' if reached else '**no**'} |"


def _table(row: dict[str, Any]) -> Iterator[str]:
    yield from ("", f"**{row['title']}, {row['new_tokens']} new tokens each**", "")
    yield from (
        "| | seconds | fastest - slowest (runs) | times the first | documents a minute | extra MiB | same ids |",
        "|---|--:|--:|--:|--:|--:|---|",
    )
    first = next(iter(row["results"].values()))["median_s"]
    for label, value in row["results"].items():
        rate = 60 * row["documents"] / value["median_s"]
        spread = f"{value['min_s']:.1f} - {value['max_s']:.1f} ({value['runs']})"
        figures = f"{value['median_s']:.1f} | {spread} | {value['median_s'] / first:.2f} | {rate:.1f}"
        same = "yes" if value["same_ids"] else "no"
        yield f"| {label_of(label)} | {figures} | {value['extra_mib']:,.0f} | {same} |"


def label_of(contestant: str) -> str:
    """A contestant's name for readers, with its dtype."""
    name, dtype = contestant.split()
    return f"{LABELS[name]}, {dtype}"


def draw(results: Results, path: Path) -> None:
    """Documents a minute, a bar a contestant."""
    shown = [row for row in results["rows"] if row["title"] in (LONG, MIXED)]
    if not shown:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(shown), 1, figsize=(9, 3.2 * len(shown)), squeeze=False)
    for axis, row in zip(axes[:, 0], shown, strict=True):
        rates = {label: 60 * row["documents"] / value["median_s"] for label, value in row["results"].items()}
        colors = ["black" if label.startswith("lsg_fairseq") else "0.65" for label in rates]
        bars = axis.barh([label_of(label).replace("*", "") for label in rates], list(rates.values()), color=colors)
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.margins(x=0.12)  # room for the figures behind the bars
        axis.invert_yaxis()
        axis.set(title=f"{row['title']}, {row['new_tokens']} new tokens each", xlabel="documents a minute")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
