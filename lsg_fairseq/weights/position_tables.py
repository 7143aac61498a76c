"""Position and global tables of a model made longer (docs/lsg.md, "From a short model to a long one")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import MAX_GLOBAL_TOKENS, LSGError
from lsg_fairseq.weights.families import FAMILIES
from lsg_fairseq.weights.limits import first_names
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.state_dicts import (
    BOS_ROW,
    GLOBAL_TABLE,
    SOURCE_POSITIONS,
    TARGET_POSITIONS,
    TOKEN_TABLE,
    TOKEN_TYPES,
)

# The stride between the positions of neighbouring global tokens in the published LSG checkpoints.
GLOBAL_STRIDE = 64
# Seeds the rows that a very short position table lacks, so that a conversion can be repeated.
MISSING_ROWS_SEED = 0


def tile_positions(positions: Tensor, length: int) -> Tensor:
    """Return [length, C], row p being row p mod n of `positions` [n, C] (no offset rows on either side)."""
    return positions[torch.arange(length, device=positions.device) % positions.size(0)]


def pegasus_sinusoids(length: int, dim: int) -> Tensor:
    """Return Pegasus' position table [length, dim] in float32.

    Row p holds sin(p / 10000^(2i/dim)) for i < dim/2, then the cosines (Vaswani et al. 2017, section 3.5, with sines
    and cosines in halves instead of interleaved). Computed in float64: float32 angles are off from position 1,000 on.
    An odd dim has one sine more, as in transformers.
    """
    half = (dim + 1) // 2
    # Divided, not multiplied by the inverse: that rounds as the published tables do.
    wavelengths = 10000.0 ** (2 * torch.arange(half, dtype=torch.float64) / dim)
    angles = torch.arange(length, dtype=torch.float64).unsqueeze(1) / wavelengths
    return torch.cat([angles.sin(), angles.cos()[:, : dim - half]], dim=1).float()


def global_positions(num_rows: int) -> Tensor:
    """Return the positions [512] (int64) that the 512 global rows are taken from, given a table of `num_rows` >= 512.

    The table is thinned to 512 rows, every fac-th one (fac = num_rows // 512); these are read with stride
    m = 64 // fac: rows 0, m, 2m, ..., then 1, m + 1, ... For n = 1024: 0, 64, 128, ..., 960, 2, 66, ...
    Where m divides 512 that is pos(k) = ((k mod q) * m + floor(k / q)) * fac with q = 512 / m; where it does not
    (fac = 3: m = 21, which the public implementation cannot reshape) the same reading order is still a permutation.
    """
    factor = num_rows // MAX_GLOBAL_TOKENS
    stride = max(1, GLOBAL_STRIDE // factor)
    rows = torch.arange(MAX_GLOBAL_TOKENS)
    return torch.cat([rows[start::stride] for start in range(stride)]) * factor


def make_global_table(
    positions: Tensor, token_embeddings: Tensor, bos_row: int, mask_row: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return the global table [512, C] of a model that has none, in float32 at least.

    Args:
        positions: [n, C] encoder positions without offset rows.
        token_embeddings: [V, C]; row 0 of the result adds row `bos_row`, all others `mask_row`.
        generator: draws the rows that a table of n < 512 lacks, from N(mean row, std row); seeded with 0 by default.

    Raises:
        LSGError: bos_row or mask_row is not a row of token_embeddings.
    """
    for name, row in (("bos_row", bos_row), ("mask_row", mask_row)):
        if not 0 <= row < token_embeddings.size(0):
            raise LSGError(f"{name} must be a row of the {token_embeddings.size(0)} token embeddings, not {row}")
    positions = _at_least_512_rows(as_computed(positions), generator)
    table = positions[global_positions(positions.size(0)).to(positions.device)]
    table[0] += token_embeddings[bos_row]
    table[1:] += token_embeddings[mask_row]
    return table


def as_computed(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least: sums of a checkpoint in half precision are not rounded to it."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _at_least_512_rows(positions: Tensor, generator: torch.Generator | None) -> Tensor:
    missing = MAX_GLOBAL_TOKENS - positions.size(0)
    if missing <= 0:
        return positions
    if generator is None:
        generator = torch.Generator().manual_seed(MISSING_ROWS_SEED)
    known = positions
    noise = torch.randn(missing, positions.size(1), generator=generator).to(known.device)
    # A table of one row has no standard deviation (NaN): repeat the row then.
    deviation = known.std(dim=0, keepdim=True) if known.size(0) > 1 else torch.zeros_like(known)
    return torch.cat([positions, known.mean(dim=0, keepdim=True) + noise * deviation])


def resize_positions(table: Tensor, family: str, length: int, name: str = "position table") -> Tensor:
    """Return a position table for `length` positions; the table itself where that is its length already.

    Learned tables: [2 + n, C] -> [2 + length, C], tiled. Pegasus: [n, C] -> [length, C], recomputed (cut where it is
    shorter: Pegasus' tables are computed in float32, not trained, so nothing is lost).

    Raises:
        LSGError: `length` is shorter than a learned table, or below 1.
    """
    is_learned, offset = FAMILIES[family].learned_positions, FAMILIES[family].position_offset
    known = table.size(0) - offset
    if length == known:
        return table
    if length < 1 or (length < known and is_learned):
        raise LSGError(
            f"the {name} cannot be cut from the {known} positions it was trained with to {length}: "
            f"ask for {known} or more"
        )
    if is_learned:
        return torch.cat([table[:offset], tile_positions(table[offset:], length)])
    if length < known:
        return table[:length].clone()
    return pegasus_sinusoids(length, table.size(1)).to(table.device)


def resize_both(
    state: Mapping[str, Tensor], spec: ModelSpec, max_source_positions: int, max_target_positions: int
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Resize the position tables of a fairseq state dict; everything else is the same tensor as before.

    An encoder-only model has one table, and 0 for its target positions.

    Raises:
        LSGError: a table is missing, or would have to be cut.
    """
    tables = {spec.encoder_key(SOURCE_POSITIONS): (max_source_positions, "source position table")}
    if spec.has_decoder:
        tables[TARGET_POSITIONS] = (max_target_positions, "target position table")
    missing = [key for key in tables if key not in state]
    if missing:
        raise LSGError(f"this checkpoint has no {first_names(missing)}: use weights and settings of one checkpoint")
    resized = {key: resize_positions(state[key], spec.family, *table) for key, table in tables.items()}
    spec = replace(spec, max_source_positions=max_source_positions, max_target_positions=max_target_positions)
    return {**state, **resized}, spec


def lengthen(
    state: Mapping[str, Tensor], spec: ModelSpec, max_source_positions: int, max_target_positions: int, mask_row: int
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Make an LSG model of the asked lengths out of a converted state dict; returns it with its new spec.

    A short model gets its global table, made from its own (short) positions as the public converter does it: BERT's
    with token type 0, RoBERTa's without. An LSG model keeps the trained one untouched. The lengths may equal the
    present ones.

    Args:
        max_target_positions: 0 for an encoder-only model.
        mask_row: fairseq row of the mask token (BART `<mask>`, Pegasus `<mask_2>`); not read for an LSG model.

    Raises:
        LSGError: a length below that of a trained table, or a mask_row that does not exist.
    """
    longer, new_spec = resize_both(state, spec, max_source_positions, max_target_positions)
    if not spec.is_lsg:
        positions = state[spec.encoder_key(SOURCE_POSITIONS)][spec.position_offset :]
        tokens = state[spec.encoder_key(TOKEN_TABLE)]
        # `<s>` starts a BART sequence, and carries Hugging Face Pegasus' `<pad>` embedding: both are global row 0's.
        table = make_global_table(positions, tokens, BOS_ROW, mask_row)
        if spec.row.globals_have_token_type and TOKEN_TYPES in state:
            table = table + state[TOKEN_TYPES][0]
        longer[spec.encoder_key(GLOBAL_TABLE)] = table
    return fold_token_types(longer, spec), replace(new_spec, is_lsg=True)


def fold_token_types(state: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Take the token types [Y, C] out and add type 0 to every position row; these stay as they are if it is zero."""
    folded = {key: value for key, value in state.items() if key != TOKEN_TYPES}
    if TOKEN_TYPES in state and state[TOKEN_TYPES][0].any():
        key = spec.encoder_key(SOURCE_POSITIONS)
        folded[key] = as_computed(state[key]).clone()
        folded[key][spec.missing_offset :] += state[TOKEN_TYPES][0]
    return folded
