"""The rank of this process and the number of processes, from the environment variables of torchrun or srun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lsg_fairseq.modules.lsg_config import LSGError

TORCHRUN = ("RANK", "WORLD_SIZE")
# Set by srun only: SLURM_PROCID by itself, and SLURM_NTASKS, are also set in a batch script, which runs once.
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


@dataclass(frozen=True)
class ProcessPlace:
    """This process among all: its `rank` from 0, their number `world_size`, and its number on this machine.

    `source` names the variables that these come from.
    """

    rank: int
    world_size: int
    local_rank: int
    source: str


def place_of(environment: Mapping[str, str]) -> ProcessPlace | None:
    """The place of this process among several that torchrun or srun started; None if there is only one.

    torchrun's variables are read first, because srun often starts torchrun, once per machine.

    Raises:
        LSGError: the variables contradict each other or are not integers.
    """
    return torchrun_place(environment) or srun_place(environment)


def torchrun_place(environment: Mapping[str, str]) -> ProcessPlace | None:
    """The place among several processes of torchrun, or of another launcher that sets RANK and WORLD_SIZE.

    Raises:
        LSGError: as place_of.
    """
    return _place(environment, TORCHRUN, "LOCAL_RANK")


def srun_place(environment: Mapping[str, str]) -> ProcessPlace | None:
    """The place among the tasks of a Slurm step; None in a batch script, and in a step with one task.

    Raises:
        LSGError: as place_of.
    """
    return _place(environment, SRUN, "SLURM_LOCALID")


def _place(environment: Mapping[str, str], names: tuple[str, str], local: str) -> ProcessPlace | None:
    if not all(environment.get(name) for name in names):
        return None
    rank, world_size = (_number(environment, name) for name in names)
    if world_size < 2:
        return None
    if not 0 <= rank < world_size:
        raise LSGError(
            f"the environment says {names[0]}={rank} and {names[1]}={world_size}, but ranks are 0 to {world_size - 1}: "
            f"unset both, or start the processes with {'torchrun' if names is TORCHRUN else 'srun'}"
        )
    local_rank = _number(environment, local) if environment.get(local) else 0
    return ProcessPlace(rank, world_size, local_rank, f"{names[0]} and {names[1]}")


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError as error:
        raise LSGError(
            f"the environment says {name}={environment[name]!r}, which is not an integer: unset it"
        ) from error
