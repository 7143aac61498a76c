"""Resuming: what fairseq's trainer takes from a checkpoint beside the weights."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from fairseq.trainer import Trainer
from torch.optim import Optimizer

from lsg_fairseq.compat.loading import DamagedCheckpointError, load_checkpoint_file
from lsg_fairseq.modules.lsg_config import LSGError

logger = logging.getLogger(__name__)

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


# --- a damaged checkpoint_last.pt ends the training for good, though a whole checkpoint lies beside it.


def damaged_checkpoints_end_the_training() -> bool:
    return not hasattr(Trainer.load_checkpoint, "lsg_fairseq_goes_on")


def go_on_from_whole_checkpoints() -> None:
    upstream = Trainer.load_checkpoint

    @functools.wraps(upstream)
    def load_checkpoint(trainer: Trainer, filename: str, *args: Any, **kwargs: Any) -> Any:
        settings, path = trainer.cfg.checkpoint, Path(filename)
        is_last = path == Path(settings.save_dir) / f"checkpoint_last{trainer.checkpoint_suffix}.pt"
        # A file that is named with --restore-file is meant, and no other.
        if settings.restore_file == "checkpoint_last.pt" and is_last and path.is_file() and not is_whole(path):
            filename = str(_newest_whole(path))
        return upstream(trainer, filename, *args, **kwargs)

    load_checkpoint.lsg_fairseq_goes_on = True
    Trainer.load_checkpoint = load_checkpoint


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read; its tensors are only mapped into memory.

    Raises:
        LSGError: it asks for code.
    """
    try:
        load_checkpoint_file(str(path), mmap=True)
    except DamagedCheckpointError:
        return False
    return True


def _newest_whole(damaged: Path) -> Path:
    suffix = damaged.name.removeprefix("checkpoint_last")
    others = [path for path in damaged.parent.glob(f"checkpoint*{suffix}") if path != damaged]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        if is_whole(path):
            logger.warning(f"{damaged} is damaged or cut short, so the training goes on from {path}")
            return path
    raise LSGError(
        f"{damaged} is damaged or cut short, and no whole checkpoint lies beside it: begin again in another "
        "--save-dir, or put a copy in its place"
    )
