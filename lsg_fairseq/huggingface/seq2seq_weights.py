"""Encoder-decoders between Hugging Face and fairseq: state dicts, short or LSG, converted bit for bit.

Pure functions state_dict -> state_dict; read_folder.py reads the files. Encoder-decoders are converted here,
encoder-only models (BERT, RoBERTa, ...) in encoder_weights.py. A row of a Hugging Face embedding table is
a token id; `rows` (LongTensor [V], rows[i] = fairseq row of Hugging Face id i) says where it goes. Without `rows` the
order is the same, as it is for BART. Pegasus' rows leave fairseq's `<pad>` free: Hugging Face's `<pad>`, which also
starts its decoder, becomes fairseq's `<s>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lsg_fairseq.huggingface.encoder_weights import convert_encoder_to_hf, name_encoder_in_fairseq
from lsg_fairseq.modules.lsg_config import MAX_GLOBAL_TOKENS
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.position_tables import fold_token_types, lengthen, pegasus_sinusoids, resize_both
from lsg_fairseq.weights.state_dicts import (
    BOS_ROW,
    FAIRSEQ_LAYER_FORMAT,
    HEAD_NAME,
    LOGITS_BIAS,
    SOURCE_POSITIONS,
    TARGET_POSITIONS,
    TIED_TABLES,
    TOKEN_TABLE,
    KeyPair,
    check_copies,
    check_fit,
    num_fairseq_rows,
    only_head,
    spread_rows,
)

# The whole mapping, read in both directions. {e}, {d}: encoder.layers.N, decoder.layers.N for every layer; {p}: q, k,
# v, out; {head}: the name of the classification head. Shapes: V vocabulary, C model size, E / D encoder / decoder
# feed-forward size, S / T source / target position rows (learned ones with two offset rows), G global rows; I, K:
# whatever the head has. Last column: which models have the key (Family.key_tags).
# fmt: off
KEY_TABLE: tuple[tuple[str, str, str, str], ...] = (
    # Hugging Face                               fairseq                                        shape  models
    ("model.shared.weight",                      "encoder.embed_tokens.weight",                 "V C", "all"),
    ("final_logits_bias",                        "decoder.final_logits_bias",                   "1 V", "all"),
    ("model.encoder.embed_positions.weight",     "encoder.embed_positions.weight",              "S C", "all"),
    ("model.decoder.embed_positions.weight",     "decoder.embed_positions.weight",              "T C", "all"),
    ("model.encoder.global_embeddings.weight",   "encoder.global_embeddings.weight",            "G C", "lsg"),
    ("model.encoder.layernorm_embedding.weight", "encoder.layernorm_embedding.weight",          "C",   "embed_norm"),
    ("model.encoder.layernorm_embedding.bias",   "encoder.layernorm_embedding.bias",            "C",   "embed_norm"),
    ("model.decoder.layernorm_embedding.weight", "decoder.layernorm_embedding.weight",          "C",   "embed_norm"),
    ("model.decoder.layernorm_embedding.bias",   "decoder.layernorm_embedding.bias",            "C",   "embed_norm"),
    ("model.encoder.layer_norm.weight",          "encoder.layer_norm.weight",                   "C",   "final_norm"),
    ("model.encoder.layer_norm.bias",            "encoder.layer_norm.bias",                     "C",   "final_norm"),
    ("model.decoder.layer_norm.weight",          "decoder.layer_norm.weight",                   "C",   "final_norm"),
    ("model.decoder.layer_norm.bias",            "decoder.layer_norm.bias",                     "C",   "final_norm"),
    ("model.{e}.self_attn.{p}_proj.weight",      "{e}.self_attn.{p}_proj.weight",               "C C", "all"),
    ("model.{e}.self_attn.{p}_proj.bias",        "{e}.self_attn.{p}_proj.bias",                 "C",   "all"),
    ("model.{e}.self_attn_layer_norm.weight",    "{e}.self_attn_layer_norm.weight",             "C",   "all"),
    ("model.{e}.self_attn_layer_norm.bias",      "{e}.self_attn_layer_norm.bias",               "C",   "all"),
    ("model.{e}.fc1.weight",                     "{e}.fc1.weight",                              "E C", "all"),
    ("model.{e}.fc1.bias",                       "{e}.fc1.bias",                                "E",   "all"),
    ("model.{e}.fc2.weight",                     "{e}.fc2.weight",                              "C E", "all"),
    ("model.{e}.fc2.bias",                       "{e}.fc2.bias",                                "C",   "all"),
    ("model.{e}.final_layer_norm.weight",        "{e}.final_layer_norm.weight",                 "C",   "all"),
    ("model.{e}.final_layer_norm.bias",          "{e}.final_layer_norm.bias",                   "C",   "all"),
    ("model.{d}.self_attn.{p}_proj.weight",      "{d}.self_attn.{p}_proj.weight",               "C C", "all"),
    ("model.{d}.self_attn.{p}_proj.bias",        "{d}.self_attn.{p}_proj.bias",                 "C",   "all"),
    ("model.{d}.self_attn_layer_norm.weight",    "{d}.self_attn_layer_norm.weight",             "C",   "all"),
    ("model.{d}.self_attn_layer_norm.bias",      "{d}.self_attn_layer_norm.bias",               "C",   "all"),
    ("model.{d}.encoder_attn.{p}_proj.weight",   "{d}.encoder_attn.{p}_proj.weight",            "C C", "all"),
    ("model.{d}.encoder_attn.{p}_proj.bias",     "{d}.encoder_attn.{p}_proj.bias",              "C",   "all"),
    ("model.{d}.encoder_attn_layer_norm.weight", "{d}.encoder_attn_layer_norm.weight",          "C",   "all"),
    ("model.{d}.encoder_attn_layer_norm.bias",   "{d}.encoder_attn_layer_norm.bias",            "C",   "all"),
    ("model.{d}.fc1.weight",                     "{d}.fc1.weight",                              "D C", "all"),
    ("model.{d}.fc1.bias",                       "{d}.fc1.bias",                                "D",   "all"),
    ("model.{d}.fc2.weight",                     "{d}.fc2.weight",                              "C D", "all"),
    ("model.{d}.fc2.bias",                       "{d}.fc2.bias",                                "C",   "all"),
    ("model.{d}.final_layer_norm.weight",        "{d}.final_layer_norm.weight",                 "C",   "all"),
    ("model.{d}.final_layer_norm.bias",          "{d}.final_layer_norm.bias",                   "C",   "all"),
    ("classification_head.dense.weight",         "classification_heads.{head}.dense.weight",    "I C", "head"),
    ("classification_head.dense.bias",           "classification_heads.{head}.dense.bias",      "I",   "head"),
    ("classification_head.out_proj.weight",      "classification_heads.{head}.out_proj.weight", "K I", "head"),
    ("classification_head.out_proj.bias",        "classification_heads.{head}.out_proj.bias",   "K",   "head"),
)
# fmt: on
# Copies of the token embeddings that a checkpoint may hold beside model.shared.weight, or instead of it.
TIED_HF = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
# Ignored, as they carry no weight: fairseq's marks of its layer format (Hugging Face's oldest BARTs still have them).
IGNORED_HF = ("model.encoder.version", "model.decoder.version")
IGNORED_FAIRSEQ = ("encoder.version", "decoder.version")


def key_pairs(spec: ModelSpec, head: str | None = None) -> Iterator[KeyPair]:
    """Spell KEY_TABLE out for one model; `head` is its classification head, None where it has none."""
    present = {"all", *spec.row.key_tags, "lsg" if spec.is_lsg else "", "head" if head else ""}
    for hf, fairseq, shape, models in KEY_TABLE:
        if models not in present:
            continue
        layers = spec.encoder_layers if "{e}" in hf else spec.decoder_layers if "{d}" in hf else 1
        for n in range(layers):
            for p in ("q", "k", "v", "out") if "{p}" in hf else ("",):
                names = {"e": f"encoder.layers.{n}", "d": f"decoder.layers.{n}", "p": p, "head": head}
                yield KeyPair(hf.format(**names), fairseq.format(**names), tuple(shape.split()))


def convert_from_hf(hf_state: Mapping[str, Tensor], spec: ModelSpec, rows: Tensor | None = None) -> dict[str, Tensor]:
    """Return the fairseq state dict of a Hugging Face one; tensors are shared with it where nothing moves.

    Bare models (no `model.` in front), tied copies of the embedding and a classification head are understood. May be
    missing: final_logits_bias (bare models and classifiers have none; zeros) and Pegasus' position tables (sinusoids,
    which some checkpoints do not store). The three embedding keys are one tensor in the result. A new `<pad>` row
    repeats Hugging Face's pad embedding, so that even masked positions compute what they do there; its bias is 0, and
    keeping that column out of the softmax is the decoder's work.

    Raises:
        LSGError: every missing, unexpected and misshapen key at once; embeddings that are not tied; `rows` that do
            not fit.
    """
    return fold_token_types(name_in_fairseq(hf_state, spec, rows), spec)


def name_in_fairseq(hf_state: Mapping[str, Tensor], spec: ModelSpec, rows: Tensor | None = None) -> dict[str, Tensor]:
    """The same with an encoder's token types still apart, which position_tables.lengthen takes."""
    if not spec.has_decoder:
        return name_encoder_in_fairseq(hf_state, spec, rows)
    state = _canonical_hf(hf_state)
    check_copies("model.shared.weight", state, TIED_HF)
    state = {key: value for key, value in state.items() if key not in (*TIED_HF, *IGNORED_HF)}
    pairs = list(key_pairs(spec, HEAD_NAME if any(key.startswith("classification_head.") for key in state) else None))
    state = _with_defaults(state, {pair.hf: pair.fairseq for pair in pairs}, spec, spec.vocab_size)
    what = f"this Hugging Face checkpoint and its {spec.family} configuration"
    check_fit(what, state, {pair.hf: pair.shape for pair in pairs}, _sizes(spec, spec.vocab_size))
    converted = {pair.fairseq: state[pair.hf] for pair in pairs}
    num_fairseq_rows(rows, spec.vocab_size)
    if rows is not None:
        table, bias = converted[TOKEN_TABLE], converted[LOGITS_BIAS]
        hf_pad = rows.tolist().index(BOS_ROW)
        converted[TOKEN_TABLE] = spread_rows(table, rows, table[hf_pad])
        converted[LOGITS_BIAS] = spread_rows(bias[0], rows, bias.new_zeros(()))[None]
    converted |= dict.fromkeys(TIED_TABLES, converted[TOKEN_TABLE])
    return converted | {key: torch.tensor([FAIRSEQ_LAYER_FORMAT]) for key in IGNORED_FAIRSEQ}


