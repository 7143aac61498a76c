"""results.md and examples.md: figures and examples for people, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from examples.manpages.corpus.pages import Record
from examples.manpages.corpus.selection import fraction
from examples.manpages.evaluation.baselines import BASELINES, FIRST_SENTENCE, NEAREST
from examples.manpages.evaluation.scores import ALL, AS_TRAINED, CUT, LONGER, SCORES, SHORT, STAGE_BEFORE

# --- Markdown in which texts stay what they are -----------------------------------------------------------------------

# What Markdown, or HTML in it, would read as something else than text wherever it stands in a line. What counts at the
# start of a line alone ("1." makes a list) stays: no text starts one, in a cell or behind the marks of a heading.
SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~&$@]")


def escape(text: str) -> str:
    """A text in one line of Markdown that shows as it is, but for white space."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], alignment: str) -> str:
    """A table; `alignment` has an l or r for each column. Cells are Markdown."""
    ruler = ["--:" if side == "r" else "---" for side in alignment]
    lines = [header, ruler, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# --- results.md: the figures of results.json --------------------------------------------------------------------------

Results = Mapping[str, Any]
TITLES = {
    AS_TRAINED: "as trained",
    CUT: f"cut to {SHORT} tokens",
    "sparsity_none": "sparsity none",
    "full_attention": "full attention",
    STAGE_BEFORE: f"the stage before, cut to {SHORT}",
    FIRST_SENTENCE: "first sentence of DESCRIPTION",
    NEAREST: "description of the nearest training page",
}


def results_page(results: Results) -> str:
    """The Markdown page."""
    return "\n\n".join(_parts(results)) + "\n"


def _parts(results: Results) -> Iterator[str]:
    yield "# Manual pages described by the model (`python -m examples.manpages.evaluation.results`)"
    yield _about(results)
    yield "## Scores"
    yield _about_scores(results)
    yield table(("pages", "number", "", "ROUGE-1", "ROUGE-2", "ROUGE-L", "seconds"), _score_rows(results), "lrlrrrr")
    yield "\n".join(f"- {TITLES[name]}: {variant['meaning']}." for name, variant in results["variants"].items())
    yield f"Up to two blocks (of {results['checkpoint']['settings']['block_size']} tokens) LSG attention is full, too."
    yield "## Differences of ROUGE-L"
    yield _about_differences(results["bootstrap"])
    header = ("pages", "number", "packages", "as trained minus", "difference", "95% interval")
    yield table(header, _differences(results), "lrrlrr")
    yield _verdict(results)


def _about(results: Results) -> str:
    model, machine = results["checkpoint"], results["machine"]
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    settings = ", ".join(f"{name} {value}" for name, value in model["settings"].items())
    options = " ".join(f"{flag} {value}" for flag, value in results["options"].items())
    optimizer = " with optimizer state" if model["has_optimizer_state"] else ""
    return (
        f"The model: {model['parameters']:,} parameters, which alone take {model['half_precision_bytes']:,} bytes in "
        f"half precision (2 bytes a parameter), in a file of {model['bytes']:,} bytes{optimizer}; `{settings}`.\n\n"
        f"Options of all variants: `{options}`. The machine: {escape(facts)}."
    )


def _about_scores(results: Results) -> str:
    counts = []
    for split, figures in results["sets"].items():
        (limit, number), *others = [(int(limit), number) for limit, number in figures["longer_than"].items()]
        more = "".join(f" and {number} over {limit:,}" for limit, number in others)
        counts.append(f"{number} of {figures[ALL]['pages']} pages of {split} are over {limit:,} tokens long{more}")
    return (
        "ROUGE F1 x 100 with stemming, mean over the pages; seconds of `fairseq-generate` over all of them, its start "
        f"included. {'; '.join(counts)}."
    )


def _figures(results: Results) -> Iterator[tuple[str, str, Results, Results]]:
    """Split, which pages, their figures, and the seconds of each variant over all pages of the split."""
    for split, figures in results["sets"].items():
        for which in (ALL, LONGER):
            if figures[which]["pages"]:
                yield split, which, figures[which], figures["seconds"] if which == ALL else {}


def _score_rows(results: Results) -> Iterator[list[object]]:
    for split, which, figures, seconds in _figures(results):
        for system, scores in figures["scores"].items():
            values = [f"{scores[name]:.2f}" for name in SCORES]
            time = f"{seconds[system]:,.0f}" if system in seconds else ""
            yield [f"{split}, {which}", figures["pages"], TITLES[system], *values, time]


def _about_differences(bootstrap: Mapping[str, int]) -> str:
    return (
        f"Means over the same pages, with percentile intervals of {bootstrap['resamples']:,} resamples of the "
        f"packages (`examples/manpages/evaluation/scores.py`, seed {bootstrap['seed']}). A package is drawn "
        "with all its pages: pages of a package are alike, so that intervals of pages drawn one by one would be too "
        "narrow. The target rests on these intervals."
    )


def _differences(results: Results) -> Iterator[list[object]]:
    for split, which, figures, _ in _figures(results):
        for system, found in figures["differences"].items():
            interval = f"{found['low']:+.2f} to {found['high']:+.2f}"
            counts = figures["pages"], figures["packages"]
            yield [f"{split}, {which}", *counts, TITLES[system], f"{found['mean']:+.2f}", interval]


def _verdict(results: Results) -> str:
    names = " and ".join(TITLES[name] for name in BASELINES)
    each = ", ".join(f"{split}: {'yes' if met else '**no**'}" for split, met in results["target"].items())
    met = "reached" if all(results["target"].values()) else "**not reached**"
    sets = " and ".join(results["target"])
    return f"Target, the lower end of the interval above 0 against both baselines ({names}) on {sets}: {met} ({each})."


# --- examples.md: pages drawn by a hash, not chosen, with what the model and the baselines say of them ----------------

EXAMPLES = 10  # of each set
# Fixed before there was a model, so that nobody could choose.
SEED = "examples of the results, 1"
SAID_BY = {AS_TRAINED: "**model**", FIRST_SENTENCE: "first sentence", NEAREST: "nearest page"}


def draw(pages: Sequence[Record]) -> list[int]:
    """The places of EXAMPLES pages, or of all if there are fewer; they depend on SEED and the pages' names alone."""

    def place(index: int) -> float:
        page = pages[index]
        return fraction(f"{SEED} {page['package']}/{page['name']}.{page['section']}")

    return sorted(range(len(pages)), key=place)[:EXAMPLES]


def examples_page(pages: Mapping[str, Sequence[Record]], texts: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """The Markdown page; `texts` holds what each system says of each page, by split."""
    parts = [
        "# Pages and what was said of them",
        f"{EXAMPLES} pages of each set, drawn by a hash of their names "
        "(`examples/manpages/evaluation/results_text.py`), not chosen. The model is the one as trained, and "
        "was trained on none of them; the numbers are of words. The pages and their descriptions are under the "
        "licences of their packages.",
    ]
    for split, records in pages.items():
        parts.append(f"## {split}")
        parts += [_example(records, texts[split], index) for index in draw(records)]
    return "\n\n".join(parts) + "\n"


def _example(pages: Sequence[Record], texts: Mapping[str, Sequence[str]], index: int) -> str:
    page = pages[index]
    said = {"reference": page["summary"]} | {title: texts[system][index] for system, title in SAID_BY.items()}
    heading = f"### {escape(page['name'])}({page['section']})"
    about = f"{escape(page['package'])}, {count_words(page['document']):,} words"
    rows = [(title, count_words(text), escape(text)) for title, text in said.items()]
    return "\n\n".join([heading, about, table(("", "words", "description"), rows, "lrl")])


def count_words(text: str) -> int:
    """Words as white space separates them."""
    return len(text.split())
