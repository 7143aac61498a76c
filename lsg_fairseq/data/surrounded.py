"""Sequences with tokens put around them, and pairs of which each has a language of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, FairseqDataset, LanguagePairDataset
from torch import Tensor


class SurroundedDataset(BaseWrapperDataset):
    """The sequences of a data set, each with ids (n,) in front of it and ids (m,) behind it.

    `around` holds these two for every sequence, or one pair of them for all; n + m is the same for all.
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
        """How many ids are in front of a sequence."""
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


class SpokenPairDataset(LanguagePairDataset):
    """fairseq's pairs with tensors (N,) of a value a pair, which a batch has for its rows.

    They are what LSGSequenceGenerator reads, and `query_length`; `decoder_start` among them begins each decoder input.
    """

    def __init__(self, values: Mapping[str, Tensor], *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.values = values

    def collater(self, samples: list[dict[str, Any]], pad_to_length: dict[str, int] | None = None) -> dict[str, Any]:
        """fairseq's batch, with the values of its rows."""
        batch = super().collater(samples, pad_to_length)
        if not batch or not self.values:
            return batch
        batch |= {name: rows[batch["id"]] for name, rows in self.values.items()}
        previous = batch["net_input"].get("prev_output_tokens")
        if previous is not None and "decoder_start" in batch:
            first = previous.ne(self.tgt_dict.pad()).int().argmax(1)
            previous[torch.arange(len(previous)), first] = batch["decoder_start"]
        return batch
