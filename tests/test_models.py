"""LSGEncoder and LSG-BART: padding, rows, settings, beams, precision."""

from __future__ import annotations

import argparse
import pickle
import weakref
from dataclasses import fields

import pytest
import torch
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.models.bart import BARTModel

from lsg_fairseq.generation import LSGSequenceGenerator
from lsg_fairseq.models import lsg_encoder
from lsg_fairseq.models.lsg_model import read_lsg_config
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.packed_linear import packed_weights
from recipes.tiny_models import build_model, random_tokens

TYPES = ["none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride"]
LENGTHS = (50, 17, 16, 3)


def encode(model: torch.nn.Module, tokens: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    with torch.no_grad():
        return model.encoder(tokens, src_lengths=None)


def real_rows(encoded: dict[str, list[torch.Tensor]], index: int) -> torch.Tensor:
    """The rows of one example that are no padding."""
    return encoded["encoder_out"][0][:, index][~encoded["encoder_padding_mask"][0][index]]


@pytest.mark.parametrize("sparsity_type", TYPES)
@pytest.mark.parametrize("passed", [True, False])
def test_output_is_independent_of_batch_and_padding(sparsity_type: str, passed: bool) -> None:
    model = build_model(
        lsg_sparsity_type=sparsity_type, lsg_num_global_tokens=3, lsg_pass_global_tokens_to_decoder=passed
    )
    tokens = random_tokens(*LENGTHS)
    left = torch.stack([row.roll(int(row.eq(1).sum())) for row in tokens])
    more = torch.nn.functional.pad(tokens, (0, 70), value=1)
    together, on_the_left, longer = (encode(model, x) for x in (tokens, left, more))
    for index, length in enumerate(LENGTHS):
        # Up to two blocks a source is read densely when it is alone, and in blocks beside a longer one.
        alone = encode(model, tokens[index : index + 1, :length])
        rows = real_rows(alone, 0)
        assert len(rows) == length + (3 if passed else 0)
        for other in (together, on_the_left, longer):
            torch.testing.assert_close(real_rows(other, index), rows, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_source_of_padding_alone_is_finite(pooled: bool) -> None:
    """A decoder that is given no global row and may look at no other has nothing to average."""
    model = build_model(lsg_pass_global_tokens_to_decoder=False, lsg_pool_with_global=pooled)
    tokens = random_tokens(40, 5)
    tokens[1] = 1
    assert encode(model, tokens)["encoder_padding_mask"][0].sum(1).tolist() == [0, 39]
    previous = torch.tensor([[2, 5, 6]] * 2)
    logits = model(tokens, None, previous)[0]
    assert logits.isfinite().all()
    alone = model(tokens[1:, :3], None, previous[1:])[0]
    torch.testing.assert_close(logits[1:], alone, atol=2e-6, rtol=1e-5)
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_rows_without_globals_are_pooled_or_not() -> None:
    tokens = random_tokens(40)
    passed, pooled, plain = (
        encode(build_model(lsg_num_global_tokens=2, **flags), tokens)["encoder_out"][0]
        for flags in (
            {},
            {"lsg_pass_global_tokens_to_decoder": False},
            {"lsg_pass_global_tokens_to_decoder": False, "lsg_pool_with_global": False},
        )
    )
    torch.testing.assert_close(plain, passed[2:])
    torch.testing.assert_close(pooled[1:], passed[3:])
    torch.testing.assert_close(pooled[0], passed[0])


def test_all_hidden_states_have_the_rows_of_the_output() -> None:
    model = build_model()
    encoded = model.encoder(random_tokens(*LENGTHS), return_all_hiddens=True)
    assert len(encoded["encoder_states"]) == 3
    assert all(state.shape == encoded["encoder_out"][0].shape for state in encoded["encoder_states"])
    torch.testing.assert_close(encoded["encoder_states"][-1], encoded["encoder_out"][0])


@pytest.mark.parametrize("asked", [False, True])
def test_outputs_of_layers_are_kept_only_where_they_are_asked_for(asked: bool) -> None:
    model = build_model(encoder_layers=4)
    outputs, alive = [], []

    def note(module: torch.nn.Module, args: object, output: torch.Tensor) -> None:
        outputs.append(weakref.ref(output))
        alive.append(sum(reference() is not None for reference in outputs))

    for layer in model.encoder.layers:
        layer.register_forward_hook(note)
    with torch.inference_mode():
        model.encoder(random_tokens(40), return_all_hiddens=asked)
    # The input of a layer is still held by the loop around it.
    assert alive == ([1, 2, 3, 4] if asked else [1, 2, 2, 2])


def test_mask_first_token_leaves_the_callers_tensors_and_the_decoder_alone() -> None:
    model, tokens = build_model(lsg_mask_first_token=True), random_tokens(*LENGTHS)
    before = tokens.clone()
    encoded = encode(model, tokens)
    assert torch.equal(tokens, before)
    assert torch.equal(encoded["encoder_padding_mask"][0][:, 1:], tokens.eq(1))
    changed = tokens.clone()
    changed[:, 0] = 7
    torch.testing.assert_close(real_rows(encode(model, changed), 0)[2:], real_rows(encoded, 0)[2:])
    unmasked = build_model()
    assert not torch.allclose(real_rows(encode(unmasked, changed), 0)[2:], real_rows(encode(unmasked, tokens), 0)[2:])


def test_too_long_source_names_both_lengths() -> None:
    model = build_model(max_source_positions=64)
    with pytest.raises(LSGError, match=r"source of 65 tokens is longer than the model's 64 source positions"):
        encode(model, random_tokens(65))
    # Padding beyond the table is no source.
    encode(model, random_tokens(64, width=80))


def test_source_that_needs_padding_without_adaptive() -> None:
    model = build_model(lsg_adaptive=False)
    encode(model, random_tokens(24))
    with pytest.raises(LSGError, match="25 tokens is no multiple of block_size 8 and adaptive is off"):
        encode(model, random_tokens(25))


def test_full_attention_is_stock_bart_with_one_token_more() -> None:
    """With full attention and the global row a copy of a token's embedding, LSG-BART is BART on one token more."""
    stock, ours = build_model("bart_base"), build_model("lsg_bart_base", lsg_attention="full")
    assert type(stock) is BARTModel
    state = {k: v for k, v in stock.state_dict().items() if k != "version"}
    tokens, targets = random_tokens(40, 40), random_tokens(7, 5, seed=1)
    table = state["encoder.embed_positions.weight"]
    shifted = {**state, "encoder.embed_positions.weight": torch.cat([table[:2], table[3:], table[-1:]])}
    shifted["encoder.embed_positions.weight"] = shifted["encoder.embed_positions.weight"][: table.size(0)]
    globals_ = ours.encoder.global_embeddings.weight.detach().clone()
    globals_[0] = state["encoder.embed_tokens.weight"][9] + table[2]
    ours.load_state_dict({**shifted, "encoder.global_embeddings.weight": globals_})
    longer = torch.cat([torch.full((2, 1), 9), tokens], dim=1)
    expected, actual = (m(x, None, targets)[0] for m, x in ((stock, longer), (ours, tokens)))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_every_setting_is_a_flag() -> None:
    parser = argparse.ArgumentParser()
    ARCH_MODEL_REGISTRY["lsg_bart_large"].add_args(parser.add_argument_group(argument_default=argparse.SUPPRESS))
    line = []
    expected = {}
    for f in fields(LSGConfig):
        value = {"attention": "full", "sparsity_type": "stride"}.get(f.name, f.default)
        value = (not value) if isinstance(value, bool) else value * 2 if isinstance(value, int) else value
        if f.name in ("mask_first_token", "pool_with_global"):  # only together with the other one's default
            value = f.default
        expected[f.name] = value
        line += [f"--lsg-{f.name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value)]
    assert read_lsg_config(parser.parse_args(line)) == LSGConfig(**expected)


def test_arguments_of_a_checkpoint_hold_plain_values() -> None:
    model = build_model()
    restored = pickle.loads(pickle.dumps(vars(model.args)))
    del restored["lsg_config"]  # the model's own copy has it; the arguments it was built from must not
    args = argparse.Namespace(lsg_block_size=8)
    before = dict(vars(args))
    read_lsg_config(args)
    assert vars(args) == before


def beam_options(beam: int) -> dict[str, int]:
    return {"beam_size": beam, "max_len_b": 8, "min_len": 1}


@pytest.mark.parametrize("fails", [False, True])
def test_generation_leaves_no_trace_in_the_model(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """fairseq leaves the decoder at the last beam size, which corrupts a later batch without an error."""
    model = build_model()
    tokens, targets = random_tokens(40, 20, 30, 25), random_tokens(5, 5, 5, 5, seed=2)
    model.train()
    before = build_model()(tokens, None, targets)[0]
    generator = LSGSequenceGenerator([model], model.encoder.dictionary, **beam_options(4))
    if fails:
        monkeypatch.setattr(generator.search, "step", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generator.generate([model], {"net_input": {"src_tokens": tokens, "src_lengths": None}})
    else:
        sample = {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(1).sum(1)}}
        assert len(generator.generate([model], sample)) == 4
    assert model.training
    assert torch.equal(model.eval()(tokens, None, targets)[0], before)


def test_beams_that_share_their_source_find_the_same_summaries() -> None:
    """Sharing is how fairseq's BART generates; copying the source for each beam must find the same."""
    model = build_model()
    tokens = random_tokens(40, 20, 30, 25)
    sample = {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(1).sum(1)}}
    shared = LSGSequenceGenerator([model], model.encoder.dictionary, **beam_options(3)).generate([model], sample)
    for index in range(4):
        row = tokens[index : index + 1, : int(tokens[index].ne(1).sum())]
        alone = {"net_input": {"src_tokens": row, "src_lengths": row.ne(1).sum(1)}}
        generator = LSGSequenceGenerator([model], model.encoder.dictionary, **beam_options(3))
        for one, other in zip(shared[index], generator.generate([model], alone)[0], strict=True):
            assert torch.equal(one["tokens"], other["tokens"])
            torch.testing.assert_close(one["score"], other["score"], atol=1e-5, rtol=1e-5)


def test_forced_first_token_counts_nothing() -> None:
    model = build_model()
    tokens = random_tokens(40, 20)
    sample = {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(1).sum(1)}}
    generator = LSGSequenceGenerator([model], model.encoder.dictionary, forced_first_token=0, **beam_options(3))
    for hypotheses in generator.generate([model], sample):
        for hypothesis in hypotheses:
            assert hypothesis["tokens"][0] == 0
            assert hypothesis["positional_scores"][0] == 0


@pytest.mark.parametrize("sparsity_type", TYPES)
def test_checkpointed_activations_give_the_same_gradients(sparsity_type: str) -> None:
    tokens, targets = random_tokens(*LENGTHS), random_tokens(5, 4, 3, 2, seed=1)
    gradients = []
    for checkpointed in (False, True):
        model = build_model(
            lsg_sparsity_type=sparsity_type, checkpoint_activations=checkpointed, attention_dropout=0.2
        ).train()
        torch.manual_seed(3)
        model(tokens, None, targets)[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sparsity_type", TYPES)
def test_half_precision(sparsity_type: str, dtype: torch.dtype) -> None:
    model = build_model(lsg_sparsity_type=sparsity_type)
    tokens, targets = random_tokens(*LENGTHS), random_tokens(5, 4, 3, 2, seed=1)
    expected = model(tokens, None, targets)[0]
    actual = model.to(dtype)(tokens, None, targets)[0]
    assert actual.dtype == dtype
    assert actual.isfinite().all()
    assert (actual.float() - expected).abs().mean() < 0.05


def test_encoder_layerdrop_skips_layers_in_training_only() -> None:
    model, tokens = build_model(encoder_layerdrop=0.5, dropout=0.0), random_tokens(40)
    torch.testing.assert_close(encode(model, tokens)["encoder_out"][0], encode(model, tokens)["encoder_out"][0])
    model.train()
    outputs = {encode(model, tokens)["encoder_out"][0].sum().item() for _ in range(20)}
    assert len(outputs) > 1


def test_unfitting_heads_are_an_error() -> None:
    with pytest.raises(LSGError, match="attention heads must divide the width 32, which 5 does not"):
        build_model(encoder_attention_heads=5)


@pytest.mark.parametrize("arch", ["lsg_bart_small", "lsg_pegasus_small"])
def test_groups_of_documents_and_of_rows_are_encoded_as_all_together(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = build_model(arch).eval(), random_tokens(*LENGTHS)
    expected = encode(model, tokens)
    monkeypatch.setattr(lsg_encoder, "GROUP_ROWS", 130)
    monkeypatch.setattr(lsg_encoder, "WIDE_ROWS", 9)
    with packed_weights(model):
        found = encode(model, tokens)
    for i in range(len(LENGTHS)):
        torch.testing.assert_close(real_rows(found, i), real_rows(expected, i), atol=1e-5, rtol=1e-5)
