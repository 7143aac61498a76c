"""Hugging Face state dicts of BERT, RoBERTa and the like into fairseq's RoBERTa and back. Pure functions.

fairseq has no token types: the embedding of type 0, which every token of a single text has, is added to the positions,
and an export writes a table of zeros. Other types are not carried. A pooler without a classifier becomes a
classification head whose output layer is the identity; with BERT's next-sentence prediction it is a head as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lsg_fairseq.huggingface.encoder_keys import (
    NOT_CARRIED,
    POOLER,
    KeyLayout,
    encoder_key_pairs,
    full_names,
    identity_behind_pooler,
    key_layout_of,
    parts_of_hf,
    split_heads,
)
from lsg_fairseq.modules.lsg_config import MAX_GLOBAL_TOKENS, LSGError
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.state_dicts import (
    FAIRSEQ_LAYER_FORMAT,
    HEAD_NAME,
    TOKEN_TYPES,
    check_copies,
    check_fit,
    num_fairseq_rows,
    spread_rows,
)
from lsg_fairseq.weights.upgrades import LM_HEAD_BIAS, LM_HEAD_WEIGHT

ENCODER = "encoder.sentence_encoder."
TOKENS, POSITIONS = f"{ENCODER}embed_tokens.weight", f"{ENCODER}embed_positions.weight"
VERSION = f"{ENCODER}version"
# Buffers of older files, which hold no weights.
IGNORED_HF = ("embeddings.position_ids", "embeddings.token_type_ids")


def name_encoder_in_fairseq(hf_state: Mapping[str, Tensor], spec: ModelSpec, rows: Tensor | None) -> dict[str, Tensor]:
    """Return a Hugging Face encoder's tensors with fairseq's names, rows and offsets; token types are still apart.

    A checkpoint without a masked-LM head gives a state dict without one.

    Raises:
        LSGError: as conversion.convert_from_hf, or `rows` leave `<pad>` free.
    """
    layout, kind = key_layout_of(spec), spec.kind
    state, parts = _canonical_hf(hf_state, layout), parts_of_hf(hf_state, layout)
    pairs = list(encoder_key_pairs(spec, parts, HEAD_NAME))
    what = f"this Hugging Face checkpoint and its {spec.kind.name} configuration"
    sizes = _sizes(spec, kind.position_offset)
    check_fit(what, state, {pair.hf: pair.shape for pair in pairs}, sizes)
    converted = {pair.fairseq: state[pair.hf] for pair in pairs}
    if spec.missing_offset:
        table = converted[POSITIONS]
        converted[POSITIONS] = torch.cat([table.new_zeros(spec.missing_offset, table.size(1)), table])
    if _full_rows(rows, spec) is not None:
        for key in (TOKENS, LM_HEAD_BIAS):
            if key in converted:
                converted[key] = spread_rows(converted[key], rows, converted[key][0])
    if layout.lm in parts:
        converted[LM_HEAD_WEIGHT] = converted[TOKENS]
    if "pooler" in parts:
        converted |= identity_behind_pooler(converted[POOLER + "dense.weight"])
    return converted | {VERSION: torch.tensor([FAIRSEQ_LAYER_FORMAT])}


def convert_encoder_to_hf(
    state: Mapping[str, Tensor], spec: ModelSpec, rows: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the Hugging Face state dict of a fairseq encoder; see conversion.convert_to_hf.

    As transformers does it, names start with the model's (`bert.`) only where there is a head.

    Raises:
        LSGError: as conversion.convert_to_hf, or two heads need BERT's one pooler.
    """
    layout, kind = key_layout_of(spec), spec.kind
    spec = replace(spec, token_types=spec.token_types or kind.token_types)
    if TOKENS in state:
        check_copies(TOKENS, state, [LM_HEAD_WEIGHT])
    state = {key: value for key, value in state.items() if key not in (LM_HEAD_WEIGHT, VERSION)}
    state, parts, head = split_heads(state, layout)
    pairs = list(encoder_key_pairs(spec, parts, head))
    what = f"this fairseq state dict and its {spec.family} arguments"
    expected = {pair.fairseq: pair.shape for pair in pairs if pair.fairseq != TOKEN_TYPES}
    check_fit(what, state, expected, _sizes(spec, spec.position_offset))
    if _full_rows(rows, spec) is not None:
        state |= {key: state[key][rows] for key in (TOKENS, LM_HEAD_BIAS) if key in state}
    state[TOKEN_TYPES] = state[TOKENS].new_zeros(spec.token_types, spec.embed_dim)
    state[POSITIONS] = state[POSITIONS][spec.missing_offset :]
    is_bare = parts <= {"pooler"}
    return {pair.hf.removeprefix(f"{layout.prefix}." if is_bare else ""): state[pair.fairseq] for pair in pairs}


def _canonical_hf(hf_state: Mapping[str, Tensor], layout: KeyLayout) -> dict[str, Tensor]:
    """Today's full names, without copies and what is not carried.

    Raises:
        LSGError: copies are not equal.
    """
    state = {full: hf_state[name] for name, full in full_names(hf_state, layout).items()}
    tokens = f"{layout.prefix}.embeddings.word_embeddings.weight"
    for name, copy in (*layout.copies, (tokens, layout.tied)):
        if copy in state:
            state.setdefault(name, state[copy])
            check_copies(name, state, [copy])
            del state[copy]
    ignored = tuple(f"{layout.prefix}.{name}" for name in IGNORED_HF)
    return {key: value for key, value in state.items() if not key.startswith((*ignored, *NOT_CARRIED))}


def _full_rows(rows: Tensor | None, spec: ModelSpec) -> Tensor | None:
    """`rows`, or None where they are in order.

    Raises:
        LSGError: they do not fit, or leave a row free that Hugging Face has nothing for.
    """
    if num_fairseq_rows(rows, spec.vocab_size) != spec.vocab_size:
        raise LSGError("the tokenizer has no token for padding, which an encoder needs: name its pad_token")
    return rows


def _sizes(spec: ModelSpec, position_offset: int) -> dict[str, int]:
    return {
        "2": 2,
        "V": spec.vocab_size,
        "C": spec.embed_dim,
        "E": spec.encoder_ffn_dim,
        "S": spec.max_source_positions + position_offset,
        "Y": spec.token_types,
        "G": MAX_GLOBAL_TOKENS,
    }
