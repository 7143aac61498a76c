"""config.json's prefix: what transformers' summarization pipeline puts in front of every document."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import write_jsonl
from reference_checkpoints import REFERENCE

import lsg_fairseq.hub as hub
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.commands.summarize import main as summarize_main
from lsg_fairseq.huggingface.generation_config import source_prefix
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import on_one_line


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")
def test_prefix_is_put_in_front_of_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As bart-large-cnn's; encode stays what it is."""
    source = tmp_path / "hf"
    shutil.copytree(REFERENCE / "models" / "bart_n1024_short", source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"prefix": "sum up: "}))
    plan = convert_checkpoint(source, tmp_path / "out", 2048)
    assert any("prefix 'sum up: ' is put in front of a document" in note for note in plan.source.notes)
    lsg = hub.lsg_bart_base(tmp_path / "out")
    settings = {"beam": 2, "max_len_b": 8, "progress": False}
    documents = [json.loads(line) for line in write_jsonl(tmp_path / "test.jsonl", [12, 40], seed=0).open()]
    texts = [document["document"] for document in documents]
    assert lsg.prefix == "sum up: "
    assert len(lsg.encode(texts[0])) < len(lsg.encode(lsg.prefix + texts[0]))
    summaries = lsg.summarize(texts, **settings)
    assert list(lsg.summarize_stream(texts, **settings)) == summaries
    out = tmp_path / "out.jsonl"
    flags = ["--checkpoint", tmp_path / "out", "--output", out, "--beam", 2, "--max-len-b", 8, "--device", "cpu"]
    assert summarize_main([*map(str, flags), str(tmp_path / "test.jsonl")]) == 0
    assert out.read_text(encoding="utf-8").splitlines() == [on_one_line(summary) for summary in summaries]
    refuses_another_prefix(tmp_path / "out", [*map(str, flags), str(tmp_path / "test.jsonl")], capsys)
    lsg.prefix = ""
    assert lsg.summarize([f"sum up: {text}" for text in texts], **settings) == summaries
    assert lsg.summarize(" ", **settings) == ""


def refuses_another_prefix(folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An output is continued with the prefix that it was begun with."""
    path = folder / "hf_config.json"
    original = path.read_text()
    path.write_text(original.replace("sum up: ", "in short: "))
    capsys.readouterr()
    assert summarize_main(command) == 1
    assert "checkpoint" in capsys.readouterr().err
    path.write_text(original)
    assert summarize_main(command) == 0


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        ({}, ""),
        ({"prefix": None}, ""),
        ({"prefix": " "}, " "),
        ({"prefix": " ", "task_specific_params": {"summarization": {"prefix": "summarize: "}}}, "summarize: "),
        ({"prefix": " ", "task_specific_params": {"translation": {"prefix": "translate: "}}}, " "),
    ],
)
def test_prefix_of_a_configuration(config: dict[str, object], prefix: str) -> None:
    assert source_prefix(config) == prefix


def test_prefix_that_is_no_text() -> None:
    with pytest.raises(LSGError, match="must state prefix as a string, not 7"):
        source_prefix({"prefix": 7})
