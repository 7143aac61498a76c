"""What a string is, resolved once for every command and the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsg_fairseq.checkpoints import find as finding
from lsg_fairseq.checkpoints.find import FAIRSEQ, FORMATS, HUGGING_FACE, Format, find, find_at
from lsg_fairseq.checkpoints.folder_files import find_tokenizer
from lsg_fairseq.huggingface.download import Revision
from lsg_fairseq.modules.lsg_config import LSGError


def touched(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("name", ["model.pt", "checkpoint_best.pt", "checkpoint_last.pt"])
def test_fairseq_files_and_their_folders(tmp_path: Path, name: str) -> None:
    file = touched(tmp_path / name)
    touched(tmp_path / "config.json")
    assert (find(file).format, find(file).path) == (FAIRSEQ, file)
    assert find(tmp_path) == find(str(file))


def test_best_comes_before_last(tmp_path: Path) -> None:
    touched(tmp_path / "checkpoint_last.pt")
    best = touched(tmp_path / "checkpoint_best.pt")
    assert find(tmp_path).path == best


def test_hugging_face_folder(tmp_path: Path) -> None:
    touched(tmp_path / "config.json")
    assert (find(tmp_path).format, find(tmp_path).path) == (HUGGING_FACE, tmp_path)


def test_paths_before_entries_before_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "find_revision", lambda hub_id, asked: Revision(hub_id, asked, "0" * 40, None))
    monkeypatch.chdir(tmp_path)
    entries = {"lsg_x": "owner/x"}
    assert find("lsg_x", "v2", entries).revision == Revision("owner/x", "v2", "0" * 40, None)
    assert find("owner/y").revision.hub_id == "owner/y"
    file = touched(Path("lsg_x"))
    assert find("lsg_x", entries=entries).path == file


@pytest.mark.parametrize("name", ["nothing", "a/b.pt", "a/b/c", "./a/b"])
def test_what_does_not_exist(name: str) -> None:
    with pytest.raises(LSGError, match="does not exist: give a Hugging Face folder, a converted folder"):
        find(name)


def test_a_path_has_no_revision_and_an_empty_folder_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(LSGError, match="revision 'main' has no meaning"):
        find(tmp_path, "main")
    with pytest.raises(LSGError, match="holds no checkpoint"):
        find(tmp_path)


def test_a_format_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Format("own", lambda path: path / "own.bin" if (path / "own.bin").is_file() else None, lambda *_: "opened")
    monkeypatch.setattr(finding, "FORMATS", (*FORMATS, own))
    touched(tmp_path / "own.bin")
    assert find_at(tmp_path).open() == "opened"


def test_tokenizer_beside_the_checkpoint_then_with_its_data(tmp_path: Path) -> None:
    model, data = tmp_path / "run" / "checkpoint_best.pt", tmp_path / "data"
    task = {"data": f"{data}:other"}
    assert find_tokenizer(model, None, task) is None
    touched(data / "tokenizer" / "tokenizer.json")
    touched(data / "dict.source.txt")
    assert find_tokenizer(model, None, task) == (data / "tokenizer", data)
    touched(model.parent / "tokenizer" / "tokenizer.json")
    assert find_tokenizer(model, None, task)[0] == model.parent / "tokenizer"
    given = touched(tmp_path / "given" / "tokenizer.json").parent
    assert find_tokenizer(model, given, task)[0] == given
