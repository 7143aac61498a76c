"""OpenedCheckpoint: a checkpoint before conversion, in one form for Hugging Face folders and fairseq files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairseq.data import Dictionary
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import DocumentTokenizer, symbol_from_token
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.position_tables import lengthen

MASK = "<mask>"
# What an export takes token ids, labels and generation settings from.
ORIGINAL_FILE = "hf_config.json"
Upgrade = Callable[[Mapping[str, Tensor], ModelSpec, int | None], dict[str, Tensor]]


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint that was opened, but not converted yet.

    `weights` reads the tensors, in fairseq's names, each time it is called; position_tables.lengthen says what else
    may be among them. `upgrade` brings fairseq's own weights up to an LSG model of the spec, given the row of `<mask>`;
    None where nothing of theirs is missing.
    `generation` has fairseq's names; `notes` are sentences about what could not be carried over;
    `keep_part` is the part of long documents that it was trained on, None where it does not say;
    `original` the Hugging Face configuration that an export can fall back to, {} if there was none.
    """

    name: str
    spec: ModelSpec
    args: Mapping[str, Any]
    dictionary: Dictionary
    tokenizer: DocumentTokenizer | None
    sequence_format: SequenceFormat
    weights: Callable[[], Mapping[str, Tensor]]
    upgrade: Upgrade | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    keep_part: str | None = None
    original: Mapping[str, Any] = field(default_factory=dict)

    def state_dict(self, max_source_positions: int, max_target_positions: int) -> dict[str, Tensor]:
        """The state dict of an LSG model of these lengths; the second is 0 for an encoder-only model.

        Raises:
            LSGError: weights and configuration do not fit, or a trained position table would have to be cut.
        """
        mask = find_mask(self.dictionary, self.tokenizer)
        if self.upgrade is not None:
            sizes = {"max_source_positions": max_source_positions, "max_target_positions": max_target_positions}
            return self.upgrade(self.weights(), replace(self.spec, **sizes, vocab_size=len(self.dictionary)), mask)
        if mask is None and not self.spec.is_lsg:
            raise LSGError(f"the tokenizer of {self.name} has no mask token, which new global tokens are made from")
        # An LSG model's mask row is not read.
        return lengthen(self.weights(), self.spec, max_source_positions, max_target_positions, mask or 0)[0]


def find_mask(dictionary: Dictionary, tokenizer: DocumentTokenizer | None) -> int | None:
    """The row of the mask token, None if the dictionary has none."""
    row = dictionary.index(symbol_from_token((tokenizer and tokenizer.mask) or MASK))
    return None if row == dictionary.unk() else row
