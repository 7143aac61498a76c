"""lsg-summarize's outputs: never an input, never two runs in one file, never a reference replaced."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from lsg_fairseq.data.output_folder import only_writer
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Document, Inputs, journal_of
from lsg_fairseq.summarizing.resumable_output import (
    LineFormat,
    ResumableOutput,
    Run,
    StreamOutput,
    content_of_inputs,
    open_output,
)

RUN = Run({"beam": 4, "inputs": ["in"]}, {"in": "aa", "the checkpoint m": "bb"})
DOCUMENTS = [Document(f"text {i}", {"id": i, "document": f"text {i}"}) for i in range(3)]


def write_lines(path: Path, run: Run = RUN, documents: list[Document] = DOCUMENTS, stop: int = 3) -> None:
    """A run whose only window is `documents`, killed after `stop` lines."""
    lines = LineFormat(as_json=True)
    with open_output(path, run, False, lines) as output:
        output.begin_window(documents, 0)
        for place, document in enumerate(documents[:stop]):
            if place < output.num_written:
                output.check(document, place)
            else:
                output.write(lines.line(document, "s"))
        if stop == len(documents):
            output.end_window()


# --- an output that is an input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["same", "hard link", "symlink", "other spelling", "journal", "standard input"])
def test_an_input_is_no_output(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"document": "a"}\n')
    if how == "hard link":
        os.link(source, output)
    elif how == "symlink":
        output.symlink_to(source)
    elif how == "same":
        output = source
    elif how == "other spelling":
        (tmp_path / "x").mkdir()
        output = tmp_path / "x" / ".." / "in.jsonl"
    elif how == "journal":
        source = journal_of(output)
        source.write_text('{"document": "a"}\n')
    paths = [source]
    if how == "standard input":
        output, paths = source, []
        monkeypatch.setattr(sys, "stdin", source.open())
    with pytest.raises(LSGError, match=r"both .*input and output: give another --output"):
        _ = Inputs(paths, output=output).files


def test_a_folder_is_read_without_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text('{"document": "a"}\n')
    (tmp_path / "own.jsonl").write_text("{}\n")
    (tmp_path / "other.jsonl.journal").write_text('{"an": "other program\'s"}\n')
    (tmp_path / "other.jsonl").write_text('{"document": "b"}\n')
    write_lines(tmp_path / "earlier.jsonl")
    inputs = Inputs([tmp_path], output=tmp_path / "own.jsonl")
    with caplog.at_level("INFO"):
        assert [path.name for path in inputs.files] == ["a.jsonl", "other.jsonl"]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: skipped earlier.jsonl, written by lsg-summarize"
    ]
    (tmp_path / "late.jsonl").write_text('{"document": "c"}\n')
    assert [document.text for document in inputs.read()] == ["a", "b"]


def test_a_folder_of_outputs_alone_has_no_documents(tmp_path: Path) -> None:
    write_lines(tmp_path / "earlier.jsonl")
    with pytest.raises(LSGError, match="has no documents"):
        _ = Inputs([tmp_path]).files


# --- a reference is kept --------------------------------------------------------------------------------------------


def test_a_summary_of_its_own_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    lines = LineFormat(as_json=True)
    with caplog.at_level("INFO"):
        written = [
            json.loads(lines.line(Document("a", {"summary": "mine"}), "new")),
            json.loads(lines.line(Document("a", {"id": 1}), "new")),
            json.loads(lines.line(Document("a", {"summary": "mine"}), "new")),
        ]
    assert written == [
        {"summary": "mine", "generated_summary": "new"},
        {"id": 1, "summary": "new"},
        {"summary": "mine", "generated_summary": "new"},
    ]
    assert [record.message for record in caplog.records] == [
        "objects that already have a 'summary' keep it, and get the new one as 'generated_summary'"
    ]
    assert json.loads(LineFormat(True, "x").line(Document("a", {"summary": 1}), "s")) == {"summary": 1, "x": "s"}


@pytest.mark.parametrize(
    ("record", "name"), [({"summary": 1, "generated_summary": 2}, None), ({"x": None}, "x")], ids=["both", "named"]
)
def test_no_field_is_replaced(record: dict[str, object], name: str | None) -> None:
    with pytest.raises(LSGError, match=r"f, line 3: the object already has the field .*give another"):
        LineFormat(True, name).line(Document("a", record, "f, line 3"), "s")


# --- two runs in one file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            Run({**RUN.settings, "beam": 5}, RUN.content),
            r"was begun with a different beam \(4, not 5\): use",
        ),
        (Run(RUN.settings, {**RUN.content, "in": "ab"}), "was begun with different content of in: use --overwrite"),
        (Run(RUN.settings, {**RUN.content, "the checkpoint m": "b"}), "with different content of the checkpoint m"),
    ],
    ids=["setting", "input", "checkpoint"],
)
def test_a_changed_run_is_refused(run: Run, message: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "out", stop=2)
    before = (tmp_path / "out").read_bytes()
    with pytest.raises(LSGError, match=message):
        write_lines(tmp_path / "out", run)
    assert (tmp_path / "out").read_bytes() == before
    write_lines(tmp_path / "out")
    assert (tmp_path / "out").read_bytes().count(b"\n") == 3


def test_other_documents_of_a_stream_are_refused(tmp_path: Path) -> None:
    """The content of standard input is in no header."""
    with open_output(tmp_path / "out", RUN, False, LineFormat()) as output:
        output.begin_window(DOCUMENTS, 0)
        output.write("s")
    with (
        pytest.raises(LSGError, match="begun with different documents \\(among the first 3\\)"),
        open_output(tmp_path / "out", RUN, False, LineFormat()) as output,
    ):
        output.begin_window([*DOCUMENTS[:2], Document("else")], 0)
    with open_output(tmp_path / "out", RUN, False, LineFormat()) as output:
        output.begin_window(DOCUMENTS, 0)
        assert output.num_written == 1


def test_a_run_that_wrote_nothing_holds_nobody_up(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_output(tmp_path / "out", RUN, False, LineFormat()):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").touch()
    journal_of(tmp_path / "out").write_bytes(Run({"inputs": []}, {}).header())  # what a kill leaves
    write_lines(tmp_path / "out")
    assert len((tmp_path / "out").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "damage",
    [b"{nope\n", b'{"a": 1}\n', b"[1]\n", b'{"place": "x", "summary": 7}\n', b"\xff\xfe\x00\n", b"[" * 5000 + b"\n"],
)
def test_a_damaged_journal_costs_what_it_held(damage: bytes, tmp_path: Path) -> None:
    write_lines(tmp_path / "out", stop=1)
    with journal_of(tmp_path / "out").open("ab") as journal:
        journal.write(b'{"place": 1, "summary": "kept"}\n' + damage + b'{"place": 2, "summary": "lost"}\n')
    with open_output(tmp_path / "out", RUN, False, LineFormat(as_json=True)) as output:
        assert isinstance(output, ResumableOutput)
        assert (output.num_written, output.finished) == (1, {1: "kept"})


@pytest.mark.parametrize("header", [b"{nope\n", b"[1]\n", b'{"settings": 1}\n', b'{"inputs": []}\n'])
def test_a_damaged_header_is_one_sentence(header: bytes, tmp_path: Path) -> None:
    write_lines(tmp_path / "out")
    journal_of(tmp_path / "out").write_bytes(header)
    with pytest.raises(LSGError, match=r"begun by a different version, or out.journal is damaged: use --overwrite"):
        write_lines(tmp_path / "out")


def test_nuls_of_a_power_cut_are_dropped(tmp_path: Path) -> None:
    write_lines(tmp_path / "out", stop=1)
    with (tmp_path / "out").open("ab") as file:
        file.write(b"\0" * 200 + b"\n")
    write_lines(tmp_path / "out")
    assert [json.loads(line)["id"] for line in (tmp_path / "out").read_text().splitlines()] == [0, 1, 2]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / "out.lock", tmp_path / "out"),
        pytest.raises(LSGError, match="another process is writing"),
    ):
        write_lines(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out.lock").touch()  # what a kill leaves
    write_lines(tmp_path / "out")
    assert not (tmp_path / "out.lock").exists()


def test_a_device_gets_lines_and_no_journal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with open_output(tmp_path / "pipe", RUN, False, LineFormat()) as output:
        assert type(output) is StreamOutput
        output.write("line")
        assert os.read(reader, 100) == b"line\n"
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_inputs_are_known_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = content_of_inputs([tmp_path / "a", Path("/dev/null")])
    (tmp_path / "a").write_text("2")
    after = content_of_inputs([tmp_path / "a"])
    assert list(before) == list(after) == [str(tmp_path / "a")]
    assert before != after
