"""The model card: what the model in the package is, how good it is (from results.json), and what it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from examples.manpages.evaluation.markdown import table
from examples.manpages.evaluation.predictions import BASELINES, FIRST_SENTENCE, NEAREST
from examples.manpages.evaluation.rouge import SCORES
from examples.manpages.evaluation.scores import ALL
from examples.manpages.evaluation.variants import AS_TRAINED

CARD = """# lsg_bart_manpages

A small LSG-BART ({parameters:,} parameters, {positions:,} source tokens) that says in a line what a manual page is
about. `lsg-summarize` uses it when no checkpoint is named, and torch.hub has it as `lsg_bart_manpages`.

- **Made from** [all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) (Apache-2.0): its
  encoder with LSG attention and 4,096 positions, and two decoder layers that began as copies of two of its layers.
- **Trained** by stock `fairseq-train` on two CPU cores, on Debian's package descriptions and manual pages: commands,
  data and their licences are in `examples/manpages/README.md` of the repository.
- **For** trying the package out, for tests and for teaching. It describes programs, libraries and file formats in
  English; of other texts it says something that sounds like a manual page.
- **Not to be relied on**: it guesses, names above all. It writes lower case and reads the first 4,096 tokens. It was
  trained on pages without their NAME section, as mandoc renders them; a page with one gives the answer away.

## Figures

ROUGE F1 x 100 with stemming on pages that it was not trained on. test_seen: pages of packages that training had;
test_unseen: whole packages that it had not. The last column says how far the ROUGE-L of this model is above that of the
baseline, with a 95% interval (packages resampled).

{figures}

Printed by `python -m examples.manpages.evaluation.results`, whose whole table is in
`examples/manpages/results/results.md`; twenty pages drawn by a hash are in `examples/manpages/results/examples.md`.

## Files and licence

`config.json`, `model.safetensors` (float16) and the tokenizer are in Hugging Face's layout, for `lsg_fairseq` to read.
`auto_map` names the public LSG code for transformers, which was not tried with this model.
The vocabulary is MiniLM's, cut to the 12,000 pieces that the texts need most.

Apache-2.0 (`LICENSE`), the licence of MiniLM, whose weights these are after training.
The texts of the training are under the free licences of their packages; none of them is in these files.
"""
SYSTEMS = {
    AS_TRAINED: "this model",
    FIRST_SENTENCE: "first sentence of DESCRIPTION",
    NEAREST: "nearest training page's",
}


def model_card(results: Mapping[str, Any]) -> str:
    """README.md of the model in the package."""
    model = results["checkpoint"]
    return CARD.format(
        parameters=model["parameters"],
        positions=model["settings"]["source positions"],
        figures=table(("pages", "", "ROUGE-1", "ROUGE-2", "ROUGE-L", "lead in ROUGE-L"), _rows(results), "llrrrr"),
    )


def _rows(results: Mapping[str, Any]) -> Iterator[list[object]]:
    for split, figures in results["sets"].items():
        for system in (AS_TRAINED, *BASELINES):
            scores = [f"{figures[ALL]['scores'][system][name]:.2f}" for name in SCORES]
            found = figures[ALL]["differences"].get(system)
            more = f"{found['mean']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if found else ""
            yield [f"{split} ({figures[ALL]['pages']})", SYSTEMS[system], *scores, more]
