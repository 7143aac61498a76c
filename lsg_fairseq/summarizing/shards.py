"""Which share of the documents this process of lsg-summarize takes: flags say it, or whatever started several of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.processes import place_of


@dataclass(frozen=True)
class Shard:
    """Number `id` of `num` shares. `source` names the variables that say so, None: flags do, or nothing.

    `local_rank` is this process's number on its machine.
    """

    num: int = 1
    id: int = 0
    source: str | None = None
    local_rank: int = 0

    def line(self) -> str:
        """What the user is told; a share must not be taken for the whole."""
        return f"shard {self.id} of {self.num}" + (f" (the environment's {self.source})" if self.source else "")

    def output(self, path: Path | None) -> Path | None:
        """Where the lines go: processes that share a command line get a file each."""
        return path if self.source is None else Path(f"{path}.shard-{self.id}-of-{self.num}")

    def device(self, device: str, num_gpus: int) -> str:
        """The GPU that is meant where "cuda" is said: processes on one machine take one each."""
        return f"cuda:{self.local_rank % num_gpus}" if self.source and device == "cuda" and num_gpus else device


def choose_shard(num_shards: int | None, shard_id: int | None, environment: Mapping[str, str]) -> Shard:
    """The share that the flags ask for; without them, that of torchrun's or srun's process.

    Raises:
        LSGError: the flags, or the variables, name none.
    """
    if num_shards is None and shard_id is None:
        place = place_of(environment)
        return Shard(place.world_size, place.rank, place.source, place.local_rank) if place else Shard()
    if num_shards is None or (shard_id is None and num_shards != 1):
        raise LSGError("--num-shards and --shard-id belong together: give both")
    if num_shards < 1:
        raise LSGError(f"--num-shards must be 1 or more, not {num_shards}")
    if not 0 <= (shard_id or 0) < num_shards:
        raise LSGError(f"--shard-id must be 0 to {num_shards - 1}, not {shard_id}")
    return Shard(num_shards, shard_id or 0)


def check_streams(shard: Shard, has_inputs: bool, has_output: bool) -> None:
    """Refuse what several processes with one command line cannot share.

    Raises:
        LSGError: they would read one standard input, or write to one standard output.
    """
    if shard.source and not (has_inputs and has_output):
        missing = "--output F" if has_inputs else "files as INPUT"
        raise LSGError(
            f"this is {shard.line()}, and {shard.num} processes cannot share one standard "
            f"{'output' if has_inputs else 'input'}: give {missing}; or --num-shards 1 to ignore the environment"
        )
