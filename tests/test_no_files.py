"""What is named like a file and is none: devices, which have no end, pipes, folders."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
import torch

from lsg_fairseq.commands import average
from lsg_fairseq.compat.loading import DamagedCheckpointError, load_checkpoint_file
from lsg_fairseq.data import text_lines
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Inputs, has_journal, journal_of
from lsg_fairseq.tasks.data_folders import check_data_folders

needs_zero = pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")


@needs_zero
def test_a_device_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DamagedCheckpointError, match="/dev/zero is a device or a pipe"):
        load_checkpoint_file("/dev/zero", mmap=True)
    with open("/dev/zero", "rb") as file, pytest.raises(DamagedCheckpointError, match="is a device or a pipe"):
        load_checkpoint_file(file)
    assert average.main(["/dev/zero", "/dev/zero", "--output", str(tmp_path / "out.pt")]) == 1
    assert "/dev/zero is a device" in capsys.readouterr().err


def test_a_checkpoint_in_memory_is_read() -> None:
    file = io.BytesIO()
    torch.save({"model": {}}, file)
    file.seek(0)
    assert load_checkpoint_file(file) == {"model": {}}


def test_lines_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_TEXT", 8)
    path = tmp_path / "in.txt"
    path.write_bytes(b"1234567\n1234567\n")
    assert len(list(Inputs([path], one_per_line=True).read())) == 2
    with pytest.raises(LSGError, match=r"in\.txt is larger than 8 bytes, .*: split it"):
        list(Inputs([path]).read())
    path.write_bytes(b"1\n123456789")
    with pytest.raises(LSGError, match=r"in\.txt, line 2, is larger than 8 bytes"):
        list(Inputs([path], one_per_line=True).read())


@pytest.mark.parametrize(
    "name", ["dict.source.txt", "train.source-target.source.bin", "train.source-target.source.idx"]
)
def test_data_are_in_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "dict.target.txt").write_text("a 1\n")
    assert check_data_folders(str(tmp_path)) == tmp_path
    (tmp_path / name).symlink_to(os.devnull)
    with pytest.raises(LSGError, match=f"{name} is not a regular file"):
        check_data_folders(str(tmp_path))


@pytest.mark.parametrize("header", [{"settings": 7}, {"settings": None}, [], {"settings": {"inputs": []}}])
def test_journals_of_any_content(header: object, tmp_path: Path) -> None:
    journal_of(tmp_path / "out.jsonl").write_text(json.dumps(header) + "\n")
    assert has_journal(tmp_path / "out.jsonl") == (header == {"settings": {"inputs": []}})
