"""`make kills`: 50 kills a command at random moments; nothing is lost, doubled, mixed, or touched that was read."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fuzzing.bases import Bases
from fuzzing.uses import COMMANDS
from test_fuzz import bases  # noqa: F401 (a fixture)

KILLS, SEED = int(os.environ.get("KILLS", 50)), int(os.environ.get("KILL_SEED", 1))
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def content_of(folder: Path) -> dict[str, str]:
    """Path -> hash of all files, but for hidden ones, which are a killed process's scratch."""
    files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else [folder] * folder.is_file()
    shown = [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in shown}


def start(name: str, arguments: list[object]) -> int:
    """The process of a command, forked: what it imports is here already."""
    if (child := os.fork()) == 0:
        status = 70
        try:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            torch.set_num_threads(1)
            status = COMMANDS[name]([str(argument) for argument in arguments])
        finally:
            os._exit(status)
    return child


def run_whole(name: str, arguments: list[object]) -> float:
    began = time.monotonic()
    assert os.waitpid(start(name, arguments), 0)[1] == 0
    return time.monotonic() - began


def kill_at_random(name: str, arguments: list[object], longest: float, dice: random.Random) -> bool:
    """Whether the command was killed before it ended."""
    child = start(name, arguments)
    time.sleep(dice.uniform(0, longest))
    os.kill(child, dice.choice(SIGNALS))
    return os.waitpid(child, 0)[1] != 0


def check_folder_command(name: str, make: Callable[[Path], list[object]], before: Path | None, work: Path) -> None:
    """Kill a command that writes a folder: it is as it was or complete, and the same command finishes it."""
    dice, out = random.Random(SEED), work / "out"
    whole = work / "whole"
    if before:
        shutil.copytree(before, whole)
    run_whole(name, make(whole))
    wanted = content_of(whole)
    # Timed when all is warm: the first run takes longer, and a kill after the end would be none.
    shutil.copytree(before, out) if before else None
    longest = run_whole(name, make(out))
    old = content_of(before) if before else {}
    killed = 0
    for _ in range(KILLS):
        shutil.rmtree(out, ignore_errors=True)
        if before:
            shutil.copytree(before, out)
        killed += kill_at_random(name, make(out), longest, dice)
        assert _same_files(content_of(out)) in (_same_files(old), _same_files(wanted))
        if before or content_of(out) == {}:
            run_whole(name, make(out))
            assert [p.name for p in (*work.iterdir(), *out.iterdir()) if p.name.startswith(".")] == []
        assert _same_files(content_of(out)) == _same_files(wanted)
    print(f"{name}: {killed} of {KILLS} runs were killed before their end")
    assert killed > KILLS // 4


def _same_files(content: dict[str, str]) -> dict[str, str]:
    """Content without the report, which names its own folder."""
    return {name: digest for name, digest in content.items() if name != "preprocess.json"}


@pytest.mark.slow
def test_lsg_convert(bases: Bases, tmp_path: Path) -> None:  # noqa: F811
    inputs = content_of(bases.hf)
    check_folder_command("convert", lambda out: [bases.hf, out], None, tmp_path)
    assert content_of(bases.hf) == inputs


@pytest.mark.slow
def test_lsg_export(bases: Bases, tmp_path: Path) -> None:  # noqa: F811
    inputs = content_of(bases.converted)
    check_folder_command("export", lambda out: [bases.converted, out], None, tmp_path)
    assert content_of(bases.converted) == inputs


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_lsg_preprocess(workers: int, bases: Bases, tmp_path: Path) -> None:  # noqa: F811
    """Into a folder that has another run's files: it keeps those or gets all of the new ones."""
    lines = bases.documents.read_text().splitlines() * 8
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines) + "\n")
    inputs = content_of(source)
    make = lambda out: ["--train", source, "--out", out, "--workers", workers]  # noqa: E731
    (tmp_path / "work").mkdir()
    check_folder_command("preprocess", make, bases.data, tmp_path / "work")
    assert content_of(source) == inputs


@pytest.mark.slow
def test_lsg_summarize(bases: Bases, tmp_path: Path) -> None:  # noqa: F811
    """One output, killed over and over and continued: byte for byte that of a run without a kill."""
    dice = random.Random(SEED)
    documents = [json.loads(line)["document"] for line in bases.documents.read_text().splitlines()]
    source, out, whole = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    source.write_text("".join(json.dumps({"id": i, "document": documents[i % 5][: 20 + i]}) + "\n" for i in range(300)))
    inputs = content_of(source), content_of(bases.converted)
    flags = ["--checkpoint", bases.converted, "--jsonl", "--quiet", "--beam", "2", "--max-len-b", "8"]
    longest = run_whole("summarize", [source, *flags, "--output", whole])
    command, killed, times_done = [source, *flags, "--output", out], 0, 0
    for _ in range(KILLS):
        killed += kill_at_random("summarize", command, longest / 4, dice)
        lines = out.read_bytes().splitlines(keepends=True) if out.exists() else []
        complete = b"".join(line for line in lines if line.endswith(b"\n"))
        assert whole.read_bytes().startswith(complete)
        if complete == whole.read_bytes():
            times_done += 1
            out.unlink()
            Path(f"{out}.journal").unlink()
    run_whole("summarize", command)
    print(f"summarize: {killed} of {KILLS} runs were killed before their end; {times_done + 1} outputs were completed")
    assert out.read_bytes() == whole.read_bytes()
    assert (content_of(source), content_of(bases.converted)) == inputs
    assert killed > KILLS // 4
