"""What is made of a trained model: answers in order and complete, intervals, pages for people, training curves."""

from __future__ import annotations

import ast
import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, run

from benchmarks.answers import read_answers
from benchmarks.stages import Stages
from lsg_fairseq.checkpoints.loading import CheckpointFiles
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.tokenization import load_tokenizer
from manpages.corpus.records import TEST_SETS
from manpages.evaluation.answering import (
    AS_TRAINED,
    GENERATION,
    SHORT,
    VARIANTS,
    answer,
    binarize,
    open_run,
    source_tokens,
)
from manpages.evaluation.baselines import mean_scores, read_predictions, write_predictions
from manpages.evaluation.bootstrap import paired_bootstrap
from manpages.evaluation.example_page import EXAMPLES, draw, examples_page
from manpages.evaluation.markdown import escape, table
from manpages.evaluation.results_text import TITLES, results_page
from manpages.evaluation.scores import ALL, BASELINES, LONGER, is_better, measure, score_systems
from manpages.training.curves import stage_ends, write_curves
from manpages.training.training_log import TRAINING, VALIDATION, read_logs

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
    assert paired_bootstrap(scores, scores) == (0.0, 0.0, 0.0)


def test_the_interval_is_of_pairs() -> None:
    """A constant difference is certain, however much the scores themselves vary."""
    scores = np.random.default_rng(0).integers(0, 100, 50).astype(float)
    assert paired_bootstrap(scores + 3, scores) == (3.0, 3.0, 3.0)


def test_exchanging_the_systems_turns_the_interval_round() -> None:
    a, b = np.random.default_rng(0).random((2, 50))
    mean, low, high = paired_bootstrap(a, b, resamples=500)
    assert low < mean < high
    assert paired_bootstrap(b, a, resamples=500) == pytest.approx((-mean, -high, -low))


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = np.random.default_rng(0).random((2, 50))
    assert paired_bootstrap(a, b, 500, seed=1) == paired_bootstrap(list(a), list(b), 500, seed=1)
    assert paired_bootstrap(a, b, 500, seed=1) != paired_bootstrap(a, b, 500, seed=2)


