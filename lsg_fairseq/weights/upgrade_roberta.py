"""fairseq's own RoBERTa checkpoints (roberta.base, roberta.large) upgraded to an LSG model. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import first_names
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.position_tables import as_computed, make_global_table, resize_both
from lsg_fairseq.weights.state_dicts import BOS_ROW, GLOBAL_TABLE, SOURCE_POSITIONS, TOKEN_TABLE
from lsg_fairseq.weights.upgrade_bart import fit_mask_row, split_packed_projections

LM_HEAD = "encoder.lm_head."
LM_HEAD_WEIGHT, LM_HEAD_BIAS = LM_HEAD + "weight", LM_HEAD + "bias"
# Seeds the head that an encoder comes without, so that a conversion can be repeated.
LM_HEAD_SEED = 0
# init_bert_params in fairseq/modules/transformer_sentence_encoder.py.
INITIAL_DEVIATION = 0.02
LAYER = re.compile(r"encoder\.sentence_encoder\.layers\.(\d+)\.")


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
    token_key, global_key = spec.encoder_key(TOKEN_TABLE), spec.encoder_key(GLOBAL_TABLE)
    _check_sizes(state, spec)
    table, mask_embedding = fit_mask_row(state[token_key], spec.vocab_size, mask_row)
    upgraded = {**state, token_key: table, **_fitting_lm_head(state, state[token_key], table, mask_row)}
    if global_key not in upgraded:
        positions = upgraded[spec.encoder_key(SOURCE_POSITIONS)][spec.position_offset :]
        tokens = torch.stack([as_computed(table[BOS_ROW]), as_computed(mask_embedding)])
        upgraded[global_key] = make_global_table(positions, tokens, bos_row=0, mask_row=1)
    return resize_both(upgraded, spec, spec.max_source_positions, spec.max_target_positions)[0]


def initial_lm_head(table: Tensor) -> dict[str, Tensor]:
    """Return an untrained masked-LM head, tied to the token table [V, C]: fairseq's initial values, always the same."""
    generator = torch.Generator().manual_seed(LM_HEAD_SEED)
    dim = table.size(1)
    weight = torch.randn(dim, dim, generator=generator) * INITIAL_DEVIATION
    return {
        LM_HEAD_WEIGHT: table,
        LM_HEAD_BIAS: table.new_zeros(len(table)),
        LM_HEAD + "dense.weight": weight.to(table.device),
        LM_HEAD + "dense.bias": table.new_zeros(dim),
        LM_HEAD + "layer_norm.weight": table.new_ones(dim),
        LM_HEAD + "layer_norm.bias": table.new_zeros(dim),
    }


def has_initial_lm_head(state: Mapping[str, Tensor]) -> bool:
    """Whether the masked-LM head of a state dict is the untrained one that initial_lm_head makes."""
    initial = initial_lm_head(state["encoder.sentence_encoder.embed_tokens.weight"])
    # Whoever trained or saved it in half precision has rounded the initial values.
    return all(key in state and torch.equal(state[key], tensor.to(state[key].dtype)) for key, tensor in initial.items())


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
