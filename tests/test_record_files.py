"""Documents in whatever file: the same records from each format in both readers, and damage in one sentence."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from lsg_fairseq.data import json_arrays, text_lines
from lsg_fairseq.data.document_files import Split
from lsg_fairseq.data.record_files import LINES, kind_of, read_records, text_of
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Document, Inputs
from lsg_fairseq.summarizing.resumable_output import LineFormat

RECORDS = [
    {"id": i, "paper": {"title": f"t{i}"}, "document": f'"é]\\,{{\u2028 \U0001f600 {i}\n' * (i + 1), "summary": f"s{i}"}
    for i in range(9)
]


def write_array(path: Path, records: list[Any]) -> None:
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_parquet(path: Path, records: list[Any]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=4)


def compressed(write: Callable[[Path, list[Any]], None]) -> Callable[[Path, list[Any]], None]:
    def write_compressed(path: Path, records: list[Any]) -> None:
        write(path, records)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write_compressed


FORMATS: dict[str, Callable[[Path, list[Any]], None]] = {
    "a.jsonl": write_lines,
    "lines.json": write_lines,
    "a.json": write_array,
    "a.parquet": write_parquet,
    "a.jsonl.gz": compressed(write_lines),
    "a.json.gz": compressed(write_array),
    "lines.json.gz": compressed(write_lines),
}


# --- the same from every format -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_same_records(name: str, tmp_path: Path) -> None:
    FORMATS[name](tmp_path / name, RECORDS)
    inputs = Inputs([tmp_path])
    documents = list(inputs.read())
    assert [document.record for document in documents] == RECORDS
    assert [document.text for document in documents] == [record["document"] for record in RECORDS]
    assert inputs.count() == (None if name.startswith("a.json") and "jsonl" not in name else len(RECORDS))
    split = Split("train", [tmp_path / name, tmp_path / name], summary_field="paper.title")
    examples = [(example.document, example.summary) for example in split.read()]
    assert examples == 2 * [(record["document"], record["paper"]["title"]) for record in RECORDS]


def test_compressed_text(tmp_path: Path) -> None:
    for name in ("documents", "summaries"):
        (tmp_path / f"{name}.txt.gz").write_bytes(gzip.compress(f"{name} 1\n{name} 2\n".encode()))
    paths = [tmp_path / f"{name}.txt.gz" for name in ("documents", "summaries")]
    assert [(e.document, e.summary) for e in Split("train", paths).read()] == [
        (f"documents {i}", f"summaries {i}") for i in (1, 2)
    ]
    assert [document.text for document in Inputs(paths[:1]).read()] == ["documents 1\ndocuments 2"]
    assert [document.text for document in Inputs(paths[:1], one_per_line=True).read()] == ["documents 1", "documents 2"]
    assert Inputs(paths, one_per_line=True).count() == 4


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=20) | st.floats(allow_nan=False)), max_size=5),
       st.integers(1, 40), st.sampled_from([None, 1]))  # fmt: skip
def test_arrays_do_not_depend_on_where_they_are_cut(records: list[Any], chunk: int, indent: int | None) -> None:
    import io

    content = json.dumps(records, ensure_ascii=chunk % 2 == 0, indent=indent).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "CHUNK", chunk)
        assert [value for _, value in json_arrays.array_elements(io.BytesIO(content), "f")] == records


def test_an_array_is_read_an_object_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_arrays, "CHUNK", 1000)
    write_array(tmp_path / "a.json", [{"document": "x" * 500}] * 2000)
    with (tmp_path / "a.json").open("rb") as file:
        for number, _ in json_arrays.array_elements(file, "a.json"):
            assert file.tell() <= 530 * number + 3000


def test_rows_of_a_group_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    """What is damaged in the second group of rows is no matter before; columns that nobody asks for are not read."""
    path = tmp_path / "a.parquet"
    write_parquet(path, RECORDS)
    column = parquet.ParquetFile(path).metadata.row_group(1).column(2)
    assert column.path_in_schema == "document"
    content = bytearray(path.read_bytes())
    content[column.dictionary_page_offset : column.dictionary_page_offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    read = []
    with pytest.raises(LSGError, match=r"a.parquet is not a Parquet file, or is damaged after row 4 \("):
        read += [record["id"] for _, record in read_records(path, "Parquet")]
    records = read_records(path, "Parquet")
    assert [next(records)[1]["id"] for _ in range(4)] == [0, 1, 2, 3]
    assert [r["summary"] for _, r in read_records(path, "Parquet", ["summary", "paper.title"])] == [
        record["summary"] for record in RECORDS
    ]


def test_values_of_parquet_are_those_of_json(tmp_path: Path) -> None:
    """An output line can repeat every record, and a rerun knows it again."""
    from datetime import UTC, date, datetime

    values = {
        "document": b"bytes of text",
        "raw": b"\xff\x00",
        "day": date(2020, 1, 2),
        "time": pyarrow.scalar(1_577_934_245_000_000_007, pyarrow.timestamp("ns")),
        "zoned": datetime(2020, 1, 2, tzinfo=UTC),
        "price": Decimal("1.50"),
        "nan": float("nan"),
        "pairs": pyarrow.scalar([("a", 1)], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    }
    table = {name: pyarrow.array([value.as_py() if name == "pairs" else value], getattr(value, "type", None))
             for name, value in values.items() if name != "time"}  # fmt: skip
    table["time"] = pyarrow.array([1_577_934_245_000_000_007], pyarrow.int64()).cast(pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    document = next(Inputs([tmp_path / "a.parquet"]).read())
    assert document.text == "bytes of text"
    assert document.record == {
        "document": "bytes of text",
        "raw": "/wA=",
        "day": "2020-01-02",
        "time": "2020-01-02 03:04:05.000000007",
        "zoned": "2020-01-02T00:00:00+00:00",
        "price": "1.50",
        "nan": None,
        "pairs": [["a", 1]],
    }
    lines = LineFormat(as_json=True)
    assert lines.belongs_to(json.loads(lines.line(document, "s")), document)


def test_a_record_with_nan_is_known_again() -> None:
    lines = LineFormat(as_json=True)
    document = Document("a", json.loads('{"document": "a", "score": NaN}'))
    assert lines.belongs_to(json.loads(lines.line(document, "s")), document)


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "name", "text"),
    [
        ({"a": {"b": "x"}}, "a.b", "x"),
        ({"a.b": "flat", "a": {"b": "x"}}, "a.b", "flat"),
        ({"a.b": {"c": "x"}, "a": {"b": {"c": "y"}}}, "a.b.c", "x"),
        ({"a": {"b.c": "x"}}, "a.b.c", "x"),
        ({"a": ["one", "two"]}, "a", "one\ntwo"),
        ({"sections": [["one", "two"], ["three"]]}, "sections", "one\ntwo\nthree"),
        ({"turns": [{"who": "A", "says": "x"}, {"who": "B", "says": "y"}]}, "turns.says", "x\ny"),
        ({"a": []}, "a", ""),
    ],
)
def test_texts_of_fields(record: dict[str, Any], name: str, text: str) -> None:
    assert text_of(record, name, "f, line 1", "document") == text


@pytest.mark.parametrize(
    ("record", "name", "message"),
    [
        (
            {"a": {"c": "x"}},
            "a.b",
            r"f, line 1, has no field 'a.b'; fields present: 'a': .*--document-f",
        ),
        ({"a": 3}, "a.b", "has no field 'a.b'"),
        ({"a": None}, "a", "must be a string, not NoneType"),
        ({"a": ["x", 1]}, "a", "must be a string, not a list with other values"),
        ({"a": [{"b": "x"}, {}]}, "a.b", "has no field 'a.b'"),
        ({"a": {"b": "x"}}, "a", "not dict"),
    ],
)
def test_fields_without_a_text(record: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(LSGError, match=message):
        text_of(record, name, "f, line 1", "document")


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.parquet", "a.jsonl.gz", "a.json.gz"])
def test_a_file_that_was_cut_is_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FORMATS[name](path, RECORDS)
    content = path.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:length])
        for read in (lambda: list(Inputs([path]).read()), lambda: list(Split("test", [path]).read())):
            if name != "a.parquet" and length == 0:
                assert read() == []  # an empty file; what needs an example says that there is none
                continue
            with pytest.raises(LSGError, match=name):
                read()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"document": "a"}, {"document": }]', r"object 2, .* \(Expecting value, at character 36 of"),
        ("a.json", b'[{"document": "a"} {"document": "b"}]', r"object 1, is not valid JSON \('{' instead of ']'"),
        ("a.json", b'[{"document": "a"},]', "object 2, is not valid JSON"),
        ("a.json", b'[{"document": "a"}] x', "there is text after the array"),
        ("a.json", b'[{"document": "a"}, 7]', "object 2, is a JSON int: each element of the array must be"),
        ("a.json", b'[{"document": "a"}', "a.json ends after object 1, within its array"),
        ("a.json", b'[{"document": "\xff"}]', r"a.json is not UTF-8 text \(byte 16 of the file"),
        ("a.json", b"[" + b"[" * 100_000, "object 1, is not valid JSON"),
        ("a.jsonl.gz", b'{"document": "a"}\n', r"a.jsonl.gz is damaged after line 0 \(Not a gzipped file"),
        ("a.json.gz", b"[]", "a.json.gz is damaged"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"document": "a"}\n{"document" "b"}\n', mtime=0),
            "a.jsonl.gz, line 2, is not valid JSON",
        ),
        ("a.parquet", b"", "a.parquet is not a Parquet file, or is damaged"),
    ],
)  # fmt: skip
def test_damage_is_one_sentence(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LSGError, match=message) as caught:
        list(Inputs([tmp_path / name]).read())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_a_few_bytes_do_not_become_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text_lines, json_arrays):
        monkeypatch.setattr(module, "MAX_TEXT", 1000)
    monkeypatch.setattr(json_arrays, "CHUNK", 100)
    for name, content in (
        ("a.jsonl.gz", "{" + " " * 5000),
        ("a.json.gz", '["' + "x" * 5000),
        ("a.txt.gz", "x\n" * 900),
    ):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        with pytest.raises(LSGError, match="bytes, the most that is read as one document"):
            list(Inputs([tmp_path / name]).read())


def test_without_pyarrow_parquet_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", RECORDS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for read in (Inputs([tmp_path]).read, Split("test", [tmp_path / "a.parquet"]).read, Inputs([tmp_path]).count):
        with pytest.raises(LSGError, match=r"needs pyarrow: pip install pyarrow, or lsg-fairseq\[parquet\]"):
            list(read())


def test_kinds_of_files() -> None:
    names = {"a": LINES, "a.gz": LINES, "a.TXT": LINES, "a.b.ndjson": LINES, "a.parquet.gz": LINES, "a.txt.gz": "text"}
    assert {name: kind_of(Path(name), LINES) for name in names} == names
