"""lsg-convert and lsg-export: whole folders in and out, and what they refuse."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, SUMMARIZATION, run, write_jsonl
from live_models import build_lsg_model
from reference_checkpoints import FAMILIES, REFERENCE, differing
from safetensors.torch import load_file, save_file
from test_restore import stock_bart, write_stock_checkpoint

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.commands.convert import main as convert_main
from lsg_fairseq.commands.export import main as export_main
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.data.generation_settings import read_generation_settings

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")
MODELS = REFERENCE / "models"
SMALL_BLOCKS = {"block_size": 16, "sparse_block_size": 16}
ONE_THREAD = ["--cpu", "--batch-size", 2, "--no-progress-bar", "--num-workers", 0]


def load_converted(folder: Path) -> torch.nn.Module:
    files = CheckpointFiles(folder / "model.pt", folder, folder / "tokenizer")
    return load_task_and_model(files, Overrides())[1]


def write_hf(source: str, folder: Path, **config: Any) -> Path:
    """A copy of a reference folder with other entries in its config.json."""
    shutil.copytree(MODELS / source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


# --- whole commands -------------------------------------------------------------------------------------------------


def test_bart_on_binarized_data(tmp_path: Path) -> None:
    """The two commands of the README: convert, then fairseq-generate on data of the same tokenizer."""
    source = write_hf(
        "bart_n1024_short", tmp_path / "hf", num_beams=3, max_length=12, min_length=5, forced_bos_token_id=0
    )
    out, script = tmp_path / "out", REPOSITORY / "scripts" / "convert_hf_checkpoint.py"
    printed = run(sys.executable, script, source, out, "--max-source-positions", 1500, "--block-size", 16)
    assert "source positions: 1,024 -> 1,500" in printed
    settings = {"beam": 3, "min_len": 4, "max_len_b": 10, "forced_first_token": "<s>", "forced_eos": True}
    assert read_generation_settings(out) == settings
    assert not (out / "generation.args").exists()
    documents = write_jsonl(tmp_path / "test.jsonl", [10, 100, 400], seed=0)
    flags = ["--test", documents, "--out", tmp_path / "data", "--tokenizer", out / "tokenizer", "--workers", 1]
    run(sys.executable, REPOSITORY / "scripts" / "preprocess.py", *flags)
    command = ["fairseq-generate", tmp_path / "data", *SUMMARIZATION, "--path", out / "model.pt", *ONE_THREAD]
    # fairseq's default, and the user's choice all the same.
    printed = run(*command, "--beam", 5)
    taken = "min_len=4, max_len_b=10, forced_first_token='<s>', forced_eos=True"
    assert f"generation settings: {taken} taken from {out}/generation.json; chosen by the user: beam\n" in printed
    hypotheses = [line for line in printed.splitlines() if line.startswith("H-")]
    assert sorted(line.split("\t")[0] for line in hypotheses) == ["H-0", "H-1", "H-2"]
    # The forced first token costs nothing.
    scores = [line.split("\t")[1].split() for line in printed.splitlines() if line.startswith("P-")]
    assert [first for first, *_ in scores] == ["0.0000"] * 3


def test_pegasus_on_raw_text(tmp_path: Path) -> None:
    """fairseq-interactive reads and writes text, with the converted folder as its data."""
    out = tmp_path / "out"
    convert_checkpoint(MODELS / "pegasus_n1024_short", out, lsg=SMALL_BLOCKS)
    words = ["--min-len", 3, "--max-len-b", 5]
    text = "The cat sat on a mat.\n" + "Rain fell on the old river banks. " * 20 + "\n"
    command = ["fairseq-interactive", out, *SUMMARIZATION, "--path", out / "model.pt", *words, "--cpu"]
    printed = run(*command, stdin=text)
    assert [line.split("\t")[0] for line in printed.splitlines() if line.startswith("D-")] == ["D-0", "D-1"]
    assert "generation.json; chosen by the user: min_len\n" in printed


# --- conversion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_converted_folder_is_the_model(family: str, tmp_path: Path) -> None:
    convert_checkpoint(MODELS / f"{family}_n1024_short", tmp_path / "out", 2048, lsg=SMALL_BLOCKS)
    expected, _ = build_lsg_model(f"{family}_n1024_short", SMALL_BLOCKS, 2048)
    assert differing(load_converted(tmp_path / "out").state_dict(), expected.state_dict()) == []
    content = load_checkpoint_file(tmp_path / "out" / "model.pt")
    assert content["cfg"]["model"].lsg_block_size == 16
    assert content["cfg"]["task"]["_name"] == "lsg_summarization"
    assert torch.load(tmp_path / "out" / "model.pt", weights_only=True)["cfg"]["model"]["lsg_block_size"] == 16


@pytest.mark.parametrize("family", FAMILIES)
def test_lengthened_again(family: str, tmp_path: Path) -> None:
    """A converted LSG model, and through it a Hugging Face one, made longer; the global table stays as trained."""
    convert_checkpoint(MODELS / f"{family}_lsg", tmp_path / "first")
    plan = convert_checkpoint(tmp_path / "first", tmp_path / "second", 2000, 600)
    assert plan.args["lsg_block_size"] == (128 if family == "bart" else 32)
    state = load_checkpoint_file(tmp_path / "second" / "model.pt")["model"]
    trained = load_file(MODELS / f"{family}_lsg" / "model.safetensors")["model.encoder.global_embeddings.weight"]
    assert torch.equal(state["encoder.global_embeddings.weight"], trained)
    offset = 2 if family == "bart" else 0
    assert len(state["encoder.embed_positions.weight"]) == 2000 + offset
    assert len(state["decoder.embed_positions.weight"]) == 600 + offset
    assert (tmp_path / "second" / "hf_config.json").is_file()


def test_stock_fairseq_bart(corpus: Path, tmp_path: Path) -> None:
    """bart.large's layout, with dict.txt beside it; the tokenizer is named, as fairseq's own is of another kind."""
    folder = tmp_path / "bart.large"
    folder.mkdir()
    write_stock_checkpoint(corpus, folder / "model.pt")
    lines = (corpus / "dict.source.txt").read_text().splitlines(keepends=True)
    (folder / "dict.txt").write_text("".join(line for line in lines if not line.startswith("<mask>")))
    plan = convert_checkpoint(folder, tmp_path / "bare", 128, lsg=SMALL_BLOCKS)
    assert "name a Hugging Face one with --tokenizer" in plan.source.notes[0]
    convert_checkpoint(folder / "model.pt", tmp_path / "out", 128, lsg=SMALL_BLOCKS, tokenizer=corpus / "tokenizer")
    model = load_converted(tmp_path / "out")
    assert model.encoder.dictionary.symbols[-1] == "<mask>"
    bare = load_checkpoint_file(tmp_path / "bare" / "model.pt")["model"]
    assert differing(model.state_dict(), bare) == []
    expected = stock_bart(model.encoder.dictionary)[0].state_dict()["decoder.layers.1.fc2.weight"]
    assert torch.equal(bare["decoder.layers.1.fc2.weight"], expected)


def test_fine_tuned_bart_without_mask_row(tmp_path: Path) -> None:
    """bart-large-cnn's layout: the tokenizer has `<mask>`, and the embedding ends before it."""
    source = write_hf("bart_n1024_short", tmp_path / "hf", vocab_size=339)
    tensors = load_file(source / "model.safetensors")
    tensors["model.shared.weight"] = tensors["model.shared.weight"][:-1].clone()
    tensors["final_logits_bias"] = tensors["final_logits_bias"][:, :-1].clone()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    convert_checkpoint(source, tmp_path / "out", 1024, lsg=SMALL_BLOCKS)
    model = load_converted(tmp_path / "out")
    assert "<mask>" not in model.encoder.dictionary
    export_checkpoint(tmp_path / "out", tmp_path / "back", short=True)
    assert differing(load_file(tmp_path / "back" / "model.safetensors"), tensors) == []


