"""Validating: empty batches on several processes, and checkpoints that were never trained and so name no loss."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fairseq import checkpoint_utils
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.tasks import FairseqTask
from omegaconf import DictConfig, OmegaConf, open_dict

DEFAULT_CRITERION = "cross_entropy"

# --- the last batches do not go round, so some processes get an empty one: fairseq-validate hands it to the model
# --- (KeyError: 'net_input'); fairseq-train knows better.


def empty_batches_are_validated() -> bool:
    return not hasattr(checkpoint_utils.load_model_ensemble_and_task, "lsg_fairseq_skips")


def skip_empty_batches() -> None:
    upstream = checkpoint_utils.load_model_ensemble_and_task

    @functools.wraps(upstream)
    def load_model_ensemble_and_task(*args: Any, **kwargs: Any) -> Any:
        models, cfg, task = upstream(*args, **kwargs)
        skip_empty_samples(task)
        return models, cfg, task

    load_model_ensemble_and_task.lsg_fairseq_skips = True
    checkpoint_utils.load_model_ensemble_and_task = load_model_ensemble_and_task


def skip_empty_samples(task: FairseqTask) -> None:
    """Let the task's valid_step answer a batch without examples with a loss of none."""
    upstream = task.valid_step

    @functools.wraps(upstream)
    def valid_step(sample: Any, *args: Any, **kwargs: Any) -> tuple[Any, int, dict[str, Any]]:
        return upstream(sample, *args, **kwargs) if sample else (0.0, 0, {})

    task.valid_step = valid_step


# --- a checkpoint that was converted and not trained here names no criterion (AttributeError).


def criterion_is_taken_for_granted() -> bool:
    return not hasattr(checkpoint_utils.load_model_ensemble_and_task, "lsg_fairseq_criterion")


def take_criterion_from_flags() -> None:
    upstream = checkpoint_utils.load_model_ensemble_and_task

    @functools.wraps(upstream)
    def load_model_ensemble_and_task(filenames: Any, arg_overrides: Any = None, *args: Any, **kwargs: Any) -> Any:
        models, cfg, task = upstream(filenames, arg_overrides, *args, **kwargs)
        if isinstance(cfg, DictConfig) and cfg.get("criterion") is None:
            with open_dict(cfg):
                cfg.criterion = criterion_of(arg_overrides or {})
        return models, cfg, task

    load_model_ensemble_and_task.lsg_fairseq_criterion = True
    checkpoint_utils.load_model_ensemble_and_task = load_model_ensemble_and_task


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
