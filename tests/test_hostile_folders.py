"""Folders, files and names that are not what they seem: nothing outside is touched, nothing hangs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

from lsg_fairseq.checkpoints.find import find
from lsg_fairseq.commands import preprocess
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.compat.commands import sentence_of as told
from lsg_fairseq.compat.generating import buffered_read
from lsg_fairseq.data.one_sentence import sentence_of
from lsg_fairseq.data.output_folder import MOVES_FILE, PARTIAL, staged_file, staged_output
from lsg_fairseq.data.split_files import check_pairs, languages_file, read_languages
from lsg_fairseq.huggingface.config_fields import stated_names
from lsg_fairseq.huggingface.generation_config import source_prefix
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Inputs, has_journal
from lsg_fairseq.summarizing.resumable_output import LineFormat, Run, open_output
from lsg_fairseq.tasks.data_folders import check_files, is_name_of_split, missing_split
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationTask
from lsg_fairseq.tasks.summarization_config import LSGSummarizationConfig
from lsg_fairseq.tokenizers.load import load_tokenizer
from lsg_fairseq.weights.limits import MAX_SETTINGS, check_file

EXAMPLE = json.dumps({"document": "a cat", "summary": "cat"}) + "\n"


@pytest.mark.parametrize("moves", [{"new": ["link/x"], "outdated": []}, {"new": [], "outdated": ["link/mine"]}])
def test_a_list_of_moves_touches_nothing_outside(moves: dict[str, list[str]], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine").write_text("kept")
    partial = tmp_path / "sent" / f"{PARTIAL}1"
    (partial / "link").mkdir(parents=True)
    (partial / "link" / "x").write_text("evil")
    (partial / MOVES_FILE).write_text(json.dumps(moves))
    (tmp_path / "sent" / "link").symlink_to(tmp_path / "home")
    with pytest.raises(LSGError, match="is a link that leads out of"), staged_output(tmp_path / "sent"):
        pass
    assert {path.name: path.read_text() for path in (tmp_path / "home").iterdir()} == {"mine": "kept"}


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / ".lsg-lock").symlink_to(tmp_path / "mine")
    with pytest.raises(LSGError, match="is a link to another file"), staged_output(tmp_path / "sent"):
        pass
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_device_is_not_replaced_and_a_link_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LSGError, match="is no file, and would be replaced"), staged_file(tmp_path / "pipe"):
        pass
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with staged_file(tmp_path / "link") as staged:
        staged.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "target"]


def test_a_journal_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.jsonl.journal")
    (tmp_path / "out.jsonl").write_text("{}\n")
    assert not has_journal(tmp_path / "out.jsonl")
    with pytest.raises(LSGError, match="the journal of the output, is no file"):  # noqa: SIM117
        with open_output(tmp_path / "out.jsonl", Run({}, {}), False, LineFormat()):
            pass
    (tmp_path / "mine").write_text("kept\n")
    (tmp_path / "new.jsonl.journal").symlink_to("mine")
    with pytest.raises(LSGError, match="the journal of the output, is a link"):  # noqa: SIM117
        with open_output(tmp_path / "new.jsonl", Run({}, {}), False, LineFormat()):
            pass
    assert (tmp_path / "mine").read_text() == "kept\n"


def test_a_checkpoint_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    for name in ("last.pt", "copy.pt"):
        (tmp_path / f"{name}.tmp").symlink_to("mine")
    checkpoint_utils.torch_persistent_save({"x": 1}, str(tmp_path / "last.pt"))
    checkpoint_utils.PathManager.copy(str(tmp_path / "last.pt"), str(tmp_path / "copy.pt"))
    assert (tmp_path / "mine").read_text() == "kept"
    assert torch.load(tmp_path / "copy.pt", weights_only=True) == {"x": 1}


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(LSGError, match="is a device or a pipe"):
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "model.pt"))


def test_a_pipe_is_not_read_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "in.jsonl")
    assert preprocess.main(["--train", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]) == 1
    assert "is a pipe or a device, and inputs are read more than once" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt"])
def test_files_of_holes_take_no_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with (tmp_path / name).open("wb") as file:
        file.truncate(100 * MAX_SETTINGS)
    with pytest.raises(LSGError, match=f"{name} is larger than"):
        load_tokenizer(tmp_path)
    (tmp_path / name).rename(tmp_path / "dict.source.txt")
    with pytest.raises(LSGError, match=r"dict\.source\.txt is larger than"):
        check_files(tmp_path)
    check_file(tmp_path / "missing")


def test_names_that_are_no_text_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/n\xe9")
    assert run_command("program", lambda: print(f"wrote {name}")) == 0
    assert capsys.readouterr().out.endswith("/n\\udce9\n")
    path = Path(f"{name}.jsonl")
    path.write_text(EXAMPLE)
    assert [document.text for document in Inputs([path]).read()] == ["a cat"]
    for use in (find, load_tokenizer, lambda folder: staged_output(folder).__enter__()):
        with pytest.raises(LSGError, match="is no UTF-8, and what reads and writes models needs that"):
            use(name)


@pytest.mark.parametrize("split", ["", "/etc/passwd", "../train", "a\0b", "x" * 300])
def test_a_split_is_no_path(split: str, tmp_path: Path) -> None:
    assert not is_name_of_split(split)
    assert "\0" not in str(missing_split(tmp_path, split))
    assert is_name_of_split("train")
    assert "there is no train split in" in str(missing_split(tmp_path, "train"))


@pytest.mark.parametrize("change", [lambda lines: lines[1:], lambda lines: ["\ufeff" + lines[0], *lines[1:]]])
def test_a_dictionary_is_that_of_the_tokenizer_beside_it(
    change: Callable[[list[str]], list[str]], corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus, tmp_path / "data")
    LSGSummarizationTask.setup_task(LSGSummarizationConfig(data=str(tmp_path / "data")))
    path = tmp_path / "data" / "dict.target.txt"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    with pytest.raises(LSGError, match="is not that of the tokenizer beside it"):
        LSGSummarizationTask.setup_task(LSGSummarizationConfig(data=str(tmp_path / "data")))


def test_an_index_that_is_cut_early_is_named(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "data")
    path = tmp_path / "data" / "valid.source-target.target.idx"
    path.write_bytes(path.read_bytes()[:18])
    with pytest.raises(LSGError, match="is cut within its beginning"):
        check_pairs(tmp_path / "data", "valid")


def test_ids_beyond_the_dictionary_are_said() -> None:
    with pytest.raises(IndexError) as raised:
        torch.nn.functional.embedding(torch.tensor([7]), torch.zeros(3, 2))
    assert "ids that are not in the dictionary" in told(raised.value)


def test_text_that_is_no_utf_8_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"a cat\nb\xe9r\n")
    with pytest.raises(LSGError, match=r"in\.txt, line 2, is not UTF-8 text \(byte 2"):
        list(buffered_read(str(tmp_path / "in.txt"), 1))
    languages_file(tmp_path, "train").write_bytes(b"\xff\xfe\n")
    with pytest.raises(LSGError, match="two language codes in each of 2 lines"):
        read_languages(tmp_path, "train", 2)


def test_fields_of_other_kinds_are_one_sentence() -> None:
    for config in ({"task_specific_params": [1]}, {"task_specific_params": {"summarization": 7}}):
        with pytest.raises(LSGError, match="as an object"):
            source_prefix(config)
    with pytest.raises(LSGError, match="architectures as a list of names"):
        stated_names({"architectures": 7})


def test_what_is_nested_too_deeply_says_so() -> None:
    assert "deeper than Python reads" in sentence_of(RecursionError("maximum recursion depth exceeded"))


def test_an_output_in_another_encoding_says_so() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        "caf\u00e9".encode("ascii")
    assert sentence_of(raised.value) == "the output takes no 'é' (ascii): set PYTHONIOENCODING=utf-8"
