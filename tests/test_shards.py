"""Shards of lsg-summarize: which one a process takes, and how they are put together again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsg_fairseq.commands.summarize import build_parser, main, read_arguments
from lsg_fairseq.data.output_folder import only_writer
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.shards import Shard, check_streams, choose_shard, merge_shards

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "2"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_NPROCS": "8"}


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ((None, None), {}, (1, 0)),
        ((None, None), TORCHRUN, (8, 5)),
        ((None, None), SRUN, (4, 2)),
        ((None, None), BATCH_SCRIPT, (1, 0)),
        ((3, 1), TORCHRUN, (3, 1)),
        ((1, None), TORCHRUN, (1, 0)),
    ],
)
def test_shard_of_a_process(flags: tuple[int | None, int | None], environment: dict, expected: tuple[int, int]) -> None:
    shard = choose_shard(*flags, environment)
    assert (shard.num, shard.id) == expected
    assert (shard.source is not None) == (flags == (None, None) and expected != (1, 0))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((4, None), "need each other"),
        ((None, 1), "need each other"),
        ((0, 0), "must be 1 or more"),
        ((2, 2), "0 to 1, not 2"),
        ((2, -1), "0 to 1, not -1"),
    ],
)
def test_flags_that_name_no_shard(flags: tuple[int | None, int | None], said: str) -> None:
    with pytest.raises(LSGError, match=said):
        choose_shard(*flags, TORCHRUN)


def test_processes_get_a_file_and_a_gpu_each() -> None:
    shard = choose_shard(None, None, TORCHRUN)
    assert shard.output(Path("out.jsonl")) == Path("out.jsonl.shard-5-of-8")
    assert [shard.device("cuda", 4), shard.device("cuda", 1), shard.device("cuda:3", 4), shard.device("cpu", 0)] == [
        "cuda:1", "cuda:0", "cuda:3", "cpu"]  # fmt: skip
    by_flags = choose_shard(2, 1, TORCHRUN)
    assert (by_flags.output(Path("out")), by_flags.device("cuda", 4)) == (Path("out"), "cuda")
    for streams, said in (((True, False), "standard output: give --output F"), ((False, True), "standard input")):
        with pytest.raises(LSGError, match=said):
            check_streams(shard, *streams)
        check_streams(by_flags, *streams)


def test_the_command_takes_and_prints_its_shard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    args = read_arguments(build_parser(), ["in.jsonl", "--output", "out", "--device", "cpu"])
    assert (args.num_shards, args.shard_id, args.output) == (8, 5, Path("out.shard-5-of-8"))
    expected = "lsg-summarize: shard 5 of 8 (the environment's RANK and WORLD_SIZE) to out.shard-5-of-8\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(SystemExit):
        read_arguments(build_parser(), [])
    assert "cannot share one standard input" in capsys.readouterr().err


# --- put together ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Ten documents in shards of 4, 3 and 3 lines, and their journals."""
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"document": str(i)}) + "\n" for i in range(10)))
    paths = []
    for number in range(3):
        path = tmp_path / f"out.shard-{number}-of-3"
        path.write_text("".join(f"{i}\n" for i in range(number, 10, 3)))
        write_journal(path, num_shards=3, shard_id=number, inputs=[str(source)], checkpoint="x")
        paths.append(path)
    return paths


def write_journal(path: Path, **run: object) -> None:
    content = {"the checkpoint": run.pop("checkpoint")}
    Path(f"{path}.journal").write_text(json.dumps({"settings": run, "content": content}) + "\n")


@pytest.mark.parametrize("inputs_are_gone", [False, True])
def test_merged_in_the_order_of_the_documents(shards: list[Path], tmp_path: Path, inputs_are_gone: bool) -> None:
    if inputs_are_gone:
        (tmp_path / "in.jsonl").unlink()
    words = [str(path) for path in (shards[2], shards[0], shards[1])]
    assert main(["--merge", *words, "--output", str(tmp_path / "all.txt")]) == 0
    assert (tmp_path / "all.txt").read_text() == "".join(f"{i}\n" for i in range(10))
    assert all(path.exists() for path in shards)


def drop_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def wait_in_journal(path: Path) -> None:
    with Path(f"{path}.journal").open("a") as journal:
        journal.write('{"place": 9, "summary": "later"}\n')


CHANGES = {
    "does not exist": lambda paths: paths[1].unlink(),
    "of 3 shards, 1 is missing": lambda paths: paths.pop(1),
    "of 3 shards, 0, 2 are missing": lambda paths: paths.__setitem__(slice(None), [paths[1]]),
    "are both shard 0": lambda paths: paths.__setitem__(1, paths[0]),
    "has 3 lines for its 4 of 10": lambda paths: drop_last_line(paths[0]),
    "has 2 lines for its 3 of 10": lambda paths: drop_last_line(paths[2]),
    "ends within a line": lambda paths: paths[0].write_text("0\n3\n6\n9"),
    "is not finished": lambda paths: wait_in_journal(paths[1]),
    "no out.shard-1-of-3.journal beside it": lambda paths: Path(f"{paths[1]}.journal").unlink(),
    "does not say which shard": lambda paths: Path(f"{paths[1]}.journal").write_text("{}\n"),
    "differ in the checkpoint": lambda paths: write_journal(paths[1], num_shards=3, shard_id=1, checkpoint="y",
                                                        inputs=[str(paths[0].parent / "in.jsonl")]),
}  # fmt: skip


@pytest.mark.parametrize("said", CHANGES)
def test_what_is_no_whole_set_is_refused(said: str, shards: list[Path], tmp_path: Path) -> None:
    CHANGES[said](shards)
    with pytest.raises(LSGError, match=said):
        merge_shards(shards, tmp_path / "all.txt")
    assert not list(tmp_path.glob("*all.txt*"))


def test_outputs_in_use_are_refused(shards: list[Path], tmp_path: Path) -> None:
    with (
        only_writer(Path(f"{shards[1]}.lock"), shards[1]),
        pytest.raises(LSGError, match=r"another process is writing .*: wait"),
    ):
        merge_shards(shards, tmp_path / "all.txt")
    (tmp_path / "all.txt").write_text("old")
    with pytest.raises(LSGError, match="exists: choose another --output, or use --overwrite"):
        merge_shards(shards, tmp_path / "all.txt")
    with pytest.raises(LSGError, match="is one of the shards"):
        merge_shards(shards, shards[0], overwrite=True)
    assert merge_shards(shards, tmp_path / "all.txt", overwrite=True) == 10


def test_a_shard_alone_is_the_whole() -> None:
    assert (Shard().num, Shard().line()) == (1, "shard 0 of 1")
