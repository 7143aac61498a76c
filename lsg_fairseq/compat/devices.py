"""Devices: 16-bit training without a TPU, and several processes without a GPU."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from fairseq import options
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from fairseq.optim.fp16_optimizer import FP16Optimizer
from omegaconf import open_dict

from lsg_fairseq.compat.patch import patches

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
