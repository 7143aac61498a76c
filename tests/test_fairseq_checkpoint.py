"""fairseq's own BART checkpoints become LSG models: positions, global table, <mask> row, old projections."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference_checkpoints import REFERENCE, differing, mask_row, open_model

from lsg_fairseq.huggingface.seq2seq_weights import convert_from_hf, convert_to_hf
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.upgrades import upgrade_fairseq_bart

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")


def stock_bart():
    """A state dict as fairseq's own bart.large has it, out of the short reference model, and the LSG spec for it."""
    checkpoint, spec, _ = open_model("bart_n1024_short")
    state = convert_from_hf(checkpoint.tensors, spec)
    del state["decoder.final_logits_bias"], state["decoder.output_projection.weight"]
    return state, replace(spec, max_source_positions=2048, max_target_positions=2048, is_lsg=True)


def test_stock_bart_becomes_the_reference_conversion():
    state, spec = stock_bart()
    expected, _, _ = open_model("bart_n1024_to2048")
    upgraded = upgrade_fairseq_bart(state, spec, mask_row(spec))
    assert not upgraded["decoder.final_logits_bias"].any()
    assert differing(convert_to_hf(upgraded, spec), dict(expected.tensors)) == ["final_logits_bias"]
    assert differing(upgrade_fairseq_bart(upgraded, spec, mask_row(spec)), upgraded) == []


def test_stock_bart_with_packed_projections():
    state, spec = stock_bart()
    expected = upgrade_fairseq_bart(state, spec, mask_row(spec))
    for kind in ("weight", "bias"):
        parts = [state.pop(f"encoder.layers.1.self_attn.{p}_proj.{kind}") for p in "qkv"]
        state[f"encoder.layers.1.self_attn.in_proj_{kind}"] = torch.cat(parts)
    assert differing(upgrade_fairseq_bart(state, spec, mask_row(spec)), expected) == []


def test_mask_row_of_the_checkpoint_is_used_and_dropped_if_the_dictionary_has_none():
    state, spec = stock_bart()
    with_mask = upgrade_fairseq_bart(state, spec, mask_row(spec))
    without = upgrade_fairseq_bart(state, replace(spec, vocab_size=spec.vocab_size - 1), None)
    assert torch.equal(without["encoder.global_embeddings.weight"], with_mask["encoder.global_embeddings.weight"])
    assert torch.equal(without["decoder.embed_tokens.weight"], with_mask["decoder.embed_tokens.weight"][:-1])
    assert without["decoder.final_logits_bias"].shape == (1, spec.vocab_size - 1)


def test_missing_mask_row_is_the_mean_embedding():
    state, spec = stock_bart()
    for key in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        state[key] = state[key][:-1]
    upgraded = upgrade_fairseq_bart(state, spec, mask_row(spec))
    mean = state["encoder.embed_tokens.weight"].mean(dim=0)
    torch.testing.assert_close(upgraded["encoder.embed_tokens.weight"][-1], mean)
    positions = state["encoder.embed_positions.weight"][2:]
    torch.testing.assert_close(upgraded["encoder.global_embeddings.weight"][1], positions[64] + mean)
    no_mask = upgrade_fairseq_bart(state, replace(spec, vocab_size=spec.vocab_size - 1), None)
    torch.testing.assert_close(no_mask["encoder.global_embeddings.weight"][1], positions[64] + mean)


def test_stock_bart_that_does_not_fit():
    state, spec = stock_bart()
    with pytest.raises(LSGError, match="340 embedding rows and the dictionary 350 symbols"):
        upgrade_fairseq_bart(state, replace(spec, vocab_size=350), 349)
    with pytest.raises(LSGError, match="8 wide and the model 16"):
        upgrade_fairseq_bart(state, replace(spec, embed_dim=16), mask_row(spec))
    with pytest.raises(LSGError, match="source position table cannot be cut from the 1024"):
        upgrade_fairseq_bart(state, replace(spec, max_source_positions=512), mask_row(spec))
    del state["encoder.embed_tokens.weight"]
    with pytest.raises(LSGError, match=r"has no encoder\.embed_tokens\.weight"):
        upgrade_fairseq_bart(state, spec, mask_row(spec))
