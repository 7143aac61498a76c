"""DATA/box -> the package, with model card and licence, if the results say that it is good enough.

python -m examples.manpages.box.put [--data manpages-run] [--results examples/manpages/results/results.json]

Good enough: surely better than both baselines on pages of packages that training had (the target of the results).
Whether its sentences make sense is for people to judge: examples/manpages/results/examples.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.manpages.box.pack import BOX, CARD, LICENCE, hashes
from examples.manpages.corpus.pages import TEST_SETS
from examples.manpages.evaluation.baselines import BASELINES, FIRST_SENTENCE, NEAREST
from examples.manpages.evaluation.results import OUT
from examples.manpages.evaluation.results_text import table
from examples.manpages.evaluation.scores import ALL, AS_TRAINED, SCORES
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.hub.entry_checkpoints import DEFAULT_ENTRY, ENTRY_CHECKPOINTS
from lsg_fairseq.modules.lsg_config import LSGError

# --- the model card: what the model is, how good it is (from results.json), and what it is not ------------------------

TEMPLATE = """# lsg_bart_manpages

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
    return TEMPLATE.format(
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


# --- the command ------------------------------------------------------------------------------------------------------

PROGRAM = "examples.manpages.box.put"
# MiniLM is under it, so what was made of MiniLM is, and whoever passes it on has to add its text.
APACHE = Path(__file__).with_name("LICENSE-Apache-2.0.txt")
LARGEST = 48_000_000  # bytes: everybody who installs the package downloads them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=OUT / "results.json", metavar="FILE", help="of this box")
    args = parser.parse_args(argv)
    package = Path(ENTRY_CHECKPOINTS[DEFAULT_ENTRY].location)
    return run_command(PROGRAM, lambda: put(args.data / BOX, args.results, package))


def put(box: Path, results: Path, package: Path) -> None:
    """Copy the box into the package, with its README.md and LICENSE.

    Raises:
        LSGError: there is no box or no result, they do not belong together, or the box is too large or not good enough.
    """
    if not results.is_file():
        raise LSGError(f"{results} is missing: run python -m examples.manpages.evaluation.results --model {box} first")
    found = json.loads(results.read_text(encoding="utf-8"))
    check(box, found)
    with staged_output(package, stale=["*"]) as aside:
        for path in sorted(box.iterdir()):
            shutil.copyfile(path, aside / path.name)
        (aside / CARD).write_text(model_card(found), encoding="utf-8")
        shutil.copyfile(APACHE, aside / LICENCE)
    print(f"wrote {package}")


def check(box: Path, results: Mapping[str, Any]) -> None:
    """Refuse what should not be in the package; raises as `put`."""
    seen, _ = TEST_SETS
    if not (box / "config.json").is_file():
        raise LSGError(f"there is no box in {box}: run python -m examples.manpages.box.pack first")
    size = sum(path.stat().st_size for path in box.iterdir())
    if results.get("box") != hashes(box):
        raise LSGError(f"the results are not of {box}: run python -m examples.manpages.evaluation.results again")
    if not results["target"].get(seen):
        raise LSGError(f"the model is not surely better than both baselines on {seen}, so it stays out of the package")
    if size > LARGEST:
        raise LSGError(f"{box} has {size:,} bytes and may have {LARGEST:,}: train with a smaller vocabulary")


if __name__ == "__main__":
    sys.exit(main())
