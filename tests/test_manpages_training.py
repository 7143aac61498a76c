"""From a small BERT and a few pages to a summarizer, by the stages that the real one is trained in."""

import json
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from encoder_models import build_hf_model, write_hf_folder

from examples.manpages.training import start as start_module
from examples.manpages.training import texts, warm_start
from examples.manpages.training import train as train_module
from examples.manpages.training.start import START, StartPlan, make_start, start_facts
from examples.manpages.training.train import STAGES, Stage, model_flags, train_all
from lsg_fairseq.modules.lsg_config import LSGError
from recipes.stages import Stages

PLAN = StartPlan(vocabulary=60, decoder_layers=(1,), positions=40, longest=64)
POSITIONS = {"descriptions": 40, "openings": 40, "mixture": 40, "long": 80}
SMALL = [replace(stage, positions=POSITIONS[stage.name], max_tokens=256, updates=2, warmup=1) for stage in STAGES]
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghij",
    *(f"##{letter}" for letter in "abcdefghij"),
    "bad",
]
MODELS = ["model-descriptions", "model-openings", "model-mixture", "model-long"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What takes MiniLM's place: a BERT of two layers."""
    folder = tmp_path_factory.mktemp("minilm") / "bert"
    write_hf_folder(build_hf_model("bert", "BertModel", vocab_size=len(PIECES)), folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder


@pytest.fixture
def data(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Corpora of a few examples."""
    monkeypatch.setattr(start_module, "fetch_minilm", lambda _: bert)
    return write_corpora(tmp_path / "data")


def write_corpora(folder: Path) -> Path:
    folder.mkdir()
    for split in ("descriptions_train", "descriptions_valid", "train", "valid"):
        write_examples(folder / f"{split}.jsonl", 8)
    return folder


def write_examples(path: Path, number: int) -> None:
    rows = [{"document": f"bad {'abcdefghij'[n]} " * 30, "summary": f"a {'abcdefghij'[n]} bad"} for n in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# --- the start ------------------------------------------------------------------------------------------------------


def test_start_is_made_once(data: Path) -> None:
    make_start(data, PLAN)
    model = data / START / "lsg" / "model.pt"
    before = model.stat().st_mtime_ns
    make_start(data, PLAN)
    assert model.stat().st_mtime_ns == before
    model.unlink()
    make_start(data, PLAN)
    assert model.is_file()
    shutil.rmtree(data / START)
    make_start(data, PLAN)
    assert model.is_file()


def test_start_follows_the_corpus(data: Path) -> None:
    """Other words, another vocabulary; what was made before goes."""
    make_start(data, PLAN)
    (data / START / "left over").touch()
    assert "bad" in (data / START / "short" / "vocab.txt").read_text().split()
    assert "j" not in (data / START / "short" / "vocab.txt").read_text().split()
    write_examples(data / "train.jsonl", 10)
    make_start(data, PLAN)
    assert "j" in (data / START / "short" / "vocab.txt").read_text().split()
    assert not (data / START / "left over").exists()


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (start_module, "WHEEL_SHA256", "0"),
        (start_module, "FITTED", 3),
        (start_module, "SUMMARY_WEIGHT", 3),
        (warm_start, "SETTINGS", "{}"),
        (warm_start, "LONGEST", 7),
        (warm_start, "RIDGE", 0.5),
        (warm_start, "INITIAL_STD", 0.5),
        (warm_start, "SEED", 7),
    ],
)
def test_start_follows_every_setting(
    data: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, value: object
) -> None:
    before = start_facts(data, PLAN)
    assert start_facts(data, PLAN) == before != start_facts(data, replace(PLAN, decoder_layers=(0,)))
    monkeypatch.setattr(module, name, value)
    assert start_facts(data, PLAN) != before


def test_values_are_fitted_on_texts_from_all_over_both_corpora(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def reader(_: Path, __: object, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        read.extend(text.split()[1] for text in texts)
        return torch.eye(16), torch.zeros(16)

    monkeypatch.setattr(start_module, "embedding_reader", reader)
    monkeypatch.setattr(start_module, "FITTED", 5)
    write_examples(data / "train.jsonl", 2)
    make_start(data, PLAN)
    assert read == ["a", "c", "e", "g", "a"]  # of abcdefgh and ab
    assert start_module.evenly_spaced([{}] * 3, 5) == [{}] * 3


def test_flags_have_the_sizes_of_the_start(data: Path) -> None:
    make_start(data, PLAN)
    flags = dict(zip(*[iter(model_flags(data / START / "short"))] * 2, strict=True))
    assert (flags["--encoder-layers"], flags["--decoder-layers"], flags["--decoder-embed-dim"]) == (2, 1, 16)
    assert (flags["--encoder-attention-heads"], flags["--decoder-ffn-embed-dim"]) == (2, 24)


def test_corpora_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_module, "fetch_minilm", lambda _: tmp_path)
    with pytest.raises(LSGError, match=r"descriptions_train.jsonl does not exist: run python -m examples.manpages"):
        make_start(tmp_path, PLAN)


# --- what follows from what -----------------------------------------------------------------------------------------


class Rehearsal(Stages):
    """Stages whose commands take no time: each makes a file in its folder, named after itself."""

    ran: ClassVar[list[str]] = []
    stops_in: ClassVar[str] = ""

    def _run(self, name: str, command: list[str]) -> int:
        self.ran.append(name)
        (self.folder / f"{name}.log").write_text("")
        flag, file = ("--out", "dict.txt") if command[0] == "lsg-preprocess" else ("--save-dir", "checkpoint_last.pt")
        folder = self.folder / command[command.index(flag) + 1]
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(str(len(self.ran)))
        if name == self.stops_in:
            raise KeyboardInterrupt
        return 0


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> type[Rehearsal]:
    monkeypatch.setattr(train_module, "Stages", Rehearsal)
    monkeypatch.setattr(Rehearsal, "ran", [])
    monkeypatch.setattr(Rehearsal, "stops_in", "")
    return Rehearsal


@pytest.fixture(scope="module")
def all_trained(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages rehearsed."""
    folder = write_corpora(tmp_path_factory.mktemp("trained") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_module, "fetch_minilm", lambda _: bert)
        patch.setattr(train_module, "Stages", Rehearsal)
        train_all(folder, PLAN, SMALL)
    return folder


@pytest.fixture
def trained(all_trained: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, at another place: that does not matter."""
    monkeypatch.setattr(start_module, "fetch_minilm", lambda _: bert)
    return Path(shutil.copytree(all_trained, tmp_path / "data"))


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(name: str, **values: float) -> list[Stage]:
    return [replace(stage, **values) if stage.name == name else stage for stage in SMALL]


def test_what_is_trained_is_not_trained_again(
    trained: Path, rehearsal: type[Rehearsal], capsys: pytest.CaptureFixture[str]
) -> None:
    before = content_of(trained)
    train_all(trained, PLAN, SMALL)
    assert rehearsal.ran == []
    assert capsys.readouterr().out == ""
    assert content_of(trained) == before
    assert {path.parent.name for path in trained.rglob("made_from.json")} == {START, *MODELS, *texts.TEXTS}


CHANGES: dict[str, tuple[Callable[[Path], tuple[StartPlan, list[Stage]]], int]] = {
    "updates": (lambda _: (PLAN, changed("openings", updates=3)), 1),
    "learning rate": (lambda _: (PLAN, changed("descriptions", learning_rate=1.0)), 0),
    "the last stage": (lambda _: (PLAN, changed("long", max_tokens=512)), 3),
    "decoder layers": (lambda _: (replace(PLAN, decoder_layers=(1, 0)), SMALL), 0),
    "pages": (lambda data: write_examples(data / "train.jsonl", 9) or (PLAN, SMALL), 0),
    "validation pages": (lambda data: write_examples(data / "valid.jsonl", 9) or (PLAN, SMALL), 1),
    "validation": (lambda data: write_examples(data / "descriptions_valid.jsonl", 9) or (PLAN, SMALL), 0),
}


@pytest.mark.parametrize(("change", "first"), CHANGES.values(), ids=CHANGES)
def test_weights_of_other_settings_are_not_taken_for_new(
    trained: Path, rehearsal: type[Rehearsal], change: Callable[[Path], tuple[StartPlan, list[Stage]]], first: int
) -> None:
    """The folder is named, and those that follow; nothing is lost or made; when they are removed, they are trained."""
    plan, stages = change(trained)
    before = content_of(trained)
    with pytest.raises(LSGError, match="was begun with other settings or data") as caught:
        train_all(trained, plan, stages)
    said = str(caught.value)
    assert said.startswith(f"{trained}/{MODELS[first]} was begun")
    assert all((name in said) == (number >= first) for number, name in enumerate(MODELS))
    assert "or give another --data" in said
    assert (content_of(trained), rehearsal.ran) == (before, [])
    for name in MODELS[first:]:
        shutil.rmtree(trained / name)
    train_all(trained, plan, stages)
    assert [name for name in rehearsal.ran if name.startswith("train")] == [
        f"train-{stage.name}" for stage in stages[first:]
    ]
    rehearsal.ran.clear()
    train_all(trained, plan, stages)
    assert rehearsal.ran == []


def test_binarized_data_are_made_anew(
    trained: Path, rehearsal: type[Rehearsal], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in MODELS:
        shutil.rmtree(trained / name)
    write_examples(trained / "valid.jsonl", 9)
    (trained / "data-pages" / "left over").touch()
    train_all(trained, PLAN, SMALL)
    remade = [f"preprocess-data-{name}" for name in ("openings", "mixture", "pages")]
    assert rehearsal.ran == [*remade, *(f"train-{stage.name}" for stage in SMALL)]
    assert (
        f"{trained}/data-pages does not follow from these settings and data: it is made anew" in capsys.readouterr().out
    )
    assert not (trained / "data-pages" / "left over").exists()
    shutil.rmtree(trained / "data-descriptions")
    rehearsal.ran.clear()
    train_all(trained, PLAN, SMALL)
    assert rehearsal.ran == ["preprocess-data-descriptions"]


def test_checkpoints_of_unknown_origin_are_refused(trained: Path, rehearsal: type[Rehearsal]) -> None:
    (trained / "model-openings" / "made_from.json").unlink()
    with pytest.raises(LSGError, match=r"/model-openings was begun .* follows from it \(model-mixture, model-long\)"):
        train_all(trained, PLAN, SMALL)
    (trained / "model-openings" / "checkpoint_last.pt").unlink()
    train_all(trained, PLAN, SMALL)
    assert rehearsal.ran == ["train-openings"]


def test_a_model_that_is_gone_is_trained_again(trained: Path, rehearsal: type[Rehearsal]) -> None:
    shutil.rmtree(trained / "model-long")
    train_all(trained, PLAN, SMALL)
    assert rehearsal.ran == ["train-long"]
    (trained / "model-long" / "checkpoint_last.pt").unlink()
    train_all(trained, PLAN, SMALL)
    assert rehearsal.ran == ["train-long"] * 2


def test_a_stopped_stage_is_guarded_too(data: Path, rehearsal: type[Rehearsal]) -> None:
    rehearsal.stops_in = "train-openings"
    with pytest.raises(KeyboardInterrupt):
        train_all(data, PLAN, SMALL)
    rehearsal.stops_in = ""
    with pytest.raises(LSGError, match=r"/model-openings was .* \(command\): remove it to train anew, or give another"):
        train_all(data, PLAN, changed("openings", updates=3))
    rehearsal.ran.clear()
    train_all(data, PLAN, SMALL)
    assert rehearsal.ran == ["train-openings", "train-mixture", "train-long"]


def test_openings_follow_the_pages_and_their_length(
    trained: Path, rehearsal: type[Rehearsal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another length is other data; what is written is each page's first words, and all else of it."""
    monkeypatch.setattr(texts, "WORDS", 3)
    with pytest.raises(LSGError, match=r"/model-openings was begun with other settings or data"):
        train_all(trained, PLAN, SMALL)
    assert rehearsal.ran == []
    for name in MODELS[1:]:
        shutil.rmtree(trained / name)
    train_all(trained, PLAN, SMALL)
    remade = ["preprocess-data-openings", "preprocess-data-mixture"]
    assert rehearsal.ran == [*remade, "train-openings", "train-mixture", "train-long"]
    rows = [json.loads(line) for line in (trained / "train_3_words.jsonl").read_text().splitlines()]
    assert rows[1] == {"document": "bad b bad", "summary": "a b bad"}
    assert len(rows) == 8


def test_make_knows_the_stages() -> None:
    """Its curves are of every stage in order, and its results are of the last one and the one before."""
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    names = " ".join(stage.name for stage in STAGES)
    assert f"$(foreach stage,{names},$(MANPAGES)/model-$(stage)/train.log)" in makefile
    assert f"TRAINED := $(MANPAGES)/{STAGES[-1].folder}/checkpoint_last.pt\n" in makefile
    assert f"--short-model $(MANPAGES)/{STAGES[-1].begins_as}\n" in makefile


def test_a_mixture_has_more_than_pages(tmp_path: Path) -> None:
    """Openings, pages from DESCRIPTION on if more than a line stands before it, and the texts of another split."""
    synopsis, text = "SYNOPSIS\n\n" + "tool [-f file] " * 30, "DESCRIPTION\n\n" + "It sorts. " * 90
    documents = [f"{synopsis}\n\n{text}", text, f"SYNOPSIS\n\ntool\n\n{text}", "A DESCRIPTION of it. " * 99]
    examples = {"train": documents, "descriptions_train": ["a package " * 200]}
    for split, chosen in examples.items():
        rows = [{"document": document, "summary": f"{split} {number}"} for number, document in enumerate(chosen)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts.write_mixture(tmp_path, "train", "descriptions_train")
    rows = [json.loads(line) for line in (tmp_path / texts.mixture_of("train")).read_text().splitlines()]
    assert [row["summary"] for row in rows] == [*(f"train {n}" for n in (0, 1, 2, 3, 0)), "descriptions_train 0"]
    cut = [texts.cut(document, texts.WORDS) for document in documents]
    assert [row["document"] for row in rows] == [*cut, texts.cut(text, texts.WORDS), "a package " * 200]


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [("a b  c\n\nd e", 4, "a b  c\n\nd"), ("aa a", 2, "aa a"), (" b ab", 1, " b"), ("", 3, ""), ("a b", 9, "a b")],
)
def test_cutting_keeps_white_space(text: str, words: int, expected: str) -> None:
    assert texts.cut(text, words) == expected


# --- by fairseq -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_stages(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every stage begins as what the one before it made; a second run does nothing."""
    train_all(data, PLAN, SMALL)
    for stage in SMALL:
        assert (data / stage.folder / "checkpoint_last.pt").is_file()
        log = (data / f"train-{stage.name}.log").read_text()
        assert f"loading pretrained model from {stage.begins_as}: optimizer, lr scheduler" in log
        assert f"loaded checkpoint {stage.begins_as}" in log.lower()
        assert (data / stage.folder / "train.log").stat().st_size
    capfd.readouterr()
    train_all(data, PLAN, SMALL)
    assert capfd.readouterr().out == ""


def stop_at(checkpoint: Path) -> None:
    """Ctrl-C as soon as the file is there as a whole."""
    while not (checkpoint.is_file() and zipfile.is_zipfile(checkpoint)):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_an_interrupted_stage_goes_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"--save-interval-updates": "20", "--log-interval": "5"}
    flags = [changes.get(before, flag) for before, flag in pairwise(["", *train_module.TRAINING])]
    monkeypatch.setattr(train_module, "TRAINING", [*flags, "--save-interval", "1000"])
    stages = [replace(SMALL[0], updates=100)]
    folder = data / stages[0].folder
    watcher = threading.Thread(target=stop_at, args=[folder / "checkpoint_last.pt"], daemon=True)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        train_all(data, PLAN, stages)
    watcher.join(10)
    stopped = json.loads((data / "train-descriptions.stopped.json").read_text())
    train_all(data, PLAN, stages)
    log = (data / "train-descriptions.log").read_text()
    assert "loading pretrained model" not in log
    assert "Loaded checkpoint model-descriptions/checkpoint_last.pt (epoch" in log
    assert '"num_updates": "100"' in log
    assert '"num_updates": "5"' not in log
    record = json.loads((data / "train-descriptions.json").read_text())
    assert record["seconds"] > stopped["seconds"] > 0
