"""lsg-summarize: inputs, outputs, killed and resumed runs, shards, many documents."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, WORDS, run
from hub_checkpoints import documents_of, lively_copy

from lsg_fairseq import hub
from lsg_fairseq.commands.summarize import main

SHORT = ["--beam", "2", "--min-len", "3", "--max-len-b", "6", "--quiet"]
SCRIPT = REPOSITORY / "scripts" / "summarize.py"


@pytest.fixture(scope="session")
def trained(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively_copy(checkpoints, tmp_path_factory.mktemp("lively-summarize"))


@pytest.fixture(scope="session")
def documents(corpus: Path) -> list[str]:
    return documents_of(corpus)


@pytest.fixture(scope="session")
def expected(trained: Path, documents: list[str]) -> list[str]:
    return hub.lsg_bart_base(trained).summarize(documents, beam=2, min_len=3, max_len_b=6)


def write_records(path: Path, documents: list[str]) -> Path:
    records = [{"id": i, "document": text, "note": "ü\u2028"} for i, text in enumerate(documents)]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


def summaries_in(path: Path) -> list[str]:
    return [json.loads(line)["summary"] for line in path.read_text().split("\n")[:-1]]


def command(checkpoint: Path, *arguments: object) -> list[str]:
    return [str(part) for part in [*arguments, "--checkpoint", checkpoint, *SHORT]]


# --- inputs and outputs ---------------------------------------------------------------------------------------------


def test_json_lines_keep_their_objects(
    trained: Path, documents: list[str], expected: list[str], tmp_path: Path
) -> None:
    source = write_records(tmp_path / "in.jsonl", documents)
    assert main(command(trained, source, "--jsonl", "--output", tmp_path / "out.jsonl")) == 0
    records = [json.loads(line) for line in source.read_text().split("\n")[:-1]]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().split("\n")[:-1]]
    assert written == [{**record, "summary": summary} for record, summary in zip(records, expected, strict=True)]
    assert list(written[0]) == ["id", "document", "note", "summary"]


def test_streams(trained: Path, documents: list[str], expected: list[str], tmp_path: Path) -> None:
    """Standard input to standard output, as a program of its own; the progress bar is not in the way."""
    text = "\n".join([documents[0][:50], documents[0][50:]])
    arguments = ["--checkpoint", trained, *SHORT[:-1]]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        input=text, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "summaries" in done.stderr
    printed = run(
        "lsg-summarize", *arguments, "--jsonl", "--quiet", stdin=write_records(tmp_path / "x", documents).read_text()
    )
    lines = [json.loads(line) for line in printed.split("\n") if line.startswith("{")]
    assert [line["summary"] for line in lines] == expected


def test_text_files_and_folders(
    trained: Path, documents: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in (0, 1):
        (tmp_path / f"{i}.txt").write_text(documents[i] + "\n")
    write_records(tmp_path / "2.jsonl", documents[2:4])
    (tmp_path / "notes.md").write_text("no document")
    assert main(command(trained, tmp_path)) == 0
    in_folder = capsys.readouterr().out.splitlines()
    assert len(in_folder) == 4
    assert in_folder[2:] == [" ".join(text.split()) for text in expected[2:4]]
    assert main(command(trained, tmp_path / "1.txt", tmp_path / "0.txt", "--jsonl")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == [str(tmp_path / "1.txt"), str(tmp_path / "0.txt")]
    assert [" ".join(line["summary"].split()) for line in lines] == in_folder[1::-1]


def test_lines_and_empty_documents(
    trained: Path, documents: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text(f"{documents[0]}\n\n{documents[1]}\n")
    assert main(command(trained, tmp_path / "in.txt", "--lines")) == 0
    written = capsys.readouterr().out.split("\n")
    assert written == [" ".join(expected[0].split()), "", " ".join(expected[1].split()), ""]


def test_lone_surrogates_survive(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"document": "the cat \\ud800 sat on a mat"}\n')
    assert main(command(trained, tmp_path / "in.jsonl", "--jsonl", "--output", tmp_path / "out.jsonl")) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["document"] == "the cat \ud800 sat on a mat"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"document": "a"}\nnot json\n', "in.jsonl, line 2, is not valid JSON"),
        ("[1]\n", "in.jsonl, line 1, is a JSON list: each line must be a JSON object"),
        ('{"text": "a"}\n', "line 1, has no field 'document'; fields present: 'text': give the right one with"),
        ('{"document": 3}\n', "the field 'document' must be a string"),
        (b"\xff\n", "in.jsonl, line 1, is not UTF-8 text (byte 1 of the line)"),
        (None, "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    trained: Path, tmp_path: Path, content: str | bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "in.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(command(trained, tmp_path / "in.jsonl")) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "flags", [["--num-shards", "0"], ["--shard-id", "1"], ["--overwrite"], ["--lsg-block-size", "x"], ["--beam", "a"]]
)
def test_bad_flags_end_with_2(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2


def test_lsg_flags_reach_the_model(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_records(tmp_path / "in.jsonl", ["the cat"])
    assert main(command(trained, source, "--lsg-sparsity-factor", 3)) == 1
    assert "sparsity_factor must divide block_size (16), which 3 does not" in capsys.readouterr().err


def test_sizes_of_batches_and_int8(trained: Path, documents: list[str], expected: list[str], tmp_path: Path) -> None:
    source, output = write_records(tmp_path / "in.jsonl", documents), tmp_path / "out.jsonl"
    assert main(command(trained, source, "--max-tokens", 300, "--output", output, "--jsonl")) == 0
    assert summaries_in(output) == expected
    assert main(command(trained, source, "--dtype", "int8", "--output", output, "--jsonl", "--overwrite")) == 0
    assert len(summaries_in(output)) == len(expected)


def test_cut_documents_are_reported(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_records(tmp_path / "in.jsonl", ["the cat sat " * 30, "the"])
    assert main(command(trained, source, "--max-source-positions", 16)) == 0
    assert "warning: 1 documents were cut to the 16 tokens" in capsys.readouterr().err


# --- killed and resumed ---------------------------------------------------------------------------------------------


def test_rerun_continues_and_drops_a_broken_tail(
    trained: Path, documents: list[str], expected: list[str], tmp_path: Path
) -> None:
    source, out = write_records(tmp_path / "in.jsonl", documents), tmp_path / "out.jsonl"
    arguments = command(trained, source, "--jsonl", "--output", out)
    assert main(arguments) == 0
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    assert main(arguments) == 0
    assert out.read_bytes() == whole
    before = out.stat().st_mtime_ns
    assert main(arguments) == 0
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (whole, before)
    assert summaries_in(out) == expected


def test_finished_summaries_wait_in_the_journal(trained: Path, documents: list[str], tmp_path: Path) -> None:
    """A run that dies between two batches has lost nothing that it finished, whatever its place."""
    source, out = write_records(tmp_path / "in.jsonl", documents), tmp_path / "out.jsonl"
    arguments = command(trained, source, "--jsonl", "--output", out)
    assert main(arguments) == 0
    whole, journal = out.read_text(), Path(f"{out}.journal")
    lines = whole.split("\n")
    kept = [{"place": 5, "summary": "kept"}, {"place": 9, "summary": "kept too"}]
    out.write_text("\n".join(lines[:3]) + "\n")
    with journal.open("a") as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in kept) + '{"place": 7, "summ')
    assert main(arguments) == 0
    again = [json.loads(line)["summary"] for line in out.read_text().split("\n")[:-1]]
    assert (again[5], again[9]) == ("kept", "kept too")
    assert [s for i, s in enumerate(again) if i not in (5, 9)] == [
        json.loads(line)["summary"] for i, line in enumerate(lines[:-1]) if i not in (5, 9)
    ]
    assert len(journal.read_text().splitlines()) == 2


def test_killed_run_leaves_whole_lines(trained: Path, documents: list[str], tmp_path: Path) -> None:
    many = [f"{text} {i}" for i in range(60) for text in documents]
    source, out = write_records(tmp_path / "in.jsonl", many), tmp_path / "out.jsonl"
    arguments = command(trained, source, "--jsonl", "--output", out)
    process = subprocess.Popen([sys.executable, str(SCRIPT), *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while (not out.exists() or out.stat().st_size == 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = out.read_bytes().count(b"\n")
    assert 0 < done < len(many)
    assert main(arguments) == 0
    killed = out.read_bytes()
    assert main([*arguments, "--overwrite"]) == 0
    assert out.read_bytes() == killed
    assert len(summaries_in(out)) == len(many)


def test_another_run_does_not_continue_it(
    trained: Path, documents: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_records(tmp_path / "in.jsonl", documents[:2]), tmp_path / "out.jsonl"
    arguments = command(trained, source, "--jsonl", "--output", out)
    assert main(arguments) == 0
    assert main([*arguments, "--lenpen", "2"]) == 1
    assert "was begun with a different lenpen (None, not 2.0): use --overwrite" in capsys.readouterr().err
    write_records(source, documents[1:3])
    assert main(arguments) == 1
    assert f"was begun with different content of {source}: use --overwrite" in capsys.readouterr().err
    write_records(source, documents[:1])
    assert main(arguments) == 1
    assert f"was begun with different content of {source}" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    (tmp_path / "mine.txt").write_text("keep me\n")
    assert main(command(trained, source, "--output", tmp_path / "mine.txt")) == 1
    assert "exists, but has no journal of lsg-summarize" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep me\n"


def test_shards_share_the_documents(trained: Path, documents: list[str], expected: list[str], tmp_path: Path) -> None:
    source, merged = write_records(tmp_path / "in.jsonl", documents), [""] * len(documents)
    for shard in range(3):
        out = tmp_path / f"{shard}.jsonl"
        assert main(command(trained, source, "--jsonl", "--output", out, "--num-shards", 3, "--shard-id", shard)) == 0
        merged[shard::3] = summaries_in(out)
    assert merged == expected


# --- many documents -------------------------------------------------------------------------------------------------


def peak_memory(trained: Path, source: Path, out: Path) -> int:
    """Peak resident KiB of a run over the file."""
    code = (
        "import resource, sys\nfrom lsg_fairseq.commands.summarize import main\n"
        "code = main(sys.argv[1:])\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\nsys.exit(code)\n"
    )
    flags = [
        "--beam",
        "1",
        "--min-len",
        "2",
        "--max-len-b",
        "3",
        "--quiet",
        "--batch-size",
        "32",
        "--max-source-positions",
        "16384",
    ]
    printed = run(sys.executable, "-c", code, source, "--jsonl", "--output", out, "--checkpoint", trained, *flags)
    return int(re.findall(r"^\d+$", printed, re.M)[-1])


@pytest.mark.slow
def test_10000_documents_in_bounded_memory(trained: Path, tmp_path: Path) -> None:
    generator = random.Random(5)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(5, 40))) for _ in range(10_000)]
    lsg = hub.lsg_bart_base(trained, max_source_positions=16384)
    ids = lsg.encode(" ".join(generator.choices(WORDS, k=16_000)))
    texts[777] = lsg.decode(ids[:16383])
    few = peak_memory(trained, write_records(tmp_path / "few.jsonl", texts[:1000]), tmp_path / "few.out")
    many = peak_memory(trained, write_records(tmp_path / "many.jsonl", texts), tmp_path / "many.out")
    written = [json.loads(line) for line in (tmp_path / "many.out").read_text().split("\n")[:-1]]
    assert [record["id"] for record in written] == list(range(10_000))
    assert all(record["summary"] for record in written)
    assert [r["summary"] for r in written[:500]] == summaries_in(tmp_path / "few.out")[:500]
    print(f"peak: {few / 1024:.0f} MiB with 1,000 documents, {many / 1024:.0f} MiB with 10,000")
    assert many < few * 1.1
