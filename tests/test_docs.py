"""What README and docs/ say: tables that follow from the code, links that lead somewhere, and the recipe's words."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import REPOSITORY, run, write_jsonl
from reference_checkpoints import REFERENCE

from benchmarks.memory_table import HEAD, SECTION, memory_table, training_commands
from lsg_fairseq.commands.plan import main as plan_main
from lsg_fairseq.compat import FIXES
from lsg_fairseq.hub.entry_checkpoints import DEFAULT_ENTRY, ENTRY_CHECKPOINTS
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.planning.setup import parse_flags

README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
RECIPE = "## From facebook/bart-large to arXiv summaries"
# What makes the recipe's training small: the tiny checkpoint's sizes, two updates, one document a batch.
SMALL = [
    *("--encoder-layers", "2", "--decoder-layers", "2", "--encoder-embed-dim", "8", "--decoder-embed-dim", "8"),
    *("--encoder-ffn-embed-dim", "64", "--decoder-ffn-embed-dim", "64", "--encoder-attention-heads", "4"),
    *("--decoder-attention-heads", "4", "--max-update", "2", "--update-freq", "1", "--cpu", "--num-workers", "0"),
]


def pretrained_rows() -> list[str]:
    rows = []
    for entry, checkpoint in ENTRY_CHECKPOINTS.items():
        weights = "in the package" if entry == DEFAULT_ENTRY else checkpoint.location
        origin = ", ".join(filter(None, (checkpoint.made_from, checkpoint.fine_tuned_on)))
        rows.append(f"| `{entry}` | {checkpoint.max_source_positions:,} | {weights} | {origin} |")
    return rows


def test_pretrained_models_are_those_of_the_table() -> None:
    section = README.read_text().split("## Pretrained models")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == pretrained_rows()


def test_options_are_the_fields_and_their_defaults() -> None:
    section = README.read_text().split("## Options")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section, re.MULTILINE))
    assert rows == {name: str(value).lower() for name, value in vars(LSGConfig()).items()}


def test_every_fix_of_fairseq_is_listed() -> None:
    page = (REPOSITORY / "docs" / "fairseq-fixes.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, re.MULTILINE))
    rows |= dict.fromkeys(re.findall(r"^\| `(\w+)` \|.*\| \|$", page, re.MULTILINE), "")
    assert set(rows) == {fix.name for fix in FIXES}
    issues = {fix.name: fix.issue for fix in FIXES if fix.issue.startswith("https://")}
    assert {name: issue in rows[name] for name, issue in issues.items()} == dict.fromkeys(issues, True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    here = [link for link in links if not link.startswith("http")]
    assert [link for link in here if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmarks_and_scripts_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    modules = re.findall(r"python -m ((?:benchmarks|examples|recipes)[\w.]*)", text)
    paths = [
        *(name.replace(".", "/") + ".py" for name in modules),
        *re.findall(r"`?((?:scripts|benchmarks)/\w+\.py)", text),
    ]
    assert [path for path in paths if not (REPOSITORY / path).is_file()] == []


def recipe_commands() -> list[list[str]]:
    text = (REPOSITORY / "docs" / "training.md").read_text()
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


# --- large models on GPUs


def training_page() -> str:
    return (REPOSITORY / "docs" / "training.md").read_text()


def test_memory_table_is_what_the_plan_says() -> None:
    section = training_page().split(SECTION)[1].split("\n## ")[0]
    table = memory_table(training_page())
    assert [line for line in section.splitlines() if line.startswith("|")] == table.splitlines()
    assert table.startswith(HEAD)


def test_large_trainings_have_64_documents_in_an_update() -> None:
    """fairseq-train has every flag, whatever the number of GPUs, and they differ in --update-freq alone."""
    commands, seen = training_commands(training_page()), {}
    for processes, words in commands:
        args = parse_flags(words)
        assert processes * args.batch_size * args.update_freq[0] == 64
        at = words.index("--update-freq")
        assert seen.setdefault(args.save_dir, words[:at] + words[at + 2 :]) == words[:at] + words[at + 2 :]
    assert sorted(processes for processes, _ in commands) == [1] * 3 + [8] * 3 + [16] * 3


def test_plans_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    section = training_page().split("## How much memory a training takes")[1].split("\n## ")[0]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]
    commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [command[0] for command in commands] == ["lsg-plan"] * 2
    for command in commands:
        assert plan_main(command[1:]) == 0, capsys.readouterr().err
