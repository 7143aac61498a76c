"""Generating: a task does not learn which checkpoints it generates with."""

from __future__ import annotations

import functools
from typing import Any

from fairseq import checkpoint_utils

# --- load_model_ensemble: the task has no way to the files that are beside a checkpoint.


def task_does_not_know_checkpoints() -> bool:
    return not hasattr(checkpoint_utils.load_model_ensemble, "lsg_fairseq_fix")


def tell_task_its_checkpoints() -> None:
    upstream = checkpoint_utils.load_model_ensemble

    @functools.wraps(upstream)
    def load_model_ensemble(filenames: Any, *args: Any, **kwargs: Any) -> Any:
        task = kwargs.get("task", args[1] if len(args) > 1 else None)
        if hasattr(task, "checkpoint_paths"):
            task.checkpoint_paths = tuple(filenames)
        return upstream(filenames, *args, **kwargs)

    load_model_ensemble.lsg_fairseq_fix = True
    checkpoint_utils.load_model_ensemble = load_model_ensemble