def convert_longer_from_hf(
    hf_state: Mapping[str, Tensor], spec: ModelSpec, rows: Tensor | None, lengths: tuple[int, int], mask_row: int
) -> dict[str, Tensor]:
    """Return the fairseq state dict of an LSG model of `lengths` (source, target) made of a Hugging Face one.

    The arguments are those of convert_from_hf and position_tables.lengthen, where what is raised is said.
    """
    return lengthen(name_in_fairseq(hf_state, spec, rows), spec, *lengths, mask_row)[0]


def convert_to_hf(state: Mapping[str, Tensor], spec: ModelSpec, rows: Tensor | None = None) -> dict[str, Tensor]:
    """Return the Hugging Face state dict of a fairseq one, the inverse of convert_from_hf, with `model.` in front.

    Tied copies are left out, as transformers does. Hugging Face has one position count, so the shorter of the two
    tables is lengthened to the other. A classifier without a bias on its logits gets none.

    Raises:
        LSGError: every missing, unexpected and misshapen key at once; embeddings that are not tied; `rows` that do
            not fit; more than one classification head.
    """
    if not spec.has_decoder:
        return convert_encoder_to_hf(state, spec, rows)
    head = only_head(state)
    check_copies(TOKEN_TABLE, state, TIED_TABLES)
    state = {key: value for key, value in state.items() if key not in (*TIED_TABLES, *IGNORED_FAIRSEQ)}
    pairs = list(key_pairs(spec, head))
    num_rows = num_fairseq_rows(rows, spec.vocab_size)
    state = _with_defaults(state, {pair.fairseq: pair.fairseq for pair in pairs}, spec, num_rows)
    what = f"this fairseq state dict and its {spec.family} arguments"
    check_fit(what, state, {pair.fairseq: pair.shape for pair in pairs}, _sizes(spec, num_rows))
    longest = max(spec.max_source_positions, spec.max_target_positions)
    state, _ = resize_both(state, spec, longest, longest)
    if rows is not None:
        state[TOKEN_TABLE] = state[TOKEN_TABLE][rows]
        state[LOGITS_BIAS] = state[LOGITS_BIAS][:, rows]
    is_plain_classifier = head is not None and not state[LOGITS_BIAS].any()
    return {pair.hf: state[pair.fairseq] for pair in pairs if not (is_plain_classifier and pair.fairseq == LOGITS_BIAS)}


