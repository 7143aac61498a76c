"""The place in the data where a training was stopped, for another number of processes."""

from __future__ import annotations

import functools
import logging
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

from lsg_fairseq.modules.lsg_config import LSGError

logger = logging.getLogger(__name__)

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
