"""Wrappers of fairseq's datasets: cut sequences, special tokens around them, shifted alignments, values per pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, FairseqDataset, LanguagePairDataset
from torch import Tensor

from lsg_fairseq.data.kept_part import keep


class KeptPartDataset(BaseWrapperDataset):
    """Sequences cut to `room` tokens.

    Args:
        part: which part of a longer sequence is kept, one of PARTS.
        leads: for each sequence, how many of its first tokens are never cut; None: no such tokens.
    """

    def __init__(self, dataset: FairseqDataset, room: int, part: str, leads: Sequence[int] | None = None) -> None:
        super().__init__(dataset)
        self.room, self.part, self.leads = room, part, leads

    def __getitem__(self, index: int) -> Tensor:
        return self._kept(self.dataset[index], index)

    def positions(self, index: int) -> tuple[Tensor, int]:
        """The positions (n,) of a sequence that are kept, int64, and its length before the cut."""
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


class SurroundedDataset(BaseWrapperDataset):
    """The sequences of a dataset, each with ids (n,) prepended and ids (m,) appended.

    `around` holds such a pair for each sequence, or one pair for all; n + m is the same for all sequences.
    """

    def __init__(self, dataset: FairseqDataset, around: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__(dataset)
        self.around = around
        self.added = sum(map(len, around[0]))

    def __getitem__(self, index: int) -> Tensor:
        item = self.dataset[index]
        front, behind = self._around(index)
        return torch.cat([front.to(item), item, behind.to(item)])

    def num_front(self, index: int) -> int:
        """The number of ids prepended to a sequence."""
        return len(self._around(index)[0])

    def _around(self, index: int) -> tuple[Tensor, Tensor]:
        return self.around[index if len(self.around) > 1 else 0]

    @property
    def sizes(self) -> np.ndarray:
        return np.asarray(self.dataset.sizes) + self.added

    def num_tokens(self, index: int) -> int:
        return self.dataset.num_tokens(index) + self.added

    def size(self, index: int) -> int:
        return self.dataset.size(index) + self.added


class MovedAlignments(BaseWrapperDataset):
    """Word alignments (--load-alignments), shifted to the positions of the tokens that the model reads.

    An item is (2n,): source and target positions in turn. `sides`, source and target, are SurroundedDatasets of
    KeptPartDatasets. A pair with a token that was cut is left out.
    """

    def __init__(self, dataset: FairseqDataset, *sides: SurroundedDataset) -> None:
        super().__init__(dataset)
        self.sides = sides

    def __getitem__(self, index: int) -> Tensor:
        pairs = self.dataset[index].view(-1, 2).long()
        moved = [_moved(column, side, index) for column, side in zip(pairs.unbind(1), self.sides, strict=True)]
        moved_pairs = torch.stack(moved, dim=1)
        return moved_pairs[(moved_pairs >= 0).all(dim=1)].flatten()


def _moved(places: Tensor, side: SurroundedDataset, index: int) -> Tensor:
    """The new positions (n,) of the tokens at old positions (n,); -1 where a token was cut."""
    kept, length = side.dataset.positions(index)
    table = torch.full((length + 1,), -1)  # the last row stands for positions beyond the sequence
    table[kept] = torch.arange(len(kept)) + side.num_front(index)
    return table[places.clamp(max=length)]


class ValuedPairDataset(LanguagePairDataset):
    """fairseq's pairs, with further values for each: `values` are tensors (N,), and a batch gets their rows (B,).

    The names are those that LSGSequenceGenerator reads, and `query_length`. `decoder_start` replaces the first token
    of each decoder input.
    """

    def __init__(self, values: Mapping[str, Tensor], *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.values = values

    def collater(self, samples: list[dict[str, Any]], pad_to_length: dict[str, int] | None = None) -> dict[str, Any]:
        """fairseq's batch, with the values of its pairs added."""
        batch = super().collater(samples, pad_to_length)
        if not batch or not self.values:
            return batch
        batch |= {name: rows[batch["id"]] for name, rows in self.values.items()}
        previous = batch["net_input"].get("prev_output_tokens")
        if previous is not None and "decoder_start" in batch:
            first = previous.ne(self.tgt_dict.pad()).int().argmax(1)
            previous[torch.arange(len(previous)), first] = batch["decoder_start"]
        return batch
