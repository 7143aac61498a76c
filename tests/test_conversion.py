"""Weights in and out: bit for bit against the reference conversions, and every bad state dict named in one error."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference_checkpoints import FAMILIES, MODELS, REFERENCE, differing, mask_row, open_model, pegasus_rows

from lsg_fairseq.huggingface.config import read_config
from lsg_fairseq.huggingface.seq2seq_weights import KEY_TABLE, convert_from_hf, convert_to_hf, key_pairs
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.model_spec import spec_from_fairseq_args
from lsg_fairseq.weights.position_tables import lengthen
from lsg_fairseq.weights.state_dicts import GLOBAL_TABLE, SOURCE_POSITIONS, TARGET_POSITIONS

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")


def converted(name):
    checkpoint, spec, rows = open_model(name)
    return convert_from_hf(checkpoint.tensors, spec, rows), spec, rows


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_is_bit_for_bit(name):
    checkpoint, spec, rows = open_model(name)
    state = convert_from_hf(checkpoint.tensors, spec, rows)
    assert differing(convert_to_hf(state, spec, rows), dict(checkpoint.tensors)) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("short", "long"), [("n1024_short", "n1024_to2048"), ("n1100_short", "n1100_to1500")])
def test_lengthening_equals_the_reference_conversion(family, short, long):
    state, spec, rows = converted(f"{family}_{short}")
    expected, long_spec, _ = open_model(f"{family}_{long}")
    length = long_spec.max_source_positions
    state, new_spec = lengthen(state, spec, length, length, mask_row(spec))
    assert new_spec == long_spec
    assert differing(convert_to_hf(state, new_spec, rows), dict(expected.tensors)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_shorter_decoder_is_kept_and_lengthened_only_for_export(family):
    state, spec, rows = converted(f"{family}_n1024_short")
    expected, long_spec, _ = open_model(f"{family}_n1024_to2048")
    state, spec = lengthen(state, spec, 2048, 1024, mask_row(spec))
    assert (spec.max_source_positions, spec.max_target_positions) == (2048, 1024)
    assert len(state["decoder.embed_positions.weight"]) == 1024 + long_spec.position_offset
    assert differing(convert_to_hf(state, spec, rows), dict(expected.tensors)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_lengthening_again_leaves_the_trained_global_table(family):
    state, spec, _ = converted(f"{family}_lsg")
    longer, longer_spec = lengthen(state, spec, 1024, 512, mask_row(spec))
    longest, longest_spec = lengthen(longer, longer_spec, 4096, 1024, mask_row(spec))
    table = "encoder.global_embeddings.weight"
    assert torch.equal(longest[table], state[table])
    assert longest_spec == replace(spec, max_source_positions=4096, max_target_positions=1024)
    changed = [key for key in state if not torch.equal(state[key], longest[key])]
    assert changed == ["encoder.embed_positions.weight", "decoder.embed_positions.weight"]
    at_once, _ = lengthen(state, spec, 4096, 1024, mask_row(spec))
    assert differing(at_once, longest) == []


@pytest.mark.parametrize(("source", "target"), [(1023, 1024), (2048, 512)])
def test_trained_positions_cannot_be_cut(source, target):
    state, spec, _ = converted("bart_n1024_short")
    with pytest.raises(LSGError, match=f"1024 positions it was trained with to {min(source, target)}"):
        lengthen(state, spec, source, target, mask_row(spec))


def test_the_mask_row_must_exist():
    state, spec, _ = converted("bart_n1024_short")
    with pytest.raises(LSGError, match=f"mask_row.*not {spec.vocab_size}"):
        lengthen(state, spec, 2048, 2048, spec.vocab_size)


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_stay_tied(name):
    state, _, _ = converted(name)
    tables = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
    assert len({state[key].data_ptr() for key in tables}) == 1


def test_pegasus_rows_move_with_their_bias():
    checkpoint, spec, rows = open_model("pegasus_lsg")
    state = convert_from_hf(checkpoint.tensors, spec, rows)
    table, bias = checkpoint.tensors["model.shared.weight"], checkpoint.tensors["final_logits_bias"]
    for hf_id in (0, 1, 2, 3, 104, 105, 106, spec.vocab_size - 1):
        assert torch.equal(state["encoder.embed_tokens.weight"][rows[hf_id]], table[hf_id])
        assert state["decoder.final_logits_bias"][0, rows[hf_id]] == bias[0, hf_id]
    assert len(state["encoder.embed_tokens.weight"]) == spec.vocab_size + 1
    assert torch.equal(state["encoder.embed_tokens.weight"][1], table[0])
    assert state["decoder.final_logits_bias"][0, 1] == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pegasus_rows(329), "has 330 embedding rows and the tokenizer places 329"),
        (torch.zeros(330, dtype=torch.long), "they take 1 places from 0 to 0"),
        (pegasus_rows(330) + 1, "from 1 to 331"),
    ],
)
@pytest.mark.parametrize("convert", [convert_from_hf, convert_to_hf])
def test_rows_that_do_not_fit(rows, message, convert):
    checkpoint, spec, good_rows = open_model("pegasus_lsg")
    tensors = checkpoint.tensors
    state = tensors if convert is convert_from_hf else convert_from_hf(tensors, spec, good_rows)
    with pytest.raises(LSGError, match=message):
        convert(state, spec, rows)


@pytest.mark.parametrize("name", ["bart_lsg", "pegasus_lsg"])
@pytest.mark.parametrize("direction", ["from_hf", "to_hf"])
def test_one_error_names_every_key_that_is_wrong(name, direction):
    checkpoint, spec, rows = open_model(name)
    state, convert = dict(checkpoint.tensors), convert_from_hf
    if direction == "to_hf":
        state, convert = convert_from_hf(state, spec, rows), convert_to_hf
    start = "model." if direction == "from_hf" else ""
    missing = [f"{start}encoder.layers.0.fc1.weight", f"{start}decoder.layers.1.encoder_attn.out_proj.bias"]
    misshapen = [f"{start}encoder.global_embeddings.weight", f"{start}decoder.layers.0.fc2.weight"]
    unexpected = [f"{start}encoder.layers.7.fc1.weight", "something.else"]
    for key in missing:
        del state[key]
    state |= {key: torch.zeros(3, 5) for key in misshapen + unexpected}
    with pytest.raises(LSGError) as error:
        convert(state, spec, rows)
    text = str(error.value)
    assert f"missing: {', '.join(missing)}" in text
    assert f"unexpected: {', '.join(sorted(unexpected))}" in text
    assert f"{misshapen[0]} is [3, 5] and not [512, 32]" in text
    assert f"{misshapen[1]} is [3, 5] and not [32, 64]" in text


def test_a_short_model_and_an_lsg_configuration_do_not_fit_together():
    checkpoint, spec, _ = open_model("bart_n1024_short")
    with pytest.raises(LSGError, match=r"missing: model\.encoder\.global_embeddings\.weight"):
        convert_from_hf(checkpoint.tensors, replace(spec, is_lsg=True))


@pytest.mark.parametrize("name", ["bart_lsg", "pegasus_n1024_short"])
@pytest.mark.parametrize("only", ["lm_head.weight", "model.encoder.embed_tokens.weight", None])
def test_tied_copies_beside_or_instead_of_the_embedding(name, only):
    checkpoint, spec, rows = open_model(name)
    state = dict(checkpoint.tensors)
    table = state["model.shared.weight"]
    if only:
        del state["model.shared.weight"]
        state[only] = table
    else:
        state |= {"lm_head.weight": table.clone(), "model.decoder.embed_tokens.weight": table.clone()}
    assert differing(convert_from_hf(state, spec, rows), convert_from_hf(checkpoint.tensors, spec, rows)) == []


def test_untied_embeddings_are_refused():
    checkpoint, spec, _ = open_model("bart_lsg")
    state = dict(checkpoint.tensors)
    state["lm_head.weight"] = state["model.shared.weight"] + 1
    with pytest.raises(LSGError, match=r"lm_head\.weight must be equal to model\.shared\.weight"):
        convert_from_hf(state, spec)


def test_bare_model_without_prefix_and_bias():
    checkpoint, spec, _ = open_model("bart_n1024_short")
    bare = {key.removeprefix("model."): value for key, value in checkpoint.tensors.items()}
    del bare["final_logits_bias"]
    bare["encoder.version"] = torch.tensor([3.0])
    state = convert_from_hf(bare, spec)
    expected = convert_from_hf(checkpoint.tensors, spec)
    assert differing(state, expected) == ["decoder.final_logits_bias"]
    assert not state["decoder.final_logits_bias"].any()


def test_classifier_goes_both_ways():
    checkpoint, spec, _ = open_model("bart_lsg")
    state = dict(checkpoint.tensors)
    del state["final_logits_bias"]
    width = spec.embed_dim
    state |= {
        "classification_head.dense.weight": torch.randn(width, width),
        "classification_head.dense.bias": torch.randn(width),
        "classification_head.out_proj.weight": torch.randn(3, width),
        "classification_head.out_proj.bias": torch.randn(3),
    }
    converted_state = convert_from_hf(state, spec)
    assert converted_state["classification_heads.sentence_classification_head.out_proj.weight"].shape == (3, width)
    assert differing(convert_to_hf(converted_state, spec), state) == []
    state["classification_head.out_proj.bias"] = torch.randn(4)
    with pytest.raises(LSGError, match=r"classification_head\.out_proj\.bias is \[4\] and not \[3\]"):
        convert_from_hf(state, spec)


def test_two_classification_heads_cannot_be_exported():
    state, spec, _ = converted("bart_lsg")
    state |= {f"classification_heads.{name}.out_proj.bias": torch.zeros(2) for name in ("mnli", "rte")}
    with pytest.raises(LSGError, match=r"has 2 \(mnli, rte\)"):
        convert_to_hf(state, spec)


def test_pegasus_without_stored_positions_gets_the_sinusoid():
    checkpoint, spec, rows = open_model("pegasus_n1024_short")
    state = {key: value for key, value in checkpoint.tensors.items() if "embed_positions" not in key}
    assert differing(convert_from_hf(state, spec, rows), convert_from_hf(checkpoint.tensors, spec, rows)) == []


def test_what_is_computed_is_in_float32_and_all_else_stays_in_half_precision():
    checkpoint, spec, rows = open_model("pegasus_n1024_short")
    half = {key: value.half() for key, value in checkpoint.tensors.items() if "decoder.embed_positions" not in key}
    wide = {key: value.float() for key, value in half.items()}
    converted = [convert_from_hf(tensors, spec, rows) for tensors in (half, wide)]
    state, expected = (lengthen(c, spec, 2048, 2048, mask_row(spec))[0] for c in converted)
    computed = {GLOBAL_TABLE, SOURCE_POSITIONS, TARGET_POSITIONS, "encoder.version", "decoder.version"}
    assert {key for key, value in state.items() if value.dtype != torch.half} == computed
    assert differing({key: value.float() for key, value in state.items()}, expected) == []


def test_inputs_are_left_as_they_are():
    checkpoint, spec, rows = open_model("pegasus_n1024_short")
    hf_state = dict(checkpoint.tensors)
    before = {key: value.clone() for key, value in hf_state.items()}
    state = convert_from_hf(hf_state, spec, rows)
    lengthen(state, spec, 2048, 2048, mask_row(spec))
    convert_to_hf(state, spec, rows)
    assert differing(hf_state, before) == []


@pytest.mark.parametrize("name", MODELS)
def test_the_table_has_no_key_twice(name):
    _, spec, _ = open_model(name)
    pairs = list(key_pairs(spec, "head"))
    for side in ("hf", "fairseq"):
        assert len({getattr(pair, side) for pair in pairs}) == len(pairs)
    assert len({row[:2] for row in KEY_TABLE}) == len(KEY_TABLE)


def test_spec_from_arguments_is_the_spec_from_the_configuration():
    for name in MODELS:
        checkpoint, spec, _ = open_model(name)
        args = read_config(checkpoint.config)[1]
        assert spec_from_fairseq_args(args, spec.vocab_size, spec.is_lsg) == spec