def test_dry_run_and_revision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_main([str(MODELS / "bart_lsg"), str(tmp_path / "out"), "--dry-run", "--num-global-tokens", "7"]) == 0
    assert "num_global_tokens=7" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert convert_main([str(MODELS / "bart_lsg"), str(tmp_path / "out"), "--revision", "main"]) == 1
    assert "is a path: leave it out" in capsys.readouterr().err


# --- export ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bart_lsg", "pegasus_lsg", "bart_n1100_to1500", "pegasus_n1024_to2048"])
def test_there_and_back(model: str, tmp_path: Path) -> None:
    """Tensors bit for bit, and a config.json that says what the original's did."""
    convert_checkpoint(MODELS / model, tmp_path / "out")
    assert export_main([str(tmp_path / "out"), str(tmp_path / "hf")]) == 0
    tensors = [load_file(folder / "model.safetensors") for folder in (MODELS / model, tmp_path / "hf")]
    assert differing(*tensors) == []
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (MODELS / model, tmp_path / "hf"))
    assert {k: v for k, v in after.items() if k != "auto_map"} == {k: v for k, v in before.items() if k != "auto_map"}
    convert_checkpoint(tmp_path / "hf", tmp_path / "again")
    both = [load_checkpoint_file(tmp_path / name / "model.pt")["model"] for name in ("out", "again")]
    assert differing(*both) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_short_export_is_the_original(family: str, tmp_path: Path) -> None:
    """Lengthened and not trained: --short gives the original back, and transformers loads it."""
    import transformers

    source = MODELS / f"{family}_n1100_short"
    convert_checkpoint(source, tmp_path / "out", 1500, lsg=SMALL_BLOCKS)
    export_checkpoint(tmp_path / "out", tmp_path / "hf", short=True)
    assert differing(*(load_file(folder / "model.safetensors") for folder in (source, tmp_path / "hf"))) == []
    models = [transformers.AutoModelForSeq2SeqLM.from_pretrained(folder) for folder in (source, tmp_path / "hf")]
    assert differing(*(model.state_dict() for model in models)) == []


