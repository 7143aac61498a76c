"""A checkpoint that was opened and is to be converted, in one form for Hugging Face folders and fairseq files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairseq.data import Dictionary
from torch import Tensor

from lsg_fairseq.huggingface.read_folder import HFCheckpoint
from lsg_fairseq.huggingface.seq2seq_weights import convert_from_hf, convert_longer_from_hf
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import DocumentTokenizer, symbol_from_token
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.position_tables import lengthen
from lsg_fairseq.weights.upgrade_bart import upgrade_fairseq_bart
from lsg_fairseq.weights.upgrade_roberta import upgrade_fairseq_roberta

MASK = "<mask>"
# What an export takes token ids, labels and generation settings from.
ORIGINAL_FILE = "hf_config.json"


@dataclass(frozen=True)
class Source:
    """A checkpoint that was opened, but not converted yet.

    `hf` or `weights` is set; `rows` maps Hugging Face's embedding rows to the dictionary's, None where they are equal.
    `generation` has fairseq's names; `notes` are sentences about what could not be carried over;
    `original` the Hugging Face configuration that an export can fall back to, {} if there was none.
    """

    name: str
    spec: ModelSpec
    args: Mapping[str, Any]
    dictionary: Dictionary
    tokenizer: DocumentTokenizer | None
    sequence_format: SequenceFormat
    hf: HFCheckpoint | None = None
    weights: Mapping[str, Tensor] | None = None
    rows: Tensor | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    original: Mapping[str, Any] = field(default_factory=dict)

    def state_dict(self, max_source_positions: int, max_target_positions: int) -> dict[str, Tensor]:
        """The state dict of an LSG model of these lengths; the second is 0 for an encoder alone.

        Raises:
            LSGError: weights and configuration do not fit, or a trained position table would have to be cut.
        """
        lengths = (max_source_positions, max_target_positions)
        mask = find_mask(self.dictionary, self.tokenizer)
        if self.upgrades(mask):
            upgrade = upgrade_fairseq_bart if self.spec.has_decoder else upgrade_fairseq_roberta
            sizes = {"max_source_positions": lengths[0], "max_target_positions": lengths[1]}
            state = self.weights if self.hf is None else convert_from_hf(self.hf.tensors, self.spec, self.rows)
            return upgrade(state, replace(self.spec, **sizes, vocab_size=len(self.dictionary)), mask)
        if mask is None and not self.spec.is_lsg:
            raise LSGError(f"the tokenizer of {self.name} has no mask token, which new global tokens are made from")
        if self.hf is None:
            return lengthen(self.weights, self.spec, *lengths, mask_row=mask)[0]
        return convert_longer_from_hf(self.hf.tensors, self.spec, self.rows, lengths, mask)

    def upgrades(self, mask: int | None) -> bool:
        """Whether the weights are to be brought up as fairseq's own: those are, and a BART without a `<mask>` row."""
        if self.hf is None:
            return bool(self.spec.row.stock) if self.spec.has_decoder else not self.spec.is_lsg
        return self.spec.has_decoder and bool(self.spec.row.stock) and mask is None and not self.spec.is_lsg


def find_mask(dictionary: Dictionary, tokenizer: DocumentTokenizer | None) -> int | None:
    """The row of the mask token, None if the dictionary has none."""
    row = dictionary.index(symbol_from_token((tokenizer and tokenizer.mask) or MASK))
    return None if row == dictionary.unk() else row
