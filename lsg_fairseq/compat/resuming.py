"""Resuming: what fairseq's trainer takes from a checkpoint beside the weights."""

from __future__ import annotations

import functools
from typing import Any

from fairseq.trainer import Trainer
from torch.optim import Optimizer

from lsg_fairseq.modules.lsg_config import LSGError

# --- an optimizer's state of other trained parameters is torch's own error, or in half precision that of a later step.


def optimizer_states_are_not_compared() -> bool:
    return not hasattr(Trainer.load_checkpoint, "lsg_fairseq_fix")


def refuse_other_optimizer_states() -> None:
    upstream = Trainer.load_checkpoint

    @functools.wraps(upstream)
    def load_checkpoint(trainer: Trainer, filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            extra_state = upstream(trainer, filename, *args, **kwargs)
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            raise _of_other_parameters(filename) from error
        optimizer = getattr(trainer.optimizer, "optimizer", None)  # empty, if nothing was restored
        if isinstance(optimizer, Optimizer) and not state_fits(optimizer):
            raise _of_other_parameters(filename)
        return extra_state

    load_checkpoint.lsg_fairseq_fix = True
    Trainer.load_checkpoint = load_checkpoint


def state_fits(optimizer: Optimizer) -> bool:
    """Whether every running mean of gradients is as large as its parameter (half precision: all of them in one)."""
    return all(
        state["exp_avg"].shape == parameter.shape for parameter, state in optimizer.state.items() if "exp_avg" in state
    )


def _of_other_parameters(filename: str) -> LSGError:
    return LSGError(
        f"{filename} is of a training of other parts of the model: go on with the --freeze-encoder and "
        "--freeze-embeddings that it was begun with, or begin with its weights alone: "
        f"--finetune-from-model {filename} and another --save-dir"
    )
