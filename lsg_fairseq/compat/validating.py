"""Validating: empty batches on several processes, and checkpoints that were never trained and so name no loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from fairseq import checkpoint_utils
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.tasks import FairseqTask
from omegaconf import DictConfig, OmegaConf, open_dict

from lsg_fairseq.compat.patch import patches

DEFAULT_CRITERION = "cross_entropy"

# --- the last batches do not go round, so some processes get an empty one: fairseq-validate hands it to the model
# --- (KeyError: 'net_input'); fairseq-train knows better.


@patches(checkpoint_utils, "load_model_ensemble_and_task")
def skip_empty_batches(upstream: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    models, cfg, task = upstream(*args, **kwargs)
    skip_empty_samples(task)
    return models, cfg, task


def skip_empty_samples(task: FairseqTask) -> None:
    """Let the task's valid_step answer a batch without examples with a loss of none."""
    upstream = task.valid_step

    @functools.wraps(upstream)
    def valid_step(sample: Any, *args: Any, **kwargs: Any) -> tuple[Any, int, dict[str, Any]]:
        return upstream(sample, *args, **kwargs) if sample else (0.0, 0, {})

    task.valid_step = valid_step


# --- a checkpoint that was converted and not trained here names no criterion (AttributeError).


@patches(checkpoint_utils, "load_model_ensemble_and_task")
def take_criterion_from_flags(
    upstream: Callable[..., Any], filenames: Any, arg_overrides: Any = None, *args: Any, **kwargs: Any
) -> Any:
    models, cfg, task = upstream(filenames, arg_overrides, *args, **kwargs)
    if isinstance(cfg, DictConfig) and cfg.get("criterion") is None:
        with open_dict(cfg):
            cfg.criterion = criterion_of(arg_overrides or {})
    return models, cfg, task


def criterion_of(given: Mapping[str, Any]) -> DictConfig:
    """The settings of the criterion that flags name, with its flags; cross_entropy where they name none."""
    name = given.get("criterion") or DEFAULT_CRITERION
    dataclass = CRITERION_DATACLASS_REGISTRY.get(name)
    settings = {}
    for each in fields(dataclass) if dataclass else ():
        # What is taken from other groups of a training's settings is off where nothing was trained.
        if each.name in given or str(each.default).startswith("${"):
            settings[each.name] = given.get(each.name, False)
    return OmegaConf.create({**settings, "_name": name})
