"""The README's recipe, from a Hugging Face checkpoint to summaries, in the README's own words, on a tiny checkpoint."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import REPOSITORY, run, write_jsonl
from reference_checkpoints import REFERENCE

RECIPE = "### From facebook/bart-large to arXiv summaries"
# What makes the recipe's training small: the tiny checkpoint's sizes, two updates, one document a batch.
SMALL = [
    *("--encoder-layers", "2", "--decoder-layers", "2", "--encoder-embed-dim", "8", "--decoder-embed-dim", "8"),
    *("--encoder-ffn-embed-dim", "64", "--decoder-ffn-embed-dim", "64", "--encoder-attention-heads", "4"),
    *("--decoder-attention-heads", "4", "--max-update", "2", "--update-freq", "1", "--cpu", "--num-workers", "0"),
]


def recipe_commands() -> list[list[str]]:
    text = (REPOSITORY / "README.md").read_text()
    block = re.search(r"```bash\n(.*?)```", text[text.index(RECIPE) :], re.DOTALL)[1]
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference checkpoints are not beside the repository")
def test_recipe(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("valid", 1), ("test", 2)):
        path = write_jsonl(tmp_path / "words.jsonl", [300, 900, 80], seed)
        examples = [json.loads(line) for line in path.read_text().splitlines()]
        renamed = [{"article": e["document"], "abstract": e["summary"]} for e in examples]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(e) + "\n" for e in renamed))
    convert, preprocess, train, summarize = recipe_commands()
    run(*(str(REFERENCE / "models/bart_n1024_short") if word == "facebook/bart-large" else word for word in convert),
        cwd=tmp_path)  # fmt: skip
    run(*preprocess, "--workers", 1, cwd=tmp_path)
    printed = run(*(word for word in train if word != "--fp16"), *SMALL, cwd=tmp_path)
    assert "checkpoint brought up to this model" not in printed, "the conversion made all that the model needs"
    assert "num_updates 2" in printed
    run(*summarize, "--max-len-b", 5, "--quiet", cwd=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "summaries.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert [row["article"] for row in rows] == [example["article"] for example in given]
    assert all(isinstance(row["summary"], str) for row in rows)