def test_four_times_the_examples_halve_the_interval() -> None:
    a, b = np.random.default_rng(0).random((2, 1600))
    widths = [high - low for _, low, high in (paired_bootstrap(a[:n], b[:n], 2000) for n in (100, 400, 1600))]
    assert [wide / narrow for wide, narrow in pairwise(widths)] == pytest.approx([2, 2], rel=0.2)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [paired_bootstrap(rng.normal(1, 2, 60), rng.normal(0, 2, 60), 300)[1:] for _ in range(300)]
    covered = np.mean([low <= 1 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.98  # of 300 intervals: 0.95 but for 3 standard errors and the small samples' bias


@pytest.mark.parametrize(("a", "b", "resamples"), [([1.0], [1.0, 2.0], 10), ([], [], 10), ([1.0], [1.0], 0)])
def test_what_has_no_interval(a: list[float], b: list[float], resamples: int) -> None:
    with pytest.raises(LSGError, match=r"scores must be of the same examples|at least 1 resample"):
        paired_bootstrap(a, b, resamples)


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

    assert folder(b"1", 3) == folder(b"1", 3) != folder(b"2", 3)
    assert len({folder(b"1", 3), folder(b"1", 4), folder(b"2", 3)}) == 3
    assert (folder(b"2", 3) / "checkpoint.pt").read_bytes() == b"2"
    with pytest.raises(LSGError, match="test_seen is without pages"):
        folder(b"1", 0)


def test_baselines_must_be_of_these_pages(tmp_path: Path) -> None:
    pages = pages_of(5)
    with pytest.raises(LSGError, match=r"run python -m manpages.evaluation.baselines"):
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
    stages = open_run(files, {"test_seen": pages}, tmp_path)
    binarize(stages, "test_seen")
    encode = load_tokenizer(corpus / "tokenizer").encode
    assert source_tokens(stages, "test_seen").tolist() == [len(encode(page["document"])) + 2 for page in pages]
    assert len(answer(stages, "test_seen", "full_attention")) == 5
    seconds = [stage["seconds"] for stage in stages.finished.values()]
    again = Stages(stages.folder)
    binarize(again, "test_seen")
    assert answer(again, "test_seen", "full_attention") == answer(stages, "test_seen", "full_attention")
    assert [stage["seconds"] for stage in again.finished.values()] == seconds  # not run, but remembered
    assert str(tmp_path) not in json.dumps(again.finished)


@pytest.mark.slow
def test_results_from_end_to_end(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    data, pages = tmp_path / "data", pages_of(4)
    data.mkdir()
    for split in TEST_SETS:
        (data / f"{split}.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
        write_predictions(pages, {name: texts_of(pages)[name] for name in BASELINES}, data / f"{split}.baselines.jsonl")
    flags = ["--model", checkpoints, "--data", data, "--out", tmp_path / "out", "--limit", 3]
    printed = run(sys.executable, "-m", "manpages.evaluation.results", *flags, cwd=REPOSITORY)
    assert "Target, the lower end of the interval above 0" in printed
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [written["sets"][split][ALL]["pages"] for split in TEST_SETS] == [3, 3]
    assert written["checkpoint"]["parameters"] > 10_000
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "results.md", "examples.md"}


# --- scores and pages for people ------------------------------------------------------------------------------------


def hand_made() -> tuple[dict, dict, dict]:
    """results.json, pages and texts, of 30 pages a set, 10 of them long."""
    pages = {split: pages_of(30) for split in TEST_SETS}
    texts = {split: texts_of(records) for split, records in pages.items()}
    tokens = np.array([100] * 20 + [SHORT + 1] * 9 + [5000])
    sets = {
        s: {"seconds": dict.fromkeys(VARIANTS, 60)} | measure(score_systems(pages[s], texts[s]), tokens) for s in pages
    }
    found = {
        "checkpoint": {"bytes": 1000, "sha256": "0", "parameters": 500, "settings": {"block_size": 128}},
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
        for system, said in texts[split].items():
            assert figures[ALL]["scores"][system] == mean_scores(pages[split], said)
            assert figures[LONGER]["scores"][system] == mean_scores(pages[split][20:], said[20:])
        assert figures[ALL]["differences"].keys() == TITLES.keys() - {AS_TRAINED}


def test_no_page_no_figures() -> None:
    pages = pages_of(3)
    found = measure(score_systems(pages, texts_of(pages)), np.array([10, 20, 30]))
    assert found[LONGER] == {"pages": 0}


def test_results_are_told() -> None:
    found, _, _ = hand_made()
    page = results_page(found)
    assert "10 of 30 pages of test_seen are over 512 tokens long and 1 over 4,096" in page
    assert len(re.findall(r"^\| test_\w+, ", page, re.MULTILINE)) == 2 * 2 * (len(TITLES) + len(TITLES) - 1)
    assert "| test_unseen, all | 30 | as trained | 100.00 | 100.00 | 100.00 | 60 |" in page
    assert "both sets: reached (test_seen: yes, test_unseen: yes)" in page


def test_a_missed_target_is_told() -> None:
    found, _, _ = hand_made()
    pages = pages_of(30)
    texts = texts_of(pages) | {AS_TRAINED: texts_of(pages)[BASELINES[0]]}
    figures = measure(score_systems(pages, texts), np.full(30, 100))
    assert not is_better(figures[ALL])  # an interval from 0 to 0 is not above 0
    found["sets"]["test_seen"] |= figures
    found["target"]["test_seen"] = False
    page = results_page(found)
    assert "both sets: **not reached** (test_seen: **no**, test_unseen: yes)" in page
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
