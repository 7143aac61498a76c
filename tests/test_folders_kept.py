"""Folders are written completely or left as they were, whoever else writes, wherever they are mounted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_preprocess import SCRIPT, run_main, write_jsonl

from lsg_fairseq.data import output_folder
from lsg_fairseq.data.one_sentence import in_one_sentence, sentence_of
from lsg_fairseq.data.output_folder import LOCK_NAME, MOVES_FILE, check_is_new, staged_output
from lsg_fairseq.data.signals import Stopped
from lsg_fairseq.data.split_files import check_pairs
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer, train_tokenizer


def content_of(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def write(folder: Path, error: Exception | None = None, theirs: bool = False) -> None:
    with staged_output(folder) as aside:
        (aside / "a").write_text("mine")
        if theirs:
            folder.mkdir()
            (folder / "a").write_text("theirs")
        if error:
            raise error


def rewrite(folder: Path) -> None:
    with staged_output(folder, ["old.*"]) as aside:
        (aside / "tokenizer").mkdir()
        for name in ("a.bin", "a.idx", "tokenizer/x"):
            (aside / name).write_text("new")


@pytest.fixture(params=["exchanged", "moved"])
def filled(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of an earlier run, on systems that can exchange folders and on others."""
    if request.param == "moved":
        monkeypatch.setattr(output_folder, "exchange", lambda *_: False)
    folder = tmp_path / "out"
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("a.bin", "a.idx", "old.bin", "kept", "tokenizer/y"):
        (folder / name).write_text("old")
    return folder


def test_an_existing_folder_keeps_its_other_files(filled: Path) -> None:
    (filled / "link").symlink_to("kept")
    rewrite(filled)
    new = dict.fromkeys(("a.bin", "a.idx", "tokenizer/x"), "new")
    assert content_of(filled) == {**dict.fromkeys(("kept", "link", "tokenizer/y"), "old"), **new}
    assert (filled / "link").is_symlink()
    assert list(filled.parent.iterdir()) == [filled]


def test_a_failure_changes_nothing(filled: Path) -> None:
    before = content_of(filled)
    with pytest.raises(RuntimeError):
        write(filled, RuntimeError())
    assert content_of(filled) == before
    assert list(filled.parent.iterdir()) == [filled]


def test_a_signal_waits_until_all_is_in_place(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    put = output_folder._put_in_place
    monkeypatch.setattr(output_folder, "_put_in_place", lambda *args: (signal.raise_signal(signal.SIGTERM), put(*args)))
    handler = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stopped) as stopped:
            rewrite(filled)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert stopped.value.done == f"{filled} is complete"
    assert content_of(filled)["a.bin"] == content_of(filled)["a.idx"] == "new"


@pytest.mark.parametrize("filled", ["moved"], indirect=True)
@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_killed_move_is_noticed_and_finished(filled: Path, moved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, done = Path.replace, []

    def die(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) > moved + 1:  # the first puts the list of moves in its place
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    if (child := os.fork()) == 0:
        monkeypatch.setattr(Path, "replace", die)
        rewrite(filled)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) == (moved < 3)
    if moved < 3:
        with pytest.raises(LSGError, match=r"lsg-preprocess was killed .* run it again"):
            check_pairs(filled, "train")
        with pytest.raises(LSGError, match="exists already"):
            check_is_new(filled)
        with staged_output(filled):
            pass
    assert {content_of(filled)[name] for name in ("a.bin", "a.idx", "tokenizer/x")} == {"new"}
    assert not {"old.bin", MOVES_FILE} & content_of(filled).keys()
    check_pairs(filled, "train")


