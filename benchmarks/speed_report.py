"""What speed.py measured, as tables and a plot, and beside the goals that the project set itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LABELS = {
    "lsg_fairseq": "**lsg_fairseq**",
    "floor": "floor: the same without attention",
    "products": "limit: only the products of 641 keys a query as attention",
    "public_lsg": "public LSG-BART",
    "bart_full": "BART, fused full attention",
    "led": "LED",
    "bigbird": "BigBird-Pegasus",
    "layer": "**lsg_fairseq**",
    "layer_products": "matrix products of 641 keys a query",
    "layer_public_lsg": "public LSG-BART",
    "layer_full": "fused full attention",
    "dropout": "**lsg_fairseq**",
    "dropout_public_lsg": "public LSG-BART",
    "generation": "**lsg_fairseq**",
    "generation_public_lsg": "public LSG-BART, transformers",
}
Results = dict[str, Any]


class Goal(NamedTuple):
    """A bound on the ratio of two models' figures in one row: `figure` of `name` over that of `other`."""

    title: str
    tokens: int
    figure: str
    name: str
    other: str
    bound: float
    at_most: bool = True


DROPOUT = "encoder forward + backward, attention dropout 0.1"
# Ours over others' where small is good; others' over ours where a speed-up is the goal.
GOALS = (
    Goal("attention layer", 4096, "median_s", "layer", "layer_products", 1.3),
    Goal("attention layer", 4096, "median_s", "layer_public_lsg", "layer", 5, False),
    Goal("attention layer", 4096, "median_s", "layer_full", "layer", 5, False),
    Goal("attention layer", 16384, "median_s", "layer_public_lsg", "layer", 6, False),
    Goal("attention layer", 16384, "median_s", "layer_full", "layer", 12, False),
    Goal("encoder forward", 4096, "median_s", "lsg_fairseq", "floor", 1.35),
    Goal("encoder forward", 16384, "median_s", "lsg_fairseq", "floor", 1.4),
    # The first of these, or the second.
    Goal("encoder forward and its limits, fp32", 4096, "median_s", "lsg_fairseq", "floor", 1.22),
    Goal("encoder forward and its limits, fp32", 4096, "median_s", "lsg_fairseq", "products", 1.03),
    Goal("encoder forward and its limits, bf16", 4096, "median_s", "lsg_fairseq", "floor", 1.4),
    Goal("encoder forward, bf16", 4096, "median_s", "public_lsg", "lsg_fairseq", 2.5, False),
    Goal("encoder forward, bf16", 4096, "median_s", "bart_full", "lsg_fairseq", 1.5, False),
    Goal("encoder forward + backward", 4096, "median_s", "public_lsg", "lsg_fairseq", 1.5, False),
    Goal("encoder forward + backward", 4096, "extra_mib", "lsg_fairseq", "public_lsg", 0.7),
    Goal(DROPOUT, 4096, "median_s", "dropout_public_lsg", "dropout", 1.25, False),
    Goal(DROPOUT, 4096, "extra_mib", "dropout", "dropout_public_lsg", 0.45),
    Goal("encoder forward", 16384, "extra_mib", "lsg_fairseq", "public_lsg", 0.5),
    Goal("encoder forward", 16384, "extra_mib", "lsg_fairseq", "led", 0.25),
    *(
        Goal("encoder forward by sparsity type", 4096, "median_s", f"type_{name}", "type_none", 1.25)
        for name in ("norm", "pooling", "bos_pooling", "stride", "block_stride")
    ),
    Goal("encoder forward by sparsity type", 4096, "median_s", "type_lsh", "type_none", 1.5),
    Goal("beam-4 generation of 128 tokens", 4096, "median_s", "generation_public_lsg", "generation", 2, False),
    Goal("beam-4 generation of 128 tokens", 4096, "extra_mib", "generation", "generation_public_lsg", 0.5),
)
FIGURES = {"median_s": "time", "extra_mib": "memory"}


