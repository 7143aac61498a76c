"""lsg-preprocess: what it writes can be read by stock fairseq and is the text; what is wrong leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fairseq.data import Dictionary
from fairseq.tasks.translation import load_langpair_dataset

from lsg_fairseq.commands.preprocess import main
from lsg_fairseq.tokenizers.fairseq_bpe import LSGBPE, load_tokenizer, train_tokenizer
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat

SCRIPT = Path(__file__).resolve().parents[1] / "scripts/preprocess.py"
PAIRS = [(f"document {i}\twith a tab, é and\n  two lines. " * (1 + 7 * i), f"summary number {i}.") for i in range(40)]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(iter([document for document, _ in PAIRS]), 300, folder)
    return folder


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "train.jsonl", [{"document": d, "summary": s} for d, s in PAIRS])


def write_jsonl(path: Path, records: list[object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def run_main(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def load(folder: Path, split: str) -> tuple[list[str], list[str] | None]:
    """Texts of both sides, read the way fairseq's translation task does."""
    dictionary, bpe = Dictionary.load(str(folder / "dict.source.txt")), LSGBPE.from_folder(folder / "tokenizer")
    limits = {"max_source_positions": 10**6, "max_target_positions": 10**6}
    data = load_langpair_dataset(
        str(folder), split, "source", dictionary, "target", dictionary, combine=False, dataset_impl=None,
        upsample_primary=1, left_pad_source=False, left_pad_target=False, **limits,
    )  # fmt: skip
    sides = [side and list(side) for side in (data.src, data.tgt)]
    for side in filter(None, sides):
        assert all(item[-1] == dictionary.eos() and (item[:-1] > 3).all() for item in side)
    source, target = (side and [bpe.decode(dictionary.string(item)) for item in side] for side in sides)
    return source, target


def read_report(folder: Path) -> dict:
    return json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))


def test_every_text_comes_back_whole_and_in_order(jsonl: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    assert run_main("--train", jsonl, "--valid", jsonl, "--out", tmp_path / "out", "--tokenizer", tokenizer_folder) == 0
    for split in ("train", "valid"):
        assert load(tmp_path / "out", split) == ([d for d, _ in PAIRS], [s for _, s in PAIRS])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"dict.txt", "dict.source.txt", "dict.target.txt", "tokenizer", "sequence_format.json"} <= names
    assert load_tokenizer(tmp_path / "out/tokenizer").tokens == load_tokenizer(tokenizer_folder).tokens
    assert SequenceFormat.load(tmp_path / "out") == SequenceFormat()


