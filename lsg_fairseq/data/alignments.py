"""Word alignments (--load-alignments) of texts that get something in front of them, and that may be cut."""

from __future__ import annotations

import torch
from fairseq.data import BaseWrapperDataset, FairseqDataset
from torch import Tensor

from lsg_fairseq.data.surrounded import SurroundedDataset


class MovedAlignments(BaseWrapperDataset):
    """Pairs (2n,) of a source's and a target's token, as fairseq-preprocess counts them -> as the model reads them.

    `sides` are SurroundedDatasets of KeptPartDatasets. A pair of which one token was cut is left out.
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
    """Where the tokens at (n,) places are now, -1 for those that are not there."""
    kept, length = side.dataset.positions(index)
    table = torch.full((length + 1,), -1)  # its last row is for what was never there
    table[kept] = torch.arange(len(kept)) + side.num_front(index)
    return table[places.clamp(max=length)]