def _canonical_hf(hf_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put `model.` in front of a bare model's keys, and the embedding under model.shared.weight wherever it was."""
    bare = not any(key.startswith("model.") for key in hf_state)
    parts = ("shared.", "encoder.", "decoder.")
    state = {f"model.{key}" if bare and key.startswith(parts) else key: hf_state[key] for key in hf_state}
    for key in TIED_HF:
        if key in state:
            state.setdefault("model.shared.weight", state[key])
    return state


def _with_defaults(
    state: dict[str, Tensor], fairseq_names: Mapping[str, str], spec: ModelSpec, num_rows: int
) -> dict[str, Tensor]:
    """Add what a checkpoint may leave out; `fairseq_names`: this side's key -> fairseq's key."""
    like = next(iter(state.values()), torch.empty(0))
    made = {LOGITS_BIAS: lambda: torch.zeros(1, num_rows, dtype=like.dtype)}
    if not spec.row.learned_positions:
        made[SOURCE_POSITIONS] = lambda: pegasus_sinusoids(spec.max_source_positions, spec.embed_dim)
        made[TARGET_POSITIONS] = lambda: pegasus_sinusoids(spec.max_target_positions, spec.embed_dim)
    left_out = {key: name for key, name in fairseq_names.items() if name in made and key not in state}
    return state | {key: made[name]().to(like.device) for key, name in left_out.items()}


def _sizes(spec: ModelSpec, num_rows: int) -> dict[str, int]:
    return {
        "1": 1,
        "V": num_rows,
        "C": spec.embed_dim,
        "E": spec.encoder_ffn_dim,
        "D": spec.decoder_ffn_dim,
        "S": spec.max_source_positions + spec.position_offset,
        "T": spec.max_target_positions + spec.position_offset,
        "G": MAX_GLOBAL_TOKENS,
    }
