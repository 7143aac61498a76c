"""What is made of a trained model: answers in order and complete, intervals, pages for people, training curves."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, run

from examples.manpages.corpus.pages import TEST_SETS
from examples.manpages.evaluation.answering import answer, binarize, open_answering, open_run, source_tokens
from examples.manpages.evaluation.baselines import BASELINES, read_predictions, write_predictions
from examples.manpages.evaluation.results import OUT, Choice
from examples.manpages.evaluation.results_text import EXAMPLES, TITLES, draw, escape, examples_page, results_page, table
from examples.manpages.evaluation.scores import (
    ALL,
    AS_TRAINED,
    CUT,
    GENERATION,
    LONG,
    LONGER,
    SHORT,
    STAGE_BEFORE,
    in_order,
    is_better,
    mean_scores,
    measure,
    paired_bootstrap,
    score_systems,
    short_variant,
    variants_of,
)
from examples.manpages.training.curves import TRAINING, VALIDATION, read_logs, stage_ends, write_curves
from lsg_fairseq.checkpoints.loading import CheckpointFiles
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer
from recipes.answers import read_answers
from recipes.stages import Stages

VARIANTS = variants_of(LONG) | short_variant()
TOPICS = "list copy print sort merge join cut search replace count".split()


def pages_of(number: int, words: int = 30) -> list[dict[str, str]]:
    return [
        {
            "document": " ".join([TOPICS[i % 10], "the", "lines", "of", "a", "file"] * words),
            "summary": f"{TOPICS[i % 10]} the lines of file {i}",
            "name": f"tool_{i}",
            "section": "1",
            "package": f"package{i % 3}",
        }
        for i in range(number)
    ]


def texts_of(pages: list[dict[str, str]]) -> dict[str, list[str]]:
    """The model repeats the summary; every other system says less."""
    right = [page["summary"] for page in pages]
    return {name: right if name == AS_TRAINED else [text[:-6] for text in right] for name in TITLES}


# --- the bootstrap --------------------------------------------------------------------------------------------------


def test_no_difference_is_zero() -> None:
    scores = np.random.default_rng(0).random(50)
    assert paired_bootstrap(scores, scores, range(50)) == (0.0, 0.0, 0.0)


def test_the_interval_is_of_pairs() -> None:
    """A constant difference is certain, however much the scores themselves vary."""
    scores = np.random.default_rng(0).integers(0, 100, 50).astype(float)
    assert paired_bootstrap(scores + 3, scores, np.arange(50) // 4) == (3.0, 3.0, 3.0)


def test_exchanging_the_systems_turns_the_interval_round() -> None:
    a, b = np.random.default_rng(0).random((2, 50))
    groups = np.arange(50) // 3
    mean, low, high = paired_bootstrap(a, b, groups, resamples=500)
    assert low < mean < high
    assert paired_bootstrap(b, a, groups, resamples=500) == pytest.approx((-mean, -high, -low))


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = np.random.default_rng(0).random((2, 50))
    groups = [f"package{n // 2}" for n in range(50)]
    found = paired_bootstrap(a, b, groups, 500, seed=1)
    assert found == paired_bootstrap(list(a), list(b), np.array(groups), 500, seed=1)
    assert found != paired_bootstrap(a, b, groups, 500, seed=2)


def test_four_times_the_examples_halve_the_interval() -> None:
    a, b = np.random.default_rng(0).random((2, 1600))
    intervals = (paired_bootstrap(a[:n], b[:n], range(n), 2000) for n in (100, 400, 1600))
    widths = [high - low for _, low, high in intervals]
    assert [wide / narrow for wide, narrow in pairwise(widths)] == pytest.approx([2, 2], rel=0.2)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [paired_bootstrap(rng.normal(1, 2, 60), rng.normal(0, 2, 60), range(60), 300)[1:] for _ in range(300)]
    covered = np.mean([low <= 1 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.98  # of 300 intervals: 0.95 but for 3 standard errors and the small samples' bias


def test_groups_that_are_alike_make_the_interval_wider() -> None:
    """Examples of a group share most of their difference; drawn one by one they would seem to be far more than that."""
    rng = np.random.default_rng(0)
    covered = {"groups": 0, "examples": 0}
    for _ in range(200):
        sizes = rng.integers(1, 15, 40)
        groups = np.repeat(np.arange(40), sizes)
        a = 1 + np.repeat(rng.normal(0, 2, 40), sizes) + rng.normal(0, 0.5, len(groups))
        for name, labels in (("groups", groups), ("examples", np.arange(len(groups)))):
            _, low, high = paired_bootstrap(a, np.zeros_like(a), labels, 300)
            covered[name] += low <= 1 <= high
    assert 0.88 <= covered["groups"] / 200 <= 0.98
    assert covered["examples"] / 200 < 0.7


def test_the_mean_is_that_of_all_examples_drawn() -> None:
    """Two groups, of one example and of three: a resample has one group twice, or both."""
    mean, low, high = paired_bootstrap([0.0, 4.0, 4.0, 4.0], [0.0] * 4, ["a", "b", "b", "b"], 500)
    assert (mean, low, high) == (3.0, 0.0, 4.0)


def test_a_group_of_its_own_for_each_example_draws_examples() -> None:
    a, b = np.random.default_rng(0).random((2, 50))
    rng = np.random.default_rng(7)
    means = [(a - b)[rng.integers(0, 50, 50)].mean() for _ in range(1200)]
    expected = ((a - b).mean(), *np.quantile(means, (0.025, 0.975)))
    assert paired_bootstrap(a, b, range(50), 1200, seed=7) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b", "groups", "resamples"),
    [([1.0], [1.0, 2.0], [1], 10), ([1.0], [1.0], [1, 2], 10), ([], [], [], 10), ([1.0], [1.0], [1], 0)],
)
def test_what_has_no_interval(a: list[float], b: list[float], groups: list[int], resamples: int) -> None:
    with pytest.raises(LSGError, match=r"groups must be of the same examples|at least 1 resample"):
        paired_bootstrap(a, b, groups, resamples)


# --- answers --------------------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_pages() -> None:
    printed = "| INFO | loading\nS-1\tx\nD-1\t-0.5\tone\u2028\ttab\nH-0\t-1\tz ##y\nD-0\t-1.5\t\nD-2\t-3\ttwo \nP-2\t-1"
    assert read_answers(printed, 3) == ["", "one\u2028\ttab", "two"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([0, 2], "missing: 1"),
        ([0, 1, 2, 1], "more than once: 1"),
        ([0, 1, 2, 7], "unknown: 7"),
        ([], "missing: 0, 1, 2"),
    ],
)
def test_incomplete_answers_are_refused(ids: list[int], said: str) -> None:
    with pytest.raises(LSGError, match=rf"each of 3 documents once \({said}\): generate again"):
        read_answers("".join(f"D-{i}\t-1\ttext\n" for i in ids), 3)


@pytest.mark.parametrize("torn", ["D-1", "D-1\t-0.5", "D-\t-0.5\ttext", "D-1x\t-0.5\ttext", "D-"])
def test_torn_answers_are_refused(torn: str) -> None:
    with pytest.raises(LSGError, match=r"left a torn line \('D-.*generate again"):
        read_answers(f"D-0\t-1\ttext\n{torn}\n", 2)


def test_variants_change_settings_that_exist() -> None:
    flags = {name: variant.flags for name, variant in VARIANTS.items() if "--model-overrides" in variant.flags}
    overrides = {name: ast.literal_eval(given[given.index("--model-overrides") + 1]) for name, given in flags.items()}
    assert {
        name: LSGConfig.from_dict({key.removeprefix("lsg_"): value for key, value in changed.items()})
        for name, changed in overrides.items()
    } == {
        "sparsity_none": LSGConfig(sparsity_type="none"),
        "full_attention": LSGConfig(attention="full"),
    }


def test_a_run_is_of_one_checkpoint_and_these_pages(corpus: Path, tmp_path: Path) -> None:
    def folder(weights: bytes, number: int) -> Path:
        (tmp_path / "model.pt").write_bytes(weights)
        files = CheckpointFiles(tmp_path / "model.pt", corpus, corpus / "tokenizer")
        return open_run(files, {"test_seen": pages_of(number)}, tmp_path / "runs").folder

    first = folder(b"1", 3)
    assert first == folder(b"1", 3) != folder(b"2", 3)
    # What answered stays, whatever becomes of the checkpoint.
    assert (first / "checkpoint.pt").read_bytes() == b"1"
    assert not any(path.is_symlink() for path in first.rglob("*"))
    assert json.loads((first / "inputs.json").read_text())["checkpoint"]["bytes"] == 1
    assert load_tokenizer(first / "tokenizer").tokens == load_tokenizer(corpus / "tokenizer").tokens
    assert len({folder(b"1", 3), folder(b"1", 4), folder(b"2", 3)}) == 3
    assert (folder(b"2", 3) / "checkpoint.pt").read_bytes() == b"2"
    with pytest.raises(LSGError, match="test_seen is without pages"):
        folder(b"1", 0)


def test_a_checkpoint_that_is_being_written_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pt").write_bytes(b"1")
    files = CheckpointFiles(tmp_path / "model.pt", corpus, corpus / "tokenizer")
    copy = shutil.copyfile

    def copy_late(source: Path, target: Path) -> None:
        (tmp_path / "model.pt").write_bytes(b"2")
        copy(source, target)

    monkeypatch.setattr("examples.manpages.evaluation.answering.shutil.copyfile", copy_late)
    with pytest.raises(LSGError, match=r"model.pt changed while it was copied"):
        open_run(files, {"test_seen": pages_of(3)}, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("positions", [1024, 16384])
def test_as_trained_means_the_positions_of_the_checkpoint(positions: int) -> None:
    variants = variants_of(positions)
    for name, variant in variants.items():
        assert variant.flags[:2] == ("--max-source-positions", str(SHORT if name == CUT else positions))
    assert f"cut to its {positions:,} positions" in variants[AS_TRAINED].meaning
    assert short_variant()[STAGE_BEFORE].flags == variants[CUT].flags


def test_other_sets_are_reported_elsewhere(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    assert Choice(in_order(["test_unseen", "test_seen", "test_seen"])).out_of(stages) == OUT
    assert Choice(limit=3).out_of(stages) == Choice(("valid",)).out_of(stages) == tmp_path / "results"
    assert Choice(("valid",), out=tmp_path / "out").out_of(stages) == tmp_path / "out"
    assert in_order(["test_seen", "valid"]) == ("valid", "test_seen")


def test_baselines_must_be_of_these_pages(tmp_path: Path) -> None:
    pages = pages_of(5)
    with pytest.raises(LSGError, match=r"run python -m examples.manpages.evaluation.baselines"):
        read_predictions(tmp_path, "test_seen", pages)
    write_predictions(
        pages, {name: texts_of(pages)[name] for name in BASELINES}, tmp_path / "test_seen.baselines.jsonl"
    )
    assert read_predictions(tmp_path, "test_seen", pages[:3]) == {n: texts_of(pages)[n][:3] for n in BASELINES}
    for others in (pages[1:], [*pages, *pages], [pages[0] | {"summary": "another"}]):
        with pytest.raises(LSGError, match="other pages"):
            read_predictions(tmp_path, "test_seen", others)


def test_stock_commands_answer(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    files = CheckpointFiles(checkpoints / "checkpoint_best.pt", corpus, corpus / "tokenizer")
    pages = [*pages_of(3, words=20), *pages_of(2, words=150)]
    run = open_answering(files, {"test_seen": pages}, tmp_path)
    stages, full = run.stages, run.variants["full_attention"].flags
    encode = load_tokenizer(corpus / "tokenizer").encode
    assert source_tokens(stages, "test_seen").tolist() == [len(encode(page["document"])) + 2 for page in pages]
    assert (run.positions, run.checkpoint["has_optimizer_state"]) == (1024, True)
    assert run.checkpoint["bytes"] == files.model.stat().st_size > 6 * run.checkpoint["half_precision_bytes"] > 0
    said = answer(stages, "test_seen", "full_attention", full)
    assert len(said) == 5
    seconds = [stage["seconds"] for stage in stages.finished.values()]
    again = Stages(stages.folder)
    binarize(again, "test_seen")
    assert answer(again, "test_seen", "full_attention", full) == said
    assert [stage["seconds"] for stage in again.finished.values()] == seconds  # not run, but remembered
    assert str(tmp_path) not in json.dumps(again.finished)
    # An answer that is lost later on is noticed, and the stage runs again.
    answers = stages.folder / "answers-test_seen-full-attention" / "generate-test.txt"
    answers.write_text(answers.read_text().replace("D-3\t", "D-"))
    with pytest.raises(LSGError, match=r"torn line .*generate again"):
        answer(again, "test_seen", "full_attention", full)
    assert not (stages.folder / "test_seen-full-attention.json").exists()


def test_the_cut_variant_cuts(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    files = CheckpointFiles(checkpoints / "checkpoint_best.pt", corpus, corpus / "tokenizer")
    once = max(len(load_tokenizer(corpus / "tokenizer").encode(page["document"])) for page in pages_of(10, words=1))
    pages = [*pages_of(3, words=400 // once), *pages_of(2, words=900 // once)]
    run = open_answering(files, {"valid": pages}, tmp_path)
    lengths = source_tokens(run.stages, "valid")
    assert ((lengths > SHORT).sum(), (lengths > run.positions).sum()) == (2, 0)
    for variant in (AS_TRAINED, CUT):
        assert len(answer(run.stages, "valid", variant, run.variants[variant].flags)) == 5
    logs = {name: (run.stages.folder / f"valid-{name.replace('_', '-')}.log").read_text() for name in (AS_TRAINED, CUT)}
    assert "2 of 5 sources were cut to 510 tokens of text" in logs[CUT]
    assert "were cut to" not in logs[AS_TRAINED]


@pytest.mark.slow
def test_results_from_end_to_end(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    data, pages = tmp_path / "data", pages_of(4)
    data.mkdir()
    for split in TEST_SETS:
        (data / f"{split}.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
        write_predictions(pages, {name: texts_of(pages)[name] for name in BASELINES}, data / f"{split}.baselines.jsonl")
    flags = ["--model", checkpoints, "--short-model", checkpoints / "checkpoint1.pt", "--data", data]
    flags += ["--out", tmp_path / "out", "--limit", 3]
    printed = run(sys.executable, "-m", "examples.manpages.evaluation.results", *flags, cwd=REPOSITORY)
    assert "Target, the lower end of the interval above 0" in printed
    assert "| test_seen, all | 3 | the stage before, cut to 512 |" in printed
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [written["sets"][split][ALL]["pages"] for split in TEST_SETS] == [3, 3]
    assert written["checkpoint"]["parameters"] > 10_000
    assert written["checkpoint"]["sha256"] != written["short_model"]["checkpoint"]["sha256"]
    assert set(written["sets"]["test_seen"]["seconds"]) == set(VARIANTS)
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "results.md", "examples.md"}


# --- scores and pages for people ------------------------------------------------------------------------------------


def hand_made() -> tuple[dict, dict, dict]:
    """results.json, pages and texts, of 30 pages a set, 10 of them long."""
    pages = {split: pages_of(30) for split in TEST_SETS}
    texts = {split: texts_of(records) for split, records in pages.items()}
    tokens = np.array([100] * 20 + [SHORT + 1] * 9 + [5000])
    sets = {
        s: {"seconds": dict.fromkeys(VARIANTS, 60)} | measure(score_systems(pages[s], texts[s]), tokens, LONG)
        for s in pages
    }
    sizes = {"bytes": 6200, "has_optimizer_state": True, "parameters": 500, "half_precision_bytes": 1000}
    found = {
        "checkpoint": {**sizes, "sha256": "0", "settings": {"block_size": 128}},
        "variants": {name: asdict(variant) for name, variant in VARIANTS.items()},
        "machine": {"processor": "a processor", "torch": "2"},
        "options": GENERATION,
        "bootstrap": {"resamples": 10, "seed": 1},
        "sets": sets,
        "target": {split: is_better(figures[ALL]) for split, figures in sets.items()},
    }
    return found, pages, texts


def test_scores_are_the_baselines_own() -> None:
    found, pages, texts = hand_made()
    for split in TEST_SETS:
        figures = found["sets"][split]
        assert figures["longer_than"] == {"512": 10, "4096": 1}
        assert (figures[ALL]["pages"], figures[LONGER]["pages"]) == (30, 10)
        assert (figures[ALL]["packages"], figures[LONGER]["packages"]) == (3, 3)
        for system, said in texts[split].items():
            assert figures[ALL]["scores"][system] == mean_scores(pages[split], said)
            assert figures[LONGER]["scores"][system] == mean_scores(pages[split][20:], said[20:])
        assert figures[ALL]["differences"].keys() == TITLES.keys() - {AS_TRAINED}


def test_no_page_no_figures() -> None:
    pages = pages_of(3)
    found = measure(score_systems(pages, texts_of(pages)), np.array([10, 20, 30]), LONG)
    assert found[LONGER] == {"pages": 0, "packages": 0}


def test_one_package_alone_shows_nothing() -> None:
    """Its interval is a point, which may well lie above 0."""
    pages = [page | {"package": "one"} for page in pages_of(5)]
    figures = measure(score_systems(pages, texts_of(pages)), np.full(5, 100), LONG)[ALL]
    assert all(figures["differences"][name]["low"] > 0 for name in BASELINES)
    assert not is_better(figures)
    several = measure(score_systems(pages_of(5), texts_of(pages_of(5))), np.full(5, 100), LONG)[ALL]
    assert is_better(several)


def test_results_are_told() -> None:
    found, _, _ = hand_made()
    page = results_page(found)
    assert "10 of 30 pages of test_seen are over 512 tokens long and 1 over 4,096" in page
    assert len(re.findall(r"^\| test_\w+, ", page, re.MULTILINE)) == 2 * 2 * (len(TITLES) + len(TITLES) - 1)
    assert "| test_unseen, all | 30 | as trained | 100.00 | 100.00 | 100.00 | 60 |" in page
    assert "on test_seen and test_unseen: reached (test_seen: yes, test_unseen: yes)" in page
    assert "resamples of the packages (`examples/manpages/evaluation/scores.py`, seed 1)" in page
    assert "500 parameters, which alone take 1,000 bytes in half precision (2 bytes a parameter)" in page
    assert "a file of 6,200 bytes with optimizer state;" in page
    assert "- the stage before, cut to 512: the checkpoint of the stage before" in page
    assert all((REPOSITORY / path).exists() for path in re.findall(r"`(examples/manpages/[\w/.]+)`", page))


def test_results_of_another_set_are_told() -> None:
    """A set of its own, a checkpoint of 512 positions without optimizer state, and no model of the stage before."""
    found, pages, texts = hand_made()
    texts = {system: said for system, said in texts["test_seen"].items() if system != STAGE_BEFORE}
    variants = variants_of(SHORT)
    figures = measure(score_systems(pages["test_seen"], texts), np.full(30, 600), SHORT)
    found["sets"] = {"valid": {"seconds": dict.fromkeys(variants, 60)} | figures}
    found["checkpoint"]["has_optimizer_state"] = False
    page = results_page(found | {"variants": {n: asdict(v) for n, v in variants.items()}, "target": {"valid": True}})
    assert "30 of 30 pages of valid are over 512 tokens long." in page
    assert "on valid: reached (valid: yes)" in page
    assert "pages cut to its 512 positions" in page
    assert not {"test_", "optimizer", "trained and cut"} & set(re.findall("test_|optimizer|trained and cut", page))


def test_a_missed_target_is_told() -> None:
    found, _, _ = hand_made()
    pages = pages_of(30)
    texts = texts_of(pages) | {AS_TRAINED: texts_of(pages)[BASELINES[0]]}
    figures = measure(score_systems(pages, texts), np.full(30, 100), LONG)
    assert not is_better(figures[ALL])  # an interval from 0 to 0 is not above 0
    found["sets"]["test_seen"] |= figures
    found["target"]["test_seen"] = False
    page = results_page(found)
    assert "on test_seen and test_unseen: **not reached** (test_seen: **no**, test_unseen: yes)" in page
    assert "test_seen, over 512" not in page


def test_examples_depend_on_names_alone() -> None:
    pages = pages_of(40)
    drawn = draw(pages)
    assert len(drawn) == len(set(drawn)) == EXAMPLES
    assert drawn != sorted(drawn)
    names = [pages[i]["name"] for i in drawn]
    changed = [page | {"summary": "else", "document": "else"} for page in reversed(pages)]
    assert [changed[i]["name"] for i in draw(changed)] == names
    # One page more changes at most one example.
    assert len(set(names) - {page["name"] for page in [pages_of(41)[i] for i in draw(pages_of(41))]}) <= 1
    assert sorted(draw(pages[:3])) == [0, 1, 2]


def test_the_page_of_examples() -> None:
    _, pages, texts = hand_made()
    page = examples_page(pages, texts)
    assert page == examples_page(pages, texts)
    assert len(re.findall(r"^### ", page, re.MULTILINE)) == 2 * EXAMPLES
    first = pages["test_seen"][draw(pages["test_seen"])[0]]
    assert f"### {escape(first['name'])}(1)\n\n{first['package']}, 180 words\n" in page
    assert f"| reference | 6 | {first['summary']} |" in page
    assert page.count("| **model** | 6 |") == 2 * EXAMPLES


def test_markdown_shows_what_was_said() -> None:
    assert escape("a|b *c* _d_ <e> [f](g) `h` #i \\\n j") == (r"a\|b \*c\* \_d\_ \<e\> \[f\](g) \`h\` \#i \\ j")
    assert table(("a", "b"), [(1, escape("x|y"))], "rl") == "| a | b |\n| --: | --- |\n| 1 | x\\|y |"


# --- curves ---------------------------------------------------------------------------------------------------------


def training_line(updates: int, loss: float, name: bool = False) -> str:
    values = {
        "epoch": 1,
        "update": 0.5,
        "loss": str(loss),
        "num_updates": str(updates),
        "train_wall": "36",
        "wall": "0",
    }
    return ("2026-01-01 00:00:00 | INFO | train_inner | " if name else "") + json.dumps(values) + "\n"


def validation_line(updates: int, loss: float, **more: str) -> str:
    return json.dumps({"epoch": 1, "valid_loss": str(loss), "valid_num_updates": str(updates)} | more) + "\n"


def write_logs(folder: Path) -> list[Path]:
    """Two stages: one printed, one from a --log-file, stopped and gone on with from its checkpoint at update 20."""
    other = "2026-01-01 00:00:00 | INFO | fairseq_cli.train | {'_name': None}\nnot a line of the log\n"
    first = other + training_line(10, 9, name=True) + training_line(20, 8, name=True) + validation_line(20, 8.5)
    first += json.dumps({"epoch": 1, "train_loss": "8.4", "train_num_updates": "20"}) + "\n"
    second = training_line(10, 7) + 2 * training_line(20, 6) + validation_line(20, 6.5, valid_rougeL="30.5")
    second += training_line(30, 99) + training_line(40, 98) + validation_line(40, 97)
    second += training_line(30, 5) + 2 * validation_line(35, 5.5, valid_rougeL="31")
    paths = [folder / "first.log", folder / "second.log"]
    for path, text in zip(paths, (first, second), strict=True):
        path.write_text(text)
    return paths


def test_logs_are_read_one_after_the_other(tmp_path: Path) -> None:
    points = read_logs(write_logs(tmp_path))
    training = [(p.stage, p.updates, p.hours, p.loss) for p in points if p.kind == TRAINING]
    hours = [round(0.01 * n, 2) for n in range(1, 6)]
    assert [row[:2] for row in training] == [(1, 10), (1, 20), (2, 30), (2, 40), (2, 50)]
    assert [row[2] for row in training] == hours
    assert [row[3] for row in training] == [9, 8, 7, 6, 5]
    validation = [(p.updates, p.hours, p.loss, p.rougeL) for p in points if p.kind == VALIDATION]
    assert validation == [(20, 0.02, 8.5, None), (40, 0.04, 6.5, 30.5), (55, 0.05, 5.5, 31.0)]
    assert stage_ends(points, "updates") == [20]


def test_logs_without_progress_are_refused(tmp_path: Path) -> None:
    (tmp_path / "simple.log").write_text("2026-01-01 00:00:00 | INFO | train_inner | epoch 001: 1 / 2 loss=3\n")
    with pytest.raises(LSGError, match="--log-format json"):
        read_logs([tmp_path / "simple.log"])
    (tmp_path / "cut.log").write_text(training_line(10, 9) + training_line(20, 8)[:40])
    with pytest.raises(LSGError, match="line 2, is cut short"):
        read_logs([tmp_path / "cut.log"])
    with pytest.raises(LSGError, match="does not exist"):
        read_logs([tmp_path / "none.log"])


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the benchmarks extra")
    logs, out = write_logs(tmp_path), tmp_path / "out" / "curves.png"
    with pytest.raises(LSGError, match="PNG"):
        write_curves(logs, out.with_suffix(".json"))
    write_curves(logs, out)
    assert out.read_bytes().startswith(b"\x89PNG")
    points = json.loads(out.with_suffix(".json").read_text())
    assert points[0] == {"kind": TRAINING, "stage": 1, "updates": 10, "hours": 0.01, "loss": 9.0}
    assert points[-1]["rougeL"] == 31.0
