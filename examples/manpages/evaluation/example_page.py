"""examples.md: pages drawn by a hash, not chosen, with what the model and the baselines say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from examples.manpages.corpus.records import Record
from examples.manpages.corpus.splits import fraction
from examples.manpages.evaluation.markdown import escape, table
from examples.manpages.evaluation.predictions import FIRST_SENTENCE, NEAREST
from examples.manpages.evaluation.variants import AS_TRAINED

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
        "(`examples/manpages/evaluation/example_page.py`), not chosen. The model is the one as trained, and "
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
