"""fairseq's own BART and RoBERTa checkpoints upgraded to an LSG model. Pure functions."""

from __future__ import annotations

import re
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

# --- BART, and what both share.


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
    _add_global_table(upgraded, spec, table[BOS_ROW], mask_embedding)
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


def _add_global_table(state: dict[str, Tensor], spec: ModelSpec, bos: Tensor, mask: Tensor) -> None:
    """Make the global table of the positions, and of the embeddings [C] of `<s>` and `<mask>`, unless it is there."""
    key = spec.encoder_key(GLOBAL_TABLE)
    if key not in state:
        positions = state[spec.encoder_key(SOURCE_POSITIONS)][spec.position_offset :]
        tokens = torch.stack([as_computed(bos), as_computed(mask)])
        state[key] = make_global_table(positions, tokens, bos_row=0, mask_row=1)


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


# --- RoBERTa.

LM_HEAD = "encoder.lm_head."
LM_HEAD_WEIGHT, LM_HEAD_BIAS = LM_HEAD + "weight", LM_HEAD + "bias"
# Seeds the head that an encoder comes without, so that a conversion can be repeated.
LM_HEAD_SEED = 0
# init_bert_params in fairseq/modules/transformer_sentence_encoder.py.
INITIAL_DEVIATION = 0.02
LAYER = re.compile(r"encoder\.sentence_encoder\.layers\.(\d+)\.")
# The cosine above which two weights are one but for scale and rounding; unrelated ones are at about 0.
SAME_DIRECTION = 0.999


def with_current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the names of today's RobertaModel (fairseq/models/roberta/model.py).

    The published files are from 2019: their encoder is `decoder.sentence_encoder`, its embedding layer norm
    `emb_layer_norm`, and q, k and v may be one packed projection.
    """
    renamed = {re.sub(r"^decoder\.", "encoder.", key): value for key, value in state.items()}
    renamed = {key.replace(".emb_layer_norm.", ".layernorm_embedding."): value for key, value in renamed.items()}
    return split_packed_projections(renamed)


def upgrade_fairseq_roberta(state: Mapping[str, Tensor], spec: ModelSpec, mask_row: int | None) -> dict[str, Tensor]:
    """Return `state` (today's names) with all that an LSG-RoBERTa of this spec needs; the input is left as it is.

    Positions are grown (tiled), the global table is made (docs/lsg.md: row 0 with the embedding of `<s>`,
    the others with `<mask>`'s), and an encoder that comes without a masked-LM head gets an untrained one. What is there
    already stays the same tensor, so an LSG checkpoint passes through and keeps its trained global table.

    Args:
        spec: the model to load into; spec.vocab_size is the length of its dictionary.
        mask_row: the dictionary's row of `<mask>`, None if it has none; see fit_mask_row.

    Raises:
        LSGError: it is not a RoBERTa, or its embedding rows, layers or widths are not the model's, or it has more
            positions than the model.
    """
    token_key = spec.encoder_key(TOKEN_TABLE)
    _check_sizes(state, spec)
    table, mask_embedding = fit_mask_row(state[token_key], spec.vocab_size, mask_row)
    upgraded = {**state, token_key: table, **_fitting_lm_head(state, state[token_key], table, mask_row)}
    _add_global_table(upgraded, spec, table[BOS_ROW], mask_embedding)
    return resize_both(upgraded, spec, spec.max_source_positions, spec.max_target_positions)[0]


def initial_lm_head(table: Tensor) -> dict[str, Tensor]:
    """Return an untrained masked-LM head, tied to the token table [V, C]: fairseq's initial values, always the same."""
    dim = table.size(1)
    return {
        LM_HEAD_WEIGHT: table,
        LM_HEAD_BIAS: table.new_zeros(len(table)),
        LM_HEAD + "dense.weight": _initial_dense(dim).to(table.device),
        LM_HEAD + "dense.bias": table.new_zeros(dim),
        LM_HEAD + "layer_norm.weight": table.new_ones(dim),
        LM_HEAD + "layer_norm.bias": table.new_zeros(dim),
    }


def has_initial_lm_head(state: Mapping[str, Tensor]) -> bool:
    """Whether the masked-LM head of a state dict is the untrained one that initial_lm_head makes.

    Its biases are zero until it is trained. Its weight may be rounded to half precision, and smaller: fairseq's --fp16
    gives parameters without a gradient one of zeros, so that weight decay reaches them.
    """
    weight = state.get(LM_HEAD + "dense.weight")
    biases = [state.get(LM_HEAD + name) for name in ("bias", "dense.bias", "layer_norm.bias")]
    if weight is None or any(bias is None or bias.any() for bias in biases):
        return False
    initial = _initial_dense(len(weight)).to(weight.device)
    return bool(torch.cosine_similarity(weight.float().flatten(), initial.flatten(), dim=0) > SAME_DIRECTION)


def _initial_dense(dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(LM_HEAD_SEED)
    return torch.randn(dim, dim, generator=generator) * INITIAL_DEVIATION


def _fitting_lm_head(
    state: Mapping[str, Tensor], old_table: Tensor, table: Tensor, mask_row: int | None
) -> dict[str, Tensor]:
    """The parts of the head that must change, all of it where the checkpoint has none; tied weights stay tied."""
    if not any(key.startswith(LM_HEAD) for key in state):
        return initial_lm_head(table)
    if table is old_table or LM_HEAD_WEIGHT not in state or LM_HEAD_BIAS not in state:
        return {}
    weight, bias = state[LM_HEAD_WEIGHT], state[LM_HEAD_BIAS]
    is_tied = torch.equal(weight, old_table)
    # A negative padding cuts.
    bias = torch.nn.functional.pad(bias, (0, len(table) - len(bias)))
    return {LM_HEAD_WEIGHT: table if is_tied else fit_mask_row(weight, len(table), mask_row)[0], LM_HEAD_BIAS: bias}


def _check_sizes(state: Mapping[str, Tensor], spec: ModelSpec) -> None:
    keys = [spec.encoder_key(key) for key in (TOKEN_TABLE, SOURCE_POSITIONS)]
    missing = [key for key in keys if key not in state]
    if missing:
        raise LSGError(f"this checkpoint has no {first_names(missing)}: give a fairseq or LSG RoBERTa model.pt")
    first_ffn = state.get(spec.encoder_key("encoder.layers.0.fc1.weight"))
    found = (
        num_layers(state),
        state[keys[0]].size(1),
        0 if first_ffn is None else len(first_ffn),
    )
    expected = (spec.encoder_layers, spec.embed_dim, spec.encoder_ffn_dim)
    if found != expected:
        sizes = "{} layers, {} wide with feed-forward layers of {}"
        raise LSGError(
            f"the checkpoint has {sizes.format(*found)}, and the model {sizes.format(*expected)}: choose the --arch of "
            "the checkpoint's size"
        )


def num_layers(state: Mapping[str, Tensor]) -> int:
    """How many encoder layers a RoBERTa's state dict has."""
    return len({match[1] for key in state if (match := LAYER.match(key))})
