"""counter_dropout's decisions for part of a score matrix, vectorised on a CPU as passes over int32 words."""

from __future__ import annotations

import torch
from torch import Tensor

from lsg_fairseq.modules.counter_dropout import (
    DECISION_BITS,
    FIRST_FACTOR,
    INNER_SHIFT,
    KEY_FACTOR,
    OUTER_SHIFT,
    SECOND_FACTOR,
    WORD,
    mix,
)

SIGN = -(2**31)


def query_words(seed: int, rows: Tensor, num_queries: int) -> Tensor:
    """The word of each query of some (batch, head) rows, batch * heads + head each: (rows,queries) int32."""
    # The seed stays a Python number: copying it to a GPU would synchronise.
    stream = mix(mix(seed) ^ rows)[:, None]
    return mix(stream ^ torch.arange(num_queries, device=rows.device)).to(torch.int32)


def key_words(keys: Tensor) -> Tensor:
    """The word of each key position; int32 of the same shape."""
    return (keys * KEY_FACTOR & WORD).to(torch.int32)


def keep_factors(queries: Tensor, keys: Tensor, threshold: int, words: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    """1 where counter_dropout keeps a probability and 0 where not, of query and key words that broadcast together.

    words: two int32 workspaces of out's shape; out: any dtype, overwritten and returned.
    """
    word, shifted = words
    torch.bitwise_xor(queries, keys, out=word)
    for shift, factor in ((OUTER_SHIFT, FIRST_FACTOR), (INNER_SHIFT, SECOND_FACTOR), (OUTER_SHIFT, None)):
        # An arithmetic shift fills in sign bits; the mask clears them.
        torch.bitwise_right_shift(word, shift, out=shifted).bitwise_and_((1 << (32 - shift)) - 1)
        word.bitwise_xor_(shifted)
        if factor is not None:
            word.mul_(_signed(factor))
    # With the sign bit flipped, int32 compares like uint32.
    return out.copy_(word.bitwise_xor_(SIGN).ge_(_signed(threshold << (32 - DECISION_BITS)) ^ SIGN))


def _signed(word: int) -> int:
    """These 32 bits read as an int32."""
    return (word ^ 2**31) - 2**31