def test_number_of_workers_changes_nothing(jsonl: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        assert run_main("--train", jsonl, "--out", out, "--tokenizer", tokenizer_folder, "--workers", workers) == 0
    for path in (tmp_path / "out1").glob("train*"):
        assert path.read_bytes() == (tmp_path / "out3" / path.name).read_bytes()
    assert read_report(tmp_path / "out1")["splits"] == read_report(tmp_path / "out3")["splits"]


def test_parallel_text_files_and_other_fields(tokenizer_folder: Path, tmp_path: Path) -> None:
    records = [{"body": "one\u2028document\x0b", "abstract": "one"}, {"body": "two", "abstract": "2\r 2"}]
    write_jsonl(tmp_path / "data.jsonl", records)
    for field in ("body", "abstract"):
        lines = "".join(record[field] + "\n" for record in records)
        (tmp_path / field).write_bytes(lines.encode("utf-8"))
    fields = ["--document-field", "body", "--summary-field", "abstract", "--tokenizer", tokenizer_folder]
    assert run_main("--train", tmp_path / "data.jsonl", "--out", tmp_path / "a", *fields) == 0
    files = (tmp_path / "body", tmp_path / "abstract")
    assert run_main("--train", *files, "--out", tmp_path / "b", "--tokenizer", tokenizer_folder) == 0
    assert load(tmp_path / "a", "train") == load(tmp_path / "b", "train")
    assert load(tmp_path / "a", "train")[0] == ["one\u2028document\x0b", "two"]


def test_a_test_split_is_added_to_an_existing_folder(jsonl: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_main("--train", jsonl, "--test", jsonl, "--out", out, "--tokenizer", tokenizer_folder) == 0
    assert load(out, "test")[1] is not None
    (tmp_path / "new.txt").write_text("first document\nsecond document\n")
    assert run_main("--test", tmp_path / "new.txt", "--out", out) == 0
    assert load(out, "test") == (["first document", "second document"], None)
    assert load(out, "train")[0] == [d for d, _ in PAIRS]
    assert set(read_report(out)["splits"]) == {"train", "test"}
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_another_vocabulary_is_refused(jsonl: Path, tokenizer_folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run_main("--train", jsonl, "--out", out, "--tokenizer", tokenizer_folder) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert run_main("--valid", jsonl, "--out", out, "--train-tokenizer", 280) == 1
    assert "differs from this tokenizer's" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_empties_are_counted_skipped_and_named_once(tokenizer_folder: Path, tmp_path: Path, capsys) -> None:
    records = [{"document": d, "summary": s} for d, s in [("a", "b"), (" \n", "c"), ("d", ""), ("e", "\t"), ("f", "g")]]
    path = write_jsonl(tmp_path / "train.jsonl", records)
    path.write_text("\n" + path.read_text())
    assert run_main("--train", path, "--out", tmp_path / "out", "--tokenizer", tokenizer_folder) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "1 with an empty document (line 3) and 2 with an empty summary (lines 4, 5)" in warnings[0]
    assert load(tmp_path / "out", "train") == (["a", "f"], ["b", "g"])
    assert read_report(tmp_path / "out")["splits"]["train"]["skipped"] == {"empty_documents": 1, "empty_summaries": 2}


def test_report_counts_lengths_in_tokens(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    texts = ["x " * n for n in (3, 1024, 5000)]
    path = write_jsonl(tmp_path / "test.jsonl", [{"document": text} for text in texts])
    assert run_main("--test", path, "--out", tmp_path / "out", "--tokenizer", tokenizer_folder) == 0
    report = read_report(tmp_path / "out")["splits"]["test"]
    lengths = sorted(len(tokenizer.encode(text)) for text in texts)
    summary = report["source_tokens"]
    assert [summary["min"], summary["median"], summary["max"]] == lengths
    assert summary["mean"] == pytest.approx(sum(lengths) / 3, abs=0.05)
    assert report["documents_longer_than"] == {str(n): sum(x > n for x in lengths) for n in (1024, 4096, 16384)}
    assert report["target_tokens"] is None


def test_training_uses_the_first_split_there_is(jsonl: Path, tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "test.jsonl", [{"document": "zzqq zzqq zzqq zzqq"}])
    arguments = ("--train-tokenizer", 270, "--out")
    assert run_main("--train", jsonl, "--test", other, *arguments, tmp_path / "with_train") == 0
    assert run_main("--test", other, *arguments, tmp_path / "test_only") == 0
    assert "zz" in load_tokenizer(tmp_path / "test_only/tokenizer").tokens
    assert "zz" not in load_tokenizer(tmp_path / "with_train/tokenizer").tokens
    assert load(tmp_path / "with_train", "test")[0] == ["zzqq zzqq zzqq zzqq"]


GOOD = '{"document": "a", "summary": "b"}\n'
BAD_FILES = {
    "invalid_json": ("--train", GOOD + '{"document": \n', ["line 2", "not valid JSON"]),
    "space_only_line": ("--train", GOOD + "  \n", ["line 2", "not valid JSON"]),
    "not_an_object": ("--train", GOOD + '["a"]\n', ["line 2", "object"]),
    "missing_document": ("--train", GOOD + '{"text": "a", "summary": "b"}\n', ["line 2", "'document'", "'text'"]),
    "missing_summary": ("--valid", GOOD + '{"document": "a"}\n', ["line 2", "'summary'", "'document'"]),
    "some_test_summaries": ("--test", GOOD + '{"document": "a"}\n', ["line 1", "line 2", "'summary'"]),
    "number": ("--train", '{"document": 3, "summary": "b"}\n', ["line 1", "'document'", "int"]),
    "null_summary": ("--test", '{"document": "a", "summary": null}\n', ["line 1", "'summary'", "NoneType"]),
    "all_empty": ("--train", '{"document": " ", "summary": "b"}\n' * 3, ["empty in all 3"]),
    "no_line": ("--train", "", ["no example"]),
    "not_utf8": ("--train", GOOD + "\udcff\n", ["line 2", "UTF-8"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_one_sentence_and_leaves_nothing(case: str, tokenizer_folder: Path, tmp_path: Path, capsys) -> None:
    option, content, expected = BAD_FILES[case]
    path = tmp_path / "input.jsonl"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert run_main(option, path, "--out", tmp_path / "new/out", "--tokenizer", tokenizer_folder) == 1
    assert_one_error(capsys.readouterr().err, [str(path), *expected])
    assert list(tmp_path.iterdir()) == [path]


def assert_one_error(stderr: str, expected: list[str]) -> None:
    *_, error = stderr.strip().splitlines()
    assert error.startswith("lsg-preprocess: error: ")
    assert stderr.count("error: ") == 1
    assert "Traceback" not in stderr
    for part in expected:
        assert part in error


def test_bad_arguments(jsonl: Path, tokenizer_folder: Path, tmp_path: Path, capsys) -> None:
    texts = [tmp_path / "two.txt", tmp_path / "three.txt"]
    for path, text in zip(texts, ("a\nb\n", "a\nb\nc\n"), strict=True):
        path.write_text(text)
    use = ("--tokenizer", tokenizer_folder)
    present = sorted(tmp_path.iterdir())
    cases: list[tuple[tuple[object, ...], list[str]]] = [
        (("--train", tmp_path / "nowhere", *use), ["nowhere does not exist"]),
        (("--train", tmp_path, *use), ["is a folder"]),
        (("--train", *texts, *use), ["2 lines", "3 lines"]),
        (("--train", texts[0], *use), ["train needs summaries"]),
        (("--train", *texts, jsonl, *use), ["not 3"]),
        (("--train", jsonl), ["--tokenizer", "--train-tokenizer"]),
        (("--train", jsonl, "--tokenizer", tmp_path), ["no tokenizer", "tokenizer.json", "merges.txt", "spiece.model"]),
        (("--train", jsonl, "--tokenizer", tmp_path / "nowhere"), ["does not exist"]),
        (
            ("--train", jsonl, "--train-tokenizer", 100),
            ["--train-tokenizer must be an integer from 261 to 2,000,000, not 100"],
        ),
        (("--train", jsonl, *use, "--workers", 0), ["--workers must be an integer from 1 to 1,024, not 0"]),
    ]
    for arguments, expected in cases:
        assert run_main(*arguments, "--out", tmp_path / "out") == 1
        assert_one_error(capsys.readouterr().err, expected)
    assert run_main("--train", jsonl, *use, "--out", jsonl) == 1
    assert_one_error(capsys.readouterr().err, ["not a folder"])
    assert sorted(tmp_path.iterdir()) == present
    for arguments in (use, ("--train", jsonl, *use, "--train-tokenizer", 300)):
        with pytest.raises(SystemExit, match="2"):
            run_main(*arguments, "--out", tmp_path / "out")


def start_script(*arguments: object, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def test_script_from_a_foreign_folder(jsonl: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    """A good run with a progress bar, then a bad one, as a user types them."""
    good = start_script("--train", jsonl.name, "--out", "out", "--tokenizer", tokenizer_folder, folder=tmp_path)
    jsonl_bad = tmp_path / "bad.jsonl"
    jsonl_bad.write_text("{\n")
    bad = start_script("--train", jsonl_bad.name, "--out", "none", "--tokenizer", tokenizer_folder, folder=tmp_path)
    output, progress = good.communicate(timeout=120)
    assert good.returncode == 0, progress
    assert "40 examples" in output
    assert "40/40" in progress
    assert load(tmp_path / "out", "train")[0] == [d for d, _ in PAIRS]
    assert_one_error(bad.communicate(timeout=120)[1], ["bad.jsonl, line 1"])
    assert bad.returncode == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing(how: signal.Signals, tokenizer_folder: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "big.jsonl", [{"document": "some words " * 2000, "summary": "b"}] * 2000)
    arguments = ("--train", path, "--out", tmp_path / "out", "--tokenizer", tokenizer_folder, "--workers", 2)
    process = start_script(*arguments, folder=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.partial-*/train*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    # Ctrl-C in a terminal reaches every process of the group.
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + how
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == [path]