# --- what is refused ------------------------------------------------------------------------------------------------


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def spoil(kind: str, folder: Path) -> None:
    """Break a copy of a Hugging Face folder in one way."""
    weights = folder / "model.safetensors"
    if kind == "no_config":
        (folder / "config.json").unlink()
    elif kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif kind == "code":
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.shared.weight": Code()}))
    elif kind == "shard":
        weights.rename(folder / "model-00001-of-00002.safetensors")
        names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    elif kind == "tokenizer":
        for name in ("vocab.json", "merges.txt", "tokenizer.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.copy(MODELS / "pegasus_lsg" / "spiece.model", folder)


BAD_FOLDERS = [
    ("no_config", {}, [], "it has no config.json"),
    (
        "type",
        {"model_type": "t5"},
        [],
        "'t5' is not supported: give a checkpoint whose config.json says bart, pegasus, mbart, bert",
    ),
    ("truncated", {}, [], "is damaged or truncated"),
    ("code", {}, [], "was refused: it is damaged or holds something other than tensors, which could run code"),
    ("shard", {}, [], "model-00002-of-00002.safetensors', which is missing"),
    ("size", {"vocab_size": 4000}, [], "the checkpoint has 4000 embedding rows and its tokenizer 340 tokens"),
    ("tokenizer", {}, [], "the tokenizer"),
    ("width", {"d_model": 64}, [], "misshapen"),
    ("cut", {}, ["--max-target-positions", "100"], "target position table cannot be cut from the 512"),
    ("cut_source", {}, ["--max-source-positions", "100"], "source position table cannot be cut from the 512"),
    ("setting", {}, ["--num-global-tokens", "513"], "num_global_tokens must be 1 to 512, not 513"),
]


@pytest.mark.parametrize(("kind", "config", "flags", "words"), BAD_FOLDERS, ids=[bad[0] for bad in BAD_FOLDERS])
def test_bad_input_is_one_sentence_and_writes_nothing(
    kind: str, config: dict[str, Any], flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_hf("bart_lsg", tmp_path / "hf", **config)
    spoil(kind, source)
    assert convert_main([str(source), str(tmp_path / "out"), *flags]) == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.splitlines()[-1].startswith("lsg-convert: error: ")
    assert "this must not run" not in captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_existing_output_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    assert convert_main([str(MODELS / "bart_lsg"), str(tmp_path / "out")]) == 1
    assert export_main([str(MODELS / "bart_lsg"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("exists already: choose another name") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_no_such_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_main([str(tmp_path / "nothing.pt"), str(tmp_path / "out")]) == 1
    assert export_main([str(tmp_path), str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert "does not exist: give a Hugging Face folder" in errors
    assert "holds no checkpoint: it has no config.json" in errors
