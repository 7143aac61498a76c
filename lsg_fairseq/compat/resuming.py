"""Resuming: optimizer states, damaged checkpoints, and the position in the data with another number of processes."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from fairseq.data.iterators import EpochBatchIterator
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
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise LSGError(
                f"{filename} holds no training that can be gone on with ({reason:.200}): begin with its weights alone, "
                f"--finetune-from-model {filename} and another --save-dir"
            ) from error
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


# --- a damaged checkpoint_last.pt ends the training for good, though a whole checkpoint lies beside it; and where
# --- --restore-file names nothing, a training is begun anew.


def damaged_checkpoints_end_the_training() -> bool:
    return not hasattr(Trainer.load_checkpoint, "lsg_fairseq_goes_on")


def go_on_from_whole_checkpoints() -> None:
    upstream = Trainer.load_checkpoint

    @functools.wraps(upstream)
    def load_checkpoint(trainer: Trainer, filename: str, *args: Any, **kwargs: Any) -> Any:
        settings, path = trainer.cfg.checkpoint, Path(filename)
        is_last = path == Path(settings.save_dir) / f"checkpoint_last{trainer.checkpoint_suffix}.pt"
        if settings.restore_file != "checkpoint_last.pt" and "://" not in filename and not path.is_file():
            raise LSGError(
                f"--restore-file {filename} is no file: name a checkpoint, or leave the flag out to begin a training"
            )
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


# --- stopped within an epoch and resumed with more or fewer processes, a training reads batches twice or never: fairseq
# --- counts the batches of one process.


def positions_are_of_one_process() -> bool:
    return not hasattr(EpochBatchIterator.load_state_dict, "lsg_fairseq_fix")


def count_batches_of_all_processes() -> None:
    save, load = EpochBatchIterator.state_dict, EpochBatchIterator.load_state_dict

    @functools.wraps(save)
    def state_dict(iterator: EpochBatchIterator) -> dict[str, Any]:
        return {**save(iterator), "num_shards": iterator.num_shards}

    @functools.wraps(load)
    def load_state_dict(iterator: EpochBatchIterator, state: dict[str, Any]) -> None:
        before, done = state.get("num_shards", iterator.num_shards), state.get("iterations_in_epoch", 0)
        if done and before != iterator.num_shards:
            state = {**state, "iterations_in_epoch": _position(iterator, done, before)}
        load(iterator, state)

    load_state_dict.lsg_fairseq_fix = True
    EpochBatchIterator.state_dict, EpochBatchIterator.load_state_dict = state_dict, load_state_dict


def _position(iterator: EpochBatchIterator, done: int, before: int) -> int:
    """Batches that each process has behind it: all share one order of batches, which they read in turns."""
    if iterator.grouped_shuffling:
        raise LSGError(
            f"this epoch was begun with {before} processes and --grouped-shuffling, whose order is another with "
            f"{iterator.num_shards}: use {before}, or begin the epoch again with --reset-dataloader"
        )
    position, repeated = divmod(done * before, iterator.num_shards)
    logger.info(
        f"resumed within an epoch with {iterator.num_shards} processes instead of {before}: {position} batches of each "
        f"are done{f', and {repeated} batches of all are read again' if repeated else ''}"
    )
    return position
