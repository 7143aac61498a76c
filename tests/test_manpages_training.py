"""From a small BERT and a few pages to a summarizer, by the stages that the real one is trained in."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from encoder_models import build_hf_model, write_hf_folder

from lsg_fairseq.modules.lsg_config import LSGError
from manpages.training import start as start_module
from manpages.training.start import START, StartPlan, make_start
from manpages.training.train import STAGES, model_flags, train_all

PLAN = StartPlan(vocabulary=60, decoder_layers=(1,), positions=40, longest=64)
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


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Corpora of a few examples; MiniLM is a BERT of two layers."""
    bert = write_hf_folder(build_hf_model("bert", "BertModel", vocab_size=len(PIECES)), tmp_path / "bert")
    (bert / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    monkeypatch.setattr(start_module, "fetch_minilm", lambda _: bert)
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("descriptions_train", "descriptions_valid", "train", "valid"):
        write_examples(folder / f"{split}.jsonl", 8)
    return folder


def write_examples(path: Path, number: int) -> None:
    rows = [{"document": f"bad {'abcdefghij'[n]} " * 30, "summary": f"a {'abcdefghij'[n]} bad"} for n in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_start_is_made_once(data: Path) -> None:
    make_start(data, PLAN)
    model = data / START / "lsg" / "model.pt"
    before = model.stat().st_mtime_ns
    make_start(data, PLAN)
    assert model.stat().st_mtime_ns == before


def test_start_follows_the_corpus(data: Path) -> None:
    """Other words, another vocabulary; what was made before goes."""
    make_start(data, PLAN)
    assert "bad" in (data / START / "short" / "vocab.txt").read_text().split()
    assert "j" not in (data / START / "short" / "vocab.txt").read_text().split()
    write_examples(data / "train.jsonl", 10)
    make_start(data, PLAN)
    assert "j" in (data / START / "short" / "vocab.txt").read_text().split()


def test_flags_have_the_sizes_of_the_start(data: Path) -> None:
    make_start(data, PLAN)
    flags = dict(zip(*[iter(model_flags(data / START / "short"))] * 2, strict=True))
    assert (flags["--encoder-layers"], flags["--decoder-layers"], flags["--decoder-embed-dim"]) == (2, 1, 16)
    assert (flags["--encoder-attention-heads"], flags["--decoder-ffn-embed-dim"]) == (2, 24)


def test_corpora_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_module, "fetch_minilm", lambda _: tmp_path)
    with pytest.raises(LSGError, match=r"descriptions_train.jsonl does not exist: run python -m manpages.descriptions"):
        make_start(tmp_path, PLAN)


@pytest.mark.slow
def test_all_stages(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every stage begins as what the one before it made; a second run does nothing."""
    positions = {"descriptions": 40, "pages": 40, "long": 80}
    small = {"max_tokens": 256, "updates": 2, "warmup": 1}
    stages = [replace(stage, positions=positions[stage.name], **small) for stage in STAGES]
    train_all(data, PLAN, stages)
    assert all((data / f"model-{stage.name}" / "checkpoint_last.pt").is_file() for stage in stages)
    assert "loaded checkpoint model-pages/checkpoint_last.pt" in (data / "train-long.log").read_text()
    capfd.readouterr()
    train_all(data, PLAN, stages)
    assert capfd.readouterr().out == ""