@pytest.mark.parametrize("name", ["../precious", "{outside}", "a/../../precious", 7, "", "a\0b"])
@pytest.mark.parametrize("part", ["new", "outdated"])
def test_a_list_of_moves_stays_in_its_folder(part: str, name: object, tmp_path: Path) -> None:
    """A data folder that somebody sent may hold one."""
    precious, folder = tmp_path / "precious", tmp_path / "out"
    precious.write_text("mine")
    (folder / ".partial-0" / "a").mkdir(parents=True)
    name = name.format(outside=precious) if isinstance(name, str) else name
    moves = {"new": [], "outdated": [], part: [name]}
    (folder / ".partial-0" / MOVES_FILE).write_text(json.dumps(moves))
    with pytest.raises(LSGError, match=r"remove .*\.partial-0, and preprocess"), staged_output(folder):
        pass
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("content", ["", "[", "[]", "7", "{}", '{"new": 1, "outdated": []}', "[" * 9999])
def test_a_damaged_list_of_moves_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / ".partial-0").mkdir()
    (tmp_path / ".partial-0" / MOVES_FILE).write_text(content)
    with pytest.raises(LSGError, match="is damaged, or was not written by lsg-preprocess"), staged_output(tmp_path):
        pass


def test_somebody_works_in_the_folder(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their folder is not taken away under them."""
    (filled / "runs").mkdir()
    before = [(filled / "runs").stat().st_ino, filled.stat().st_ino]
    rewrite(filled)
    assert [(filled / "runs").stat().st_ino, filled.stat().st_ino] == before
    shutil.rmtree(filled / "runs")
    monkeypatch.chdir(filled)
    rewrite(filled)
    assert filled.stat().st_ino == before[1]
    assert content_of(Path())["a.bin"] == "new"


def test_new_means_new(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / LOCK_NAME).touch()
    (out / ".partial-dead").mkdir()
    check_is_new(out)
    with staged_output(out, must_be_new=True) as aside:
        (aside / "a").write_text("mine")
    assert content_of(out) == {"a": "mine"}
    with pytest.raises(LSGError, match="exists already"), staged_output(out, must_be_new=True):
        pass


def test_somebody_makes_the_folder_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LSGError, match="another process created"):
        write(out, theirs=True)
    assert content_of(tmp_path) == {"out/a": "theirs"}


def test_two_writers(tmp_path: Path) -> None:
    with staged_output(tmp_path / "out") as aside:
        with pytest.raises(LSGError, match="another process is writing"), staged_output(tmp_path / "out"):
            pass
        (aside / "a").write_text("mine")
    assert content_of(tmp_path) == {"out/a": "mine"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_existing_folder_in_a_parent_that_is_not_ours(filled: Path) -> None:
    for path in (filled, *filled.rglob("*")):
        os.chown(path, 65534, 65534)
    for folder in (filled.parent, *filled.parent.parents):
        folder.chmod(folder.stat().st_mode & 0o7755 | 0o55)
    if (child := os.fork()) == 0:
        os.setuid(65534)
        rewrite(filled)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert content_of(filled)["a.bin"] == "new"


# --- lsg-preprocess -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    path = write_jsonl(folder / "in.jsonl", [{"document": f"a cat {i} " * (i + 1), "summary": "b"} for i in range(9)])
    assert run_main("--train", path, "--out", folder / "out", "--train-tokenizer", 270, "--workers", 1) == 0
    return folder / "out"


@pytest.mark.parametrize("part", ["source.bin", "target.idx", "source.idx"])
def test_a_torn_pair_is_noticed(part: str, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    check_pairs(tmp_path / "data", "train")
    other = write_jsonl(tmp_path / "in.jsonl", [{"document": "dogs", "summary": "dog"}] * 3)
    assert run_main("--train", other, "--out", tmp_path / "data", "--workers", 1) == 0
    shutil.copy(data / f"train.source-target.{part}", tmp_path / "data")
    with pytest.raises(LSGError, match=r"train\.source-target\..* does not belong to train\.source-target"):
        check_pairs(tmp_path / "data", "train")


@pytest.mark.parametrize(
    ("place", "kind", "value"), [(9, "<Q", 2), (17, "<B", 99), (18, "<Q", 2**40), (26, "<i", -5), (-8, "<q", -5)]
)
def test_a_damaged_index_is_noticed(place: int, kind: str, value: int, data: Path, tmp_path: Path) -> None:
    """Its version, its type, the number of items, a length, and where the last one starts."""
    shutil.copytree(data, tmp_path / "data")
    path = tmp_path / "data" / "train.source-target.source.idx"
    content = bytearray(path.read_bytes())
    struct.pack_into(kind, content, place % len(content), value)
    path.write_bytes(content)
    with pytest.raises(LSGError, match=r"does not belong to train\.source-target\.source\.idx, or"):
        check_pairs(tmp_path / "data", "train")


def test_sides_of_two_runs_are_noticed(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    other = write_jsonl(tmp_path / "in.jsonl", [{"document": "dogs", "summary": "dog"}] * 3)
    assert run_main("--train", other, "--out", tmp_path / "data", "--workers", 1) == 0
    for end in ("bin", "idx"):
        shutil.copy(data / f"train.source-target.source.{end}", tmp_path / "data")
    with pytest.raises(LSGError, match=r"9 examples in .*source.idx and 3 examples in .*, which must correspond"):
        check_pairs(tmp_path / "data", "train")


def test_an_input_is_not_replaced(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data, tmp_path / "data")
    os.link(tmp_path / "data" / "dict.txt", tmp_path / "documents.txt")
    before = (tmp_path / "documents.txt").read_bytes()
    assert run_main("--test", tmp_path / "documents.txt", "--out", tmp_path / "data") == 1
    assert "is an input and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "documents.txt").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"splits": 7, "tokenizer": {}}', "{}", '"x"', "\xff"])
def test_a_damaged_report_is_one_sentence(
    content: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "preprocess.json").write_bytes(content.encode("latin-1"))
    (tmp_path / "new.txt").write_text("a cat\n")
    assert run_main("--test", tmp_path / "new.txt", "--out", tmp_path / "data", "--workers", 1) == 1
    assert "preprocess.json is damaged" in capsys.readouterr().err


def test_workers_end_with_a_killed_parent(data: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "big.jsonl", [{"document": "some words " * 2000, "summary": "b"}] * 2000)
    command = [SCRIPT, "--train", path, "--out", tmp_path / "out", "--tokenizer", data / "tokenizer", "--workers", 2]
    process = subprocess.Popen([sys.executable, *map(str, command)], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.partial-*/train*.bin")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.kill()
    process.wait()
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("workers outlived their parent")
    small = write_jsonl(tmp_path / "small.jsonl", [{"document": "words", "summary": "b"}])
    assert run_main("--train", small, "--out", tmp_path / "out", "--tokenizer", data / "tokenizer") == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# --- one sentence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (LSGError("what\n was wrong"), "what was wrong"),
        (OSError(28, "No space left on device", "f"), "No space left on device: 'f': free some space"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (KeyError("x" * 10_000), "something unexpected went wrong (KeyError: 'xxx"),
    ],
)
def test_an_error_is_one_sentence(error: Exception, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert part in sentence_of(error)
    assert len(sentence_of(error)) < 500
    monkeypatch.delenv("LSG_TRACEBACK", raising=False)
    with pytest.raises(LSGError) as raised, in_one_sentence():
        raise error
    assert part.split()[0] in str(raised.value)
    monkeypatch.setenv("LSG_TRACEBACK", "1")
    with pytest.raises(type(error)), in_one_sentence():
        raise error


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"mask_token": 7}),
        ("tokenizer_config.json", {"mask_token": {"lstrip": True}}),
        ("tokenizer_config.json", {"tokenizer_class": ["BartTokenizer"]}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "y"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": None}}),
        ("tokenizer_config.json", {"add_prefix_space": "yes"}),
        ("special_tokens_map.json", [["a", "b"]]),
        ("added_tokens.json", {"<x>": "7"}),
        ("tokenizer.json", {"model": None}),
        ("vocab.json", {"a": "b"}),
    ],
)
def test_a_damaged_tokenizer_is_one_sentence(name: str, content: object, tmp_path: Path) -> None:
    train_tokenizer(["a cat"], 270, tmp_path)
    if name != "tokenizer.json":
        (tmp_path / "tokenizer.json").unlink()
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(LSGError, match=name):
        load_tokenizer(tmp_path)


def test_null_is_not_stated(tmp_path: Path) -> None:
    tokens = train_tokenizer(["a cat"], 270, tmp_path).tokens
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": None, "added_tokens_decoder": None, "mask_token": None, "strip_accents": None})
    )
    assert load_tokenizer(tmp_path).tokens == tokens
