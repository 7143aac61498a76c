"""Sharing documents out among processes of lsg-summarize, and merging the outputs of all shards (--merge)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsg_fairseq.data.output_folder import only_writer, staged_file
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.processes import place_of
from lsg_fairseq.summarizing.documents import Inputs, journal_of


@dataclass(frozen=True)
class Shard:
    """Shard number `id` of `num`.

    `source` names the environment variables that it comes from; None: from flags, or there is only one.
    `local_rank` is the number of this process on its machine.
    """

    num: int = 1
    id: int = 0
    source: str | None = None
    local_rank: int = 0

    def line(self) -> str:
        """One line for the user, who must not take the output of a shard for the whole."""
        return f"shard {self.id} of {self.num}" + (f" (the environment's {self.source})" if self.source else "")

    def output(self, path: Path | None) -> Path | None:
        """The output file of this process: processes with a common command line each get their own."""
        return path if self.source is None else Path(f"{path}.shard-{self.id}-of-{self.num}")

    def device(self, device: str, num_gpus: int) -> str:
        """The device of this process: for "cuda", processes on one machine each get their own GPU."""
        return f"cuda:{self.local_rank % num_gpus}" if self.source and device == "cuda" and num_gpus else device


def choose_shard(num_shards: int | None, shard_id: int | None, environment: Mapping[str, str]) -> Shard:
    """The shard of the flags, else that of this process of torchrun or srun, else the whole.

    Raises:
        LSGError: the flags or the variables are inconsistent.
    """
    if num_shards is None and shard_id is None:
        place = place_of(environment)
        return Shard(place.world_size, place.rank, place.source, place.local_rank) if place else Shard()
    if num_shards is None or (shard_id is None and num_shards != 1):
        raise LSGError("--num-shards and --shard-id need each other: give both")
    if num_shards < 1:
        raise LSGError(f"--num-shards must be 1 or more, not {num_shards}")
    if not 0 <= (shard_id or 0) < num_shards:
        raise LSGError(f"--shard-id must be 0 to {num_shards - 1}, not {shard_id}")
    return Shard(num_shards, shard_id or 0)


def check_streams(shard: Shard, has_inputs: bool, has_output: bool) -> None:
    """Refuse standard input and standard output for processes with a common command line.

    Raises:
        LSGError: they would share one of them.
    """
    if shard.source and not (has_inputs and has_output):
        missing = "--output F" if has_inputs else "files as INPUT"
        raise LSGError(
            f"this is {shard.line()}, and {shard.num} processes cannot share one standard "
            f"{'output' if has_inputs else 'input'}: give {missing}; or --num-shards 1 to ignore the environment"
        )


def merge_shards(paths: Sequence[Path], output: Path, overwrite: bool = False) -> int:
    """Merge the lines of all shards, given in any order, into `output`, in the order of the documents.

    The file is written completely or not at all, and the shards are kept.

    Returns:
        The number of lines.

    Raises:
        LSGError: a shard is missing, unfinished, being written or of a different run, or `output` exists.
    """
    if output.is_dir() or (output.exists() and not overwrite):
        raise LSGError(
            f"{output} exists: choose another --output" + ("" if output.is_dir() else ", or use --overwrite")
        )
    if output.resolve() in {path.resolve() for path in paths}:
        raise LSGError(f"{output} is one of the shards: choose another --output")
    runs = [_finished_run(path) for path in paths]
    in_order = _in_order(paths, runs)
    _check_counts(in_order, [_count_lines(path) for path in in_order], runs[0])
    with staged_file(output) as staged, staged.open("wb") as file:
        return sum(1 for line in _in_turns(in_order) if file.write(line))


def _finished_run(path: Path) -> dict[str, Any]:
    """The settings and content hashes of the run that wrote a shard, from its journal; checks that it is finished."""
    if not path.is_file():
        raise LSGError(f"the shard {path} does not exist")
    journal = journal_of(path)
    if not journal.is_file():
        raise LSGError(f"{path} has no {journal.name} beside it, which says which shard it is: keep both together")
    with only_writer(Path(f"{path}.lock"), path):
        lines = journal.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        header, *later = (json.loads(line) for line in lines)
        run = {**header["settings"], **header["content"]}
        if not isinstance(run["num_shards"], int) or not isinstance(run["shard_id"], int):
            raise TypeError("num_shards and shard_id must be whole numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise LSGError(f"{journal} does not say which shard {path} is ({error}): summarise it again") from error
    if any("place" in line for line in later):
        raise LSGError(f"{path} is not finished: run its command again")
    return run


def _in_order(paths: Sequence[Path], runs: Sequence[dict[str, Any]]) -> list[Path]:
    """The shards sorted by number; checks that each is given once, and that all are of one run."""
    for path, run in zip(paths, runs, strict=True):
        other = [name for name in {**runs[0], **run} if name != "shard_id" and run.get(name) != runs[0].get(name)]
        if other:
            raise LSGError(f"{path} and {paths[0]} are of different runs: they differ in {', '.join(sorted(other))}")
    by_number: dict[int, Path] = {}
    for path, run in zip(paths, runs, strict=True):
        if run["shard_id"] in by_number:
            raise LSGError(
                f"{path} and {by_number[run['shard_id']]} are both shard {run['shard_id']}: give only one of them"
            )
        by_number[run["shard_id"]] = path
    num_shards = runs[0]["num_shards"]
    missing = [number for number in range(num_shards) if number not in by_number]
    if missing:
        raise LSGError(
            f"of {num_shards} shards, {', '.join(map(str, missing))} {'is' if len(missing) == 1 else 'are'} missing: "
            "give all of them"
        )
    return [by_number[number] for number in range(num_shards)]


def _count_lines(path: Path) -> int:
    count, line = 0, b"\n"
    with path.open("rb") as file:
        for count, line in enumerate(file, start=1):  # noqa: B007
            pass
    if not line.endswith(b"\n"):
        raise LSGError(f"{path} ends within a line, so it is not finished: run its command again")
    return count


def _check_counts(paths: Sequence[Path], counts: Sequence[int], run: dict[str, Any]) -> None:
    """Check that each shard has a line for each of its documents, whose total number comes from the inputs, or, if they
    are gone, from all shards together."""
    total = _num_documents(run)
    total = sum(counts) if total is None else total
    for number, (path, count) in enumerate(zip(paths, counts, strict=True)):
        expected = len(range(number, total, len(paths)))
        if count != expected:
            raise LSGError(
                f"{path} has {count} lines for its {expected} of {total} documents, so it is not finished: run its "
                "command again"
            )


def _num_documents(run: dict[str, Any]) -> int | None:
    inputs = [Path(path) for path in run.get("inputs") or []]
    if not inputs or not all(path.exists() for path in inputs):
        return None
    return Inputs(inputs, run.get("document_field", ""), bool(run.get("jsonl")), bool(run.get("lines"))).count()


def _in_turns(paths: Sequence[Path]) -> Iterator[bytes]:
    """Yield a line of each shard in turn, as the documents were dealt out."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in paths]
        while True:
            for file in files:
                line = file.readline()
                if not line:
                    return
                yield line
