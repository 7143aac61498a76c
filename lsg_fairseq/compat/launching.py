"""Launching: flags that cannot work, processes that train one model, and 16-bit training without a TPU or a GPU."""

from __future__ import annotations

import functools
import inspect
import os
import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from fairseq import options
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from fairseq.optim.fp16_optimizer import FP16Optimizer
from omegaconf import open_dict
from torch.multiprocessing import ProcessRaisedException

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.processes import ProcessPlace, srun_place, torchrun_place

# --- flags of distributed training that are ignored, or end in a traceback about CUDA, a package or a missing GPU.


@patches(distributed_utils, "call_main")
def refuse_what_cannot_be(upstream: Callable[..., Any], cfg: Any, main: Callable[..., Any], **kwargs: Any) -> Any:
    on_cpu = cfg.common.cpu or not torch.cuda.is_available()
    refuse_pipelines(cfg.distributed_training.pipeline_model_parallel, getattr(cfg.model, "_name", None))
    refuse_backends(cfg.distributed_training, on_cpu, has_fairscale=find_spec("fairscale") is not None)
    refuse_asynchronous_saving(cfg.checkpoint.write_checkpoints_asynchronously)
    # eval_lm has shards, as generate has; both look at more than this.
    if cfg.dataset.num_shards > 1 and not main.__module__.endswith("eval_lm"):
        raise LSGError(f"--num-shards {cfg.dataset.num_shards} is for fairseq-generate: leave it out")
    return upstream(cfg, main, **kwargs)


def refuse_asynchronous_saving(asked_for: bool) -> None:
    """Refuse --save-async without the package that it needs: fairseq prints a traceback and saves as usual.

    Raises:
        LSGError: it was asked for.
    """
    if asked_for and find_spec("iopath") is None:
        raise LSGError("--save-async needs the package iopath, which is not installed: pip install iopath")


def refuse_pipelines(asked_for: bool, arch: str | None) -> None:
    """Refuse --pipeline-model-parallel for an architecture that is not cut into stages.

    Raises:
        LSGError: it was asked for.
    """
    if asked_for and not str(arch).startswith("pipeline_parallel"):
        raise LSGError(
            f"--pipeline-model-parallel: {arch or 'this model'} cannot be cut into stages; for memory use "
            "--checkpoint-activations, and start a process for each GPU with torchrun"
        )


def refuse_backends(settings: Any, on_cpu: bool, has_fairscale: bool) -> None:
    """Refuse flags that need fairscale or a GPU where there is none.

    Raises:
        LSGError: such a flag was given.
    """
    flag = "--zero-sharding os" if settings.zero_sharding == "os" else ""
    if settings.ddp_backend in ("fully_sharded", "slowmo"):
        flag = f"--ddp-backend {settings.ddp_backend}"
        if on_cpu:
            raise LSGError(f"{flag} needs GPUs: on CPUs use pytorch_ddp or legacy_ddp")
    if flag and not has_fairscale:
        raise LSGError(f"{flag} needs the package fairscale, which is not installed: pip install fairscale")


# --- fairseq-generate ignores --num-shards and --shard-id: each of N machines generates everything.


