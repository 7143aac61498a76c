"""Sequences with tokens put around them."""

from __future__ import annotations

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, FairseqDataset
from torch import Tensor


class SurroundedDataset(BaseWrapperDataset):
    """The sequences of a data set, each with the ids `front` (n,) in front of it and `behind` (m,) behind it."""

    def __init__(self, dataset: FairseqDataset, front: Tensor, behind: Tensor) -> None:
        super().__init__(dataset)
        self.front, self.behind = front, behind
        self.added = len(front) + len(behind)

    def __getitem__(self, index: int) -> Tensor:
        item = self.dataset[index]
        return torch.cat([self.front.to(item), item, self.behind.to(item)])

    @property
    def sizes(self) -> np.ndarray:
        return np.asarray(self.dataset.sizes) + self.added

    def num_tokens(self, index: int) -> int:
        return self.dataset.num_tokens(index) + self.added

    def size(self, index: int) -> int:
        return self.dataset.size(index) + self.added
