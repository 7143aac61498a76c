"""Which part of a document is kept where it is longer than what the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, FairseqDataset
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError

HEAD, TAIL, ENDS, MIDDLE = "head", "tail", "ends", "middle"
PARTS = (HEAD, TAIL, ENDS, MIDDLE)
PARTS_HELP = (
    "what is kept of a document that is longer than the model reads: head, its first tokens; tail, its last; ends, "
    "first and last, half of the room each (the middle is cut out); middle, as much from its middle"
)
# The name under which a checkpoint keeps the part that it was trained on.
PART_STATE = "keep_part"


def check_part(part: object, where: str) -> None:
    """Refuse what is no part.

    Raises:
        LSGError: it is none.
    """
    if part is not None and part not in PARTS:
        raise LSGError(f"{where} must be {', '.join(PARTS[:-1])} or {PARTS[-1]}, not {part!r:.80}")


@dataclass
class KeptPart:
    """The part that a task keeps: what its user chose, else the data's own, else the checkpoint's, else the head.

    Raises:
        LSGError: the choice is no part.
    """

    chosen: str | None = None
    of_checkpoint: str | None = None

    def __post_init__(self) -> None:
        check_part(self.chosen, "keep_part")
        check_part(self.of_checkpoint, "the checkpoint's keep_part")

    def with_checkpoint(self, part: str | None) -> KeptPart:
        """The same for one more checkpoint, whose part this is (None: it does not say).

        Raises:
            LSGError: it is no part, or another than that of an ensemble's checkpoint before it, and none was chosen.
        """
        known = self.of_checkpoint
        if None not in (part, known) and part != known and self.chosen is None:
            raise LSGError(f"the checkpoints read different parts of documents ({known}, {part}): name a --keep-part")
        return KeptPart(self.chosen, known if part is None else part)

    def of(self, data: str | None = None) -> str:
        """The part for data that was made for one, or for none (None)."""
        return self.chosen or data or self.of_checkpoint or HEAD


def kept_slices(length: int, room: int, part: str) -> list[slice]:
    """Which of `length` tokens are kept where there is room for `room`; of an odd room the beginning has more."""
    if length <= room:
        return [slice(0, length)]
    if part == TAIL:
        return [slice(length - room, length)]
    if part == ENDS:
        return [slice(0, room - room // 2), slice(length - room // 2, length)]
    start = (length - room) // 2 if part == MIDDLE else 0
    return [slice(start, start + room)]


def keep(tokens: Tensor, room: int, part: str) -> Tensor:
    """The (min(n, room),) tokens that are kept of (n,)."""
    slices = kept_slices(len(tokens), room, part)
    return tokens[slices[0]] if len(slices) == 1 else torch.cat([tokens[each] for each in slices])


class KeptPartDataset(BaseWrapperDataset):
    """Sequences cut to `room` tokens. The first `leads[i]` of sequence i always stay; None: all may be cut."""

    def __init__(self, dataset: FairseqDataset, room: int, part: str, leads: Sequence[int] | None = None) -> None:
        super().__init__(dataset)
        self.room, self.part, self.leads = room, part, leads

    def __getitem__(self, index: int) -> Tensor:
        return self._kept(self.dataset[index], index)

    def positions(self, index: int) -> tuple[Tensor, int]:
        """Which positions of a sequence are kept, (n,), and how long it was."""
        length = len(self.dataset[index])
        return self._kept(torch.arange(length), index), length

    def _kept(self, item: Tensor, index: int) -> Tensor:
        lead = 0 if self.leads is None else self.leads[index]
        if len(item) <= self.room or not lead:
            return keep(item, self.room, self.part)
        return torch.cat([item[:lead], keep(item[lead:], self.room - lead, self.part)])

    @property
    def sizes(self) -> np.ndarray:
        return np.minimum(self.dataset.sizes, self.room)

    def num_tokens(self, index: int) -> int:
        return min(self.dataset.num_tokens(index), self.room)

    def size(self, index: int) -> int:
        return min(self.dataset.size(index), self.room)
