"""Launching: processes that are started together train one model, on CPUs as on GPUs."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils
from omegaconf import open_dict
from torch.multiprocessing import ProcessRaisedException

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.processes import Place, srun_place, torchrun_place

# --- started together, yet each trains a model of its own: fairseq reads WORLD_SIZE unless one GPU is here.
# --- On CPUs it starts no process at all, or divides by the number of GPUs.


@patches(distributed_utils, "call_main")
def join_processes(upstream: Callable[..., Any], cfg: Any, main: Callable[..., Any], **kwargs: Any) -> Any:
    on_cpu = cfg.common.cpu or not torch.cuda.is_available()
    with open_dict(cfg):
        num_procs = prepare(cfg.distributed_training, os.environ, on_cpu)
    try:
        if num_procs is None:
            return upstream(cfg, main, **kwargs)
        return _spawn(cfg, main, kwargs, num_procs)
    except ProcessRaisedException as error:
        sentence = _sentence_of(error)
        if sentence is None:
            raise
        raise sentence from error


def prepare(settings: Any, environment: Mapping[str, str], on_cpu: bool) -> int | None:
    """Say in the settings of distributed training who this process is and how it finds the others.

    Returns the number of processes to start on a CPU; None: fairseq does the rest.

    Raises:
        LSGError: the flags contradict what started this process, or one is missing.
    """
    if on_cpu:
        settings.distributed_backend = "gloo"
    torchrun, srun = torchrun_place(environment), srun_place(environment)
    if settings.distributed_init_method in (None, "env://") and torchrun:
        return _join_torchrun(settings, torchrun, environment)
    if settings.distributed_init_method is None and srun:
        return _join_srun(settings, srun, environment, on_cpu)
    return _find_by_flags(settings) if on_cpu else None


def _join_torchrun(settings: Any, place: Place, environment: Mapping[str, str]) -> None:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing:
        raise LSGError(
            f"the environment says {place.source}, but not {' and '.join(missing)}: start with torchrun, or unset both"
        )
    _check_world_size(settings, place, "torchrun")
    settings.distributed_init_method = "env://"
    _take(settings, place)


def _join_srun(settings: Any, place: Place, environment: Mapping[str, str], on_cpu: bool) -> None:
    if settings.distributed_port <= 0:
        raise LSGError(
            f"srun started {place.world_size} of these processes, and each would train a model of its own: add "
            "--distributed-port PORT (a free one, the same for all) for one training, or start one task"
        )
    if on_cpu:
        _check_world_size(settings, place, "srun")
        settings.distributed_init_method = f"tcp://{_first_host(environment)}:{settings.distributed_port}"
        _take(settings, place)
    else:
        # fairseq asks Slurm itself, unless the world size is 1.
        settings.distributed_world_size = place.world_size


def _take(settings: Any, place: Place) -> None:
    """This process is one rank, and starts no others."""
    settings.distributed_world_size, settings.distributed_rank = place.world_size, place.rank
    # Where each process sees one GPU alone, that is its number 0.
    settings.device_id = place.local_rank % max(1, torch.cuda.device_count())
    settings.distributed_no_spawn = True


def _check_world_size(settings: Any, place: Place, launcher: str) -> None:
    asked = settings.distributed_world_size
    if asked not in (1, place.world_size, torch.cuda.device_count()):
        raise LSGError(
            f"--distributed-world-size {asked} does not fit the {place.world_size} processes that {launcher} started: "
            "leave it out"
        )


def _first_host(environment: Mapping[str, str]) -> str:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    try:
        return subprocess.check_output(["scontrol", "show", "hostnames", nodes], text=True).split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise LSGError(
            f"scontrol does not say which machines {nodes!r} are ({error}): name one with --distributed-init-method "
            "tcp://HOST:PORT and give each process its --distributed-rank"
        ) from error


def _find_by_flags(settings: Any) -> int | None:
    """As the flags say, on CPUs: one rank that finds the others, or as many processes as the world is large."""
    world_size, rank = settings.distributed_world_size, settings.distributed_rank
    if not 0 <= rank < world_size:
        raise LSGError(f"--distributed-rank {rank} must be 0 to --distributed-world-size less one, {world_size - 1}")
    if settings.distributed_init_method is not None:
        settings.distributed_no_spawn = True
        return None
    if world_size == 1:
        return None
    if settings.distributed_no_spawn or rank:
        flag = "no-spawn" if settings.distributed_no_spawn else f"rank {rank}"
        raise LSGError(
            f"--distributed-{flag} in a world of {world_size} means several commands: say how they find each other, "
            "--distributed-init-method tcp://HOST:PORT, or start them with torchrun"
        )
    settings.distributed_init_method = f"tcp://localhost:{_free_port()}"
    return world_size


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def _spawn(cfg: Any, main: Callable[..., Any], kwargs: dict[str, Any], num_procs: int) -> None:
    # fairseq itself starts as many as there are GPUs. It takes rank None for "count from start_rank on".
    cfg.distributed_training.distributed_rank = None
    torch.multiprocessing.spawn(distributed_utils.distributed_main, (main, cfg, kwargs), nprocs=num_procs)


def _sentence_of(error: ProcessRaisedException) -> LSGError | None:
    """What a worker said in one sentence, out of the page that its parent is given."""
    found = re.findall(r"^lsg_fairseq\.\S+Error: (.*)$", str(error), re.MULTILINE)
    return LSGError(found[-1]) if found else None
