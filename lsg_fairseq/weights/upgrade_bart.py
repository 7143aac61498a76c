"""fairseq's own BART checkpoints (bart.base, bart.large, bart.large.cnn) upgraded to an LSG model. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import first_names
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.position_tables import as_computed, make_global_table, resize_both
from lsg_fairseq.weights.state_dicts import (
    BOS_ROW,
    GLOBAL_TABLE,
    LOGITS_BIAS,
    SOURCE_POSITIONS,
    TARGET_POSITIONS,
    TIED_TABLES,
    TOKEN_TABLE,
    check_copies,
)


def upgrade_fairseq_bart(state: Mapping[str, Tensor], spec: ModelSpec, mask_row: int | None) -> dict[str, Tensor]:
    """Return `state` with all that an LSG-BART of this spec needs; the input is left as it is.

    Positions are grown (tiled), the global table is made, packed q/k/v projections of old checkpoints are split, the
    output projection is tied, and a zero bias on the logits added. What is there already stays the same tensor, so an
    LSG checkpoint passes through and keeps its trained global table.

    The `<mask>` row: a pretrained model has it as its last row, a fine-tuned one (bart.large.cnn) does not. It is
    dropped where the dictionary has no `<mask>`; where only the dictionary has one, the mean token embedding stands in
    for it, in that row and in the global table.

    Args:
        spec: the model to load into; spec.vocab_size is the length of its dictionary.
        mask_row: the dictionary's row of `<mask>`, None if it has none.

    Raises:
        LSGError: the embedding rows or the widths differ from the dictionary's or the model's, the checkpoint has
            more positions than the model, or its embeddings are not tied.
    """
    upgraded = split_packed_projections(state)
    old_table = _token_table(upgraded, spec)
    table, mask_embedding = fit_mask_row(old_table, spec.vocab_size, mask_row)
    upgraded |= dict.fromkeys((TOKEN_TABLE, *TIED_TABLES), table)
    if GLOBAL_TABLE not in upgraded:
        positions = upgraded[SOURCE_POSITIONS][spec.position_offset :]
        tokens = torch.stack([as_computed(table[BOS_ROW]), as_computed(mask_embedding)])
        upgraded[GLOBAL_TABLE] = make_global_table(positions, tokens, bos_row=0, mask_row=1)
    bias = upgraded.get(LOGITS_BIAS, table.new_zeros(1, spec.vocab_size))
    missing = spec.vocab_size - bias.size(1)
    upgraded[LOGITS_BIAS] = torch.nn.functional.pad(bias, (0, missing)) if missing else bias
    return resize_both(upgraded, spec, spec.max_source_positions, spec.max_target_positions)[0]


def _token_table(state: Mapping[str, Tensor], spec: ModelSpec) -> Tensor:
    """Return the checkpoint's one embedding table [rows, C].

    Raises:
        LSGError: a table is missing, the embeddings are not tied, or their width is not the model's.
    """
    missing = [key for key in (TOKEN_TABLE, SOURCE_POSITIONS, TARGET_POSITIONS) if key not in state]
    if missing:
        raise LSGError(f"this checkpoint has no {first_names(missing)}: give a fairseq BART model.pt")
    check_copies(TOKEN_TABLE, state, TIED_TABLES)
    if state[TOKEN_TABLE].size(1) != spec.embed_dim:
        raise LSGError(
            f"the checkpoint is {state[TOKEN_TABLE].size(1)} wide and the model {spec.embed_dim}: choose the --arch "
            "of the checkpoint's size"
        )
    return state[TOKEN_TABLE]


def fit_mask_row(table: Tensor, num_rows: int, mask_row: int | None) -> tuple[Tensor, Tensor]:
    """Return the table [rows, C] with the dictionary's number of rows, and the embedding [C] that stands for `<mask>`.

    Raises:
        LSGError: the numbers of rows differ by more than a `<mask>` at the end.
    """
    if len(table) == num_rows:
        return table, table[mask_row] if mask_row is not None else _mean_embedding(table)
    if len(table) == num_rows + 1 and mask_row is None:
        return table[:-1].clone(), table[-1]
    if len(table) == num_rows - 1 and mask_row == num_rows - 1:
        mask_embedding = _mean_embedding(table)
        return torch.cat([table, mask_embedding[None]]), mask_embedding
    raise LSGError(
        f"the checkpoint has {len(table)} embedding rows and the dictionary {num_rows} symbols: give the dict.txt "
        "that belongs to the checkpoint (only a <mask> at its end may be missing on one side)"
    )


def _mean_embedding(table: Tensor) -> Tensor:
    return as_computed(table).mean(dim=0)


def split_packed_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace `in_proj_weight` [3C, C] and `in_proj_bias` [3C] of old checkpoints by q, k and v projections."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, _, name = key.rpartition(".")
        if name in ("in_proj_weight", "in_proj_bias"):
            kind = name.removeprefix("in_proj_")
            parts = {f"{prefix}.{p}_proj.{kind}": part.clone() for p, part in zip("qkv", value.chunk(3), strict=True)}
            split |= parts
        else:
            split[key] = value
    return split