@patches(options, "parse_args_and_arch")
def generate_shards(upstream: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    parsed = upstream(*args, **kwargs)
    # (args, rest) with parse_known. Of all commands, generate alone has a beam and no buffer of input lines.
    flags = parsed[0] if isinstance(parsed, tuple) else parsed
    if hasattr(flags, "beam") and not hasattr(flags, "buffer_size") and hasattr(flags, "num_shards"):
        take_shard(flags)
    return parsed


def take_shard(flags: Any) -> None:
    """Copy the shard to world size and rank, which fairseq-generate reads instead.

    Raises:
        LSGError: there is no such shard, or both pairs of flags are given.
    """
    refuse_pipelines(flags.pipeline_model_parallel, None)
    names = ("num_shards", "shard_id") if flags.num_shards > 1 else ("distributed_world_size", "distributed_rank")
    count, number = (getattr(flags, name) for name in names)
    if not 0 <= number < count or (flags.num_shards <= 1 and flags.shard_id):
        raise LSGError(f"--shard-id must be 0 to --num-shards less one: {flags.shard_id} of {flags.num_shards} is none")
    if flags.num_shards > 1 and flags.distributed_world_size > 1:
        raise LSGError("--num-shards and --distributed-world-size both divide the data: give one of them")
    flags.distributed_world_size, flags.distributed_rank = count, number


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
    """Set this process' rank, the world size and the init method among the settings of distributed training.

    Returns:
        the number of processes to start on CPUs; None where fairseq does the rest.

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


def _join_torchrun(settings: Any, place: ProcessPlace, environment: Mapping[str, str]) -> None:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing:
        raise LSGError(
            f"the environment says {place.source}, but not {' and '.join(missing)}: start with torchrun, or unset both"
        )
    _check_world_size(settings, place, "torchrun")
    settings.distributed_init_method = "env://"
    _take(settings, place)


def _join_srun(settings: Any, place: ProcessPlace, environment: Mapping[str, str], on_cpu: bool) -> None:
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


def _take(settings: Any, place: ProcessPlace) -> None:
    """Make this process one rank, which starts no others."""
    settings.distributed_world_size, settings.distributed_rank = place.world_size, place.rank
    # Where each process sees one GPU alone, that is its number 0.
    settings.device_id = place.local_rank % max(1, torch.cuda.device_count())
    settings.distributed_no_spawn = True


def _check_world_size(settings: Any, place: ProcessPlace, launcher: str) -> None:
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
    """On CPUs, by the flags: None for one rank that finds the others, else the number of processes to start."""
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
    """The one sentence of a worker, taken from the traceback that its parent gets."""
    found = re.findall(r"^lsg_fairseq\.\S+Error: (.*)$", str(error), re.MULTILINE)
    return LSGError(found[-1]) if found else None


# --- --bf16 switches TPU mode on, which needs torch_xla and turns CUDA off.


def bf16_means_tpu() -> bool:
    return "args.tpu = True" in inspect.getsource(options.parse_args_and_arch)


@patches(distributed_utils, "call_main", bf16_means_tpu)
def bf16_without_tpu(upstream: Callable[..., Any], cfg: Any, *args: Any, **kwargs: Any) -> Any:
    if cfg.common.bf16 and find_spec("torch_xla") is None:
        with open_dict(cfg):
            cfg.common.tpu = False
            cfg.distributed_training.tpu = False
    return upstream(cfg, *args, **kwargs)


# --- --fp16 asks CUDA for its current device when it makes one flat copy of the gradients.


def flat_gradients_need_cuda() -> bool:
    return "torch.cuda.current_device()" in inspect.getsource(FP16Optimizer.build_fp32_params)


@patches(distributed_utils, "call_main", flat_gradients_need_cuda)
def fp16_on_cpu(upstream: Callable[..., Any], cfg: Any, *args: Any, **kwargs: Any) -> Any:
    if cfg.common.fp16 and (cfg.common.cpu or not torch.cuda.is_available()):
        with open_dict(cfg):
            cfg.common.fp16_no_flatten_grads = True
    return upstream(cfg, *args, **kwargs)


# --- DistributedDataParallel refuses device_ids for a model on the CPU.


def ddp_gets_device_ids() -> bool:
    return distributed_fairseq_model.DistributedDataParallel is torch.nn.parallel.DistributedDataParallel


def ddp_without_device_ids() -> None:
    @functools.wraps(torch.nn.parallel.DistributedDataParallel)
    def distributed_data_parallel(module: torch.nn.Module, **kwargs: Any) -> torch.nn.Module:
        if next(module.parameters()).device.type == "cpu":
            kwargs.update(device_ids=None, output_device=None)
        return torch.nn.parallel.DistributedDataParallel(module, **kwargs)

    distributed_fairseq_model.DistributedDataParallel = distributed_data_parallel


# --- all_gather_list, which gathers validation statistics, wants a buffer on the GPU even where there is none.


@patches(distributed_utils, "all_gather_list")
def gather_on_cpu(upstream: Callable[..., Any], data: Any, group: Any = None, max_size: int = 16384) -> list[Any]:
    group = distributed_utils.get_global_group() if group is None else group
    if torch.distributed.get_backend(group) != "gloo":
        return upstream(data, group, max_size)
    gathered = [None] * distributed_utils.get_world_size(group)
    torch.distributed.all_gather_object(gathered, data, group)
    return gathered
