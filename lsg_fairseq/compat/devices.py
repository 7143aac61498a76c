"""Devices: 16-bit training without a TPU, and several processes without a GPU."""

from __future__ import annotations

import functools
import inspect
import os
import random
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from fairseq import options
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from fairseq.optim.fp16_optimizer import FP16Optimizer
from omegaconf import open_dict

# --- --bf16 switches TPU mode on, which needs torch_xla and turns CUDA off.


def bf16_means_tpu() -> bool:
    return "args.tpu = True" in inspect.getsource(options.parse_args_and_arch) and not _wraps("bf16_without_tpu")


def bf16_without_tpu() -> None:
    def reset_tpu(cfg: Any) -> None:
        if cfg.common.bf16 and find_spec("torch_xla") is None:
            with open_dict(cfg):
                cfg.common.tpu = False
                cfg.distributed_training.tpu = False

    _before_main("bf16_without_tpu", reset_tpu)


# --- --fp16 asks CUDA for its current device when it makes one flat copy of the gradients.


def flat_gradients_need_cuda() -> bool:
    return "torch.cuda.current_device()" in inspect.getsource(FP16Optimizer.build_fp32_params) and not _wraps(
        "fp16_on_cpu"
    )


def fp16_on_cpu() -> None:
    def keep_gradients_apart(cfg: Any) -> None:
        if cfg.common.fp16 and (cfg.common.cpu or not torch.cuda.is_available()):
            with open_dict(cfg):
                cfg.common.fp16_no_flatten_grads = True

    _before_main("fp16_on_cpu", keep_gradients_apart)


# --- several processes without GPUs: fairseq starts as many workers as there are GPUs, that is none, and exits 0.


def cpu_workers_are_not_started() -> bool:
    return "torch.cuda.device_count()" in inspect.getsource(_upstream_call_main()) and not _wraps("start_cpu_workers")


def start_cpu_workers() -> None:
    upstream = distributed_utils.call_main

    @functools.wraps(upstream)
    def call_main(cfg: Any, main: Callable[..., Any], **kwargs: Any) -> None:
        settings = cfg.distributed_training
        launched = settings.distributed_init_method is not None or settings.distributed_no_spawn or "RANK" in os.environ
        if settings.distributed_world_size < 2 or launched or (torch.cuda.is_available() and not cfg.common.cpu):
            return upstream(cfg, main, **kwargs)
        with open_dict(cfg):
            settings.distributed_init_method = f"tcp://localhost:{random.randint(10000, 20000)}"
            settings.distributed_backend = "gloo"
            settings.distributed_rank = None
            settings.distributed_num_procs = settings.distributed_world_size
        return torch.multiprocessing.spawn(
            distributed_utils.distributed_main, (main, cfg, kwargs), nprocs=settings.distributed_world_size
        )

    _mark(call_main, upstream, "start_cpu_workers")
    distributed_utils.call_main = call_main


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


def _before_main(name: str, prepare: Callable[[Any], None]) -> None:
    upstream = distributed_utils.call_main

    @functools.wraps(upstream)
    def call_main(cfg: Any, main: Callable[..., Any], **kwargs: Any) -> None:
        prepare(cfg)
        return upstream(cfg, main, **kwargs)

    _mark(call_main, upstream, name)
    distributed_utils.call_main = call_main


def _mark(wrapper: Callable[..., Any], upstream: Callable[..., Any], name: str) -> None:
    wrapper.lsg_fairseq_fixes = {*getattr(upstream, "lsg_fairseq_fixes", ()), name}


def _wraps(name: str) -> bool:
    return name in getattr(distributed_utils.call_main, "lsg_fairseq_fixes", ())


def _upstream_call_main() -> Callable[..., Any]:
    return inspect.unwrap(distributed_utils.call_main)
