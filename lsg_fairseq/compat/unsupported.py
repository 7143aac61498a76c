"""Flags that cannot work are refused in one sentence before anything is loaded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from fairseq import options
from fairseq.distributed import utils as distributed_utils

from lsg_fairseq.modules.lsg_config import LSGError

# --- flags of distributed training that are ignored, or end in a traceback about CUDA, a package or a missing GPU.


def flags_are_ignored() -> bool:
    return not hasattr(distributed_utils.call_main, "lsg_fairseq_refuses")


def refuse_what_cannot_be() -> None:
    upstream = distributed_utils.call_main

    @functools.wraps(upstream)
    def call_main(cfg: Any, main: Callable[..., Any], **kwargs: Any) -> None:
        on_cpu = cfg.common.cpu or not torch.cuda.is_available()
        refuse_pipelines(cfg.distributed_training.pipeline_model_parallel, getattr(cfg.model, "_name", None))
        refuse_backends(cfg.distributed_training, on_cpu, has_fairscale=find_spec("fairscale") is not None)
        refuse_asynchronous_saving(cfg.checkpoint.write_checkpoints_asynchronously)
        # eval_lm has shards, as generate has; both look at more than this.
        if cfg.dataset.num_shards > 1 and not main.__module__.endswith("eval_lm"):
            raise LSGError(f"--num-shards {cfg.dataset.num_shards} is for fairseq-generate: leave it out")
        return upstream(cfg, main, **kwargs)

    call_main.lsg_fairseq_refuses = True
    distributed_utils.call_main = call_main


def refuse_asynchronous_saving(asked_for: bool) -> None:
    """Refuse --save-async without the package that does it: fairseq prints a page and saves as usual.

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
    """Refuse what needs fairscale or a GPU and has none.

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


def shards_are_ignored() -> bool:
    return not hasattr(options.parse_args_and_arch, "lsg_fairseq_shards")


def generate_shards() -> None:
    upstream = options.parse_args_and_arch

    @functools.wraps(upstream)
    def parse_args_and_arch(*args: Any, **kwargs: Any) -> Any:
        parsed = upstream(*args, **kwargs)
        # (args, rest) with parse_known. Of all commands, generate alone has a beam and no buffer of input lines.
        flags = parsed[0] if isinstance(parsed, tuple) else parsed
        if hasattr(flags, "beam") and not hasattr(flags, "buffer_size") and hasattr(flags, "num_shards"):
            take_shard(flags)
        return parsed

    parse_args_and_arch.lsg_fairseq_shards = True
    options.parse_args_and_arch = parse_args_and_arch


def take_shard(flags: Any) -> None:
    """Copy the shard into world size and rank, where fairseq-generate looks for it.

    Raises:
        LSGError: there is no such shard, or two pairs of flags say different things.
    """
    refuse_pipelines(flags.pipeline_model_parallel, None)
    names = ("num_shards", "shard_id") if flags.num_shards > 1 else ("distributed_world_size", "distributed_rank")
    count, number = (getattr(flags, name) for name in names)
    if not 0 <= number < count or (flags.num_shards <= 1 and flags.shard_id):
        raise LSGError(f"--shard-id must be 0 to --num-shards less one: {flags.shard_id} of {flags.num_shards} is none")
    if flags.num_shards > 1 and flags.distributed_world_size > 1:
        raise LSGError("--num-shards and --distributed-world-size both divide the data: give one of them")
    flags.distributed_world_size, flags.distributed_rank = count, number