def to_markdown(results: Results) -> str:
    """The goals, then a table a comparison: medians, and their ratio to ours (the first one's by sparsity type)."""
    intro = (
        f"{results['machine']}; medians of {results['rounds']} interleaved rounds; batch 1; extra MiB: the peak over "
        "the built model. The encoder has BART-base's sizes; block 128, sparse 128, factor 2, norm."
    )
    return "\n".join(["# Speed (`benchmarks/speed.py`)", "", intro, *_goal_lines(results), *_tables(results)]) + "\n"


def _goal_lines(results: Results) -> Iterator[str]:
    yield from ("", "| goal | ratio | wanted | reached |", "|---|--:|--:|---|")
    for goal in GOALS:
        row = _row(results, goal.title, goal.tokens)
        if row is None:
            continue
        ratio = row["models"][goal.name][goal.figure] / row["models"][goal.other][goal.figure]
        reached = ratio <= goal.bound if goal.at_most else ratio >= goal.bound
        what = f"{goal.title}, {goal.tokens:,}: {FIGURES[goal.figure]} of {_label(goal.name)} / {_label(goal.other)}"
        yield _goal_line(what, ratio, goal.bound, goal.at_most, reached)
    ends = [_row(results, "encoder forward", n) for n in (4096, 16384)]
    if all(ends):
        short, long = (row["models"]["lsg_fairseq"]["median_s"] / row["tokens"] for row in ends)
        what = "encoder forward: time for each token at 16,384 / at 4,096"
        yield _goal_line(what, long / short, 1.15, True, long / short <= 1.15)


def _goal_line(what: str, ratio: float, bound: float, at_most: bool, reached: bool) -> str:
    return f"| {what} | {ratio:.2f} | {'≤' if at_most else '≥'} {bound:g} | {'yes' if reached else '**no**'} |"


def _tables(results: Results) -> Iterator[str]:
    for row in results["rows"]:
        yield from ("", f"**{row['title']}, {row['tokens']:,} tokens**", "")
        yield from ("| | ms | times ours | fastest - slowest | extra MiB |", "|---|--:|--:|--:|--:|")
        ours = row["models"][row["names"][0]]["median_s"]
        for name, value in row["models"].items():
            spread = f"{value['min_s'] * 1e3:,.0f} - {value['max_s'] * 1e3:,.0f}"
            figures = f"{value['median_s'] * 1e3:,.0f} | {value['median_s'] / ours:.2f} | {spread}"
            yield f"| {_label(name)} | {figures} | {value['extra_mib']:,.0f} |"


def _label(name: str) -> str:
    return LABELS.get(name, name.removeprefix("type_"))


def _row(results: Results, title: str, tokens: int) -> dict[str, Any] | None:
    return next((row for row in results["rows"] if row["title"] == title and row["tokens"] == tokens), None)


def draw(results: Results, path: Path) -> None:
    """Encoder seconds and memory over the number of tokens."""
    rows = sorted((r for r in results["rows"] if r["title"] == "encoder forward"), key=lambda row: row["tokens"])
    if not rows:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2))
    tokens = [row["tokens"] for row in rows]
    for axis, key, unit in zip(axes, ("median_s", "extra_mib"), ("seconds", "MiB over the model"), strict=True):
        for name in rows[0]["names"]:
            others = {"linestyle": "--" if name == "floor" else "-"}
            style = {"linewidth": 3, "color": "black"} if name == "lsg_fairseq" else others
            values = [row["models"][name][key] for row in rows]
            axis.plot(tokens, values, marker="o", markersize=4, label=_label(name).strip("*"), **style)
        axis.set(xscale="log", yscale="log", xlabel="source tokens", ylabel=unit)
        axis.set_xticks(tokens, [f"{n:,}" for n in tokens])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle("Encoder forward, BART-base's sizes, fp32, batch 1, 2 CPU cores")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
