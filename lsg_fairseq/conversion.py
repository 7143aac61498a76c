"""The public name of the conversions of state dicts; they are in huggingface/."""

from lsg_fairseq.huggingface.seq2seq_weights import (
    KEY_TABLE,
    convert_from_hf,
    convert_longer_from_hf,
    convert_to_hf,
    key_pairs,
)

__all__ = ["KEY_TABLE", "convert_from_hf", "convert_longer_from_hf", "convert_to_hf", "key_pairs"]
