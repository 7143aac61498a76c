"""LSG-RoBERTa: rows, padding, oracle, gradients, epsilon, and checkpoints of stock fairseq brought up to it."""

from __future__ import annotations

import argparse
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.models.roberta import RobertaModel
from reference import dense_lsg_attention
from torch import Tensor, nn

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.position_tables import make_global_table
from lsg_fairseq.weights.upgrades import upgrade_fairseq_roberta, with_current_names
from recipes.tiny_models import build_dictionary, build_model, random_tokens

TYPES = ["none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride"]
LENGTHS = (50, 17, 16, 3)
PREFIX = "encoder.sentence_encoder."
TOKENS, POSITIONS, GLOBALS = (
    f"{PREFIX}{name}.weight" for name in ("embed_tokens", "embed_positions", "global_embeddings")
)
LM_HEAD = "encoder.lm_head."


def build_roberta(arch: str = "lsg_roberta_small", **flags: object) -> nn.Module:
    return build_model(arch, **{"max_positions": 256, "dropout": 0.0, "attention_dropout": 0.0, **flags})


def features_of(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, features_only=True)[0]


# --- the forward ----------------------------------------------------------------------------------------------------


def test_full_attention_is_stock_roberta_with_one_token_more() -> None:
    """With full attention and a global row that is a copy of a token's, LSG-RoBERTa is RoBERTa on one token more."""
    stock = build_roberta("roberta_base")
    ours = build_roberta("lsg_roberta_base", lsg_attention="full", lsg_pool_with_global=False)
    assert type(stock) is RobertaModel
    state = dict(stock.state_dict())
    table = state[POSITIONS]
    state[POSITIONS] = torch.cat([table[:2], table[3:], table[-1:]])
    state[GLOBALS] = ours.state_dict()[GLOBALS].clone()
    state[GLOBALS][0] = state[TOKENS][9] + table[2]
    ours.load_state_dict(state)
    tokens = random_tokens(40, 40)
    expected = stock(torch.cat([torch.full((2, 1), 9), tokens], dim=1))[0]
    torch.testing.assert_close(ours(tokens)[0], expected[:, 1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sparsity_type", ["none", "norm", "bos_pooling"])
def test_attention_is_the_dense_oracles(sparsity_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = build_roberta(lsg_sparsity_type=sparsity_type, lsg_num_global_tokens=2), random_tokens(50, 33)
    actual = model(tokens)[0]

    def oracle(query: Tensor, key: Tensor, value: Tensor, config: object, key_padding_mask=None, *unused) -> Tensor:
        return dense_lsg_attention(query, key, value, config, key_padding_mask)

    monkeypatch.setattr("lsg_fairseq.modules.lsg_attention.lsg_attention", oracle)
    kept = tokens.ne(1)
    torch.testing.assert_close(actual[kept], model(tokens)[0][kept], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("sparsity_type", TYPES)
def test_output_is_independent_of_batch_and_padding(sparsity_type: str) -> None:
    model, tokens = build_roberta(lsg_sparsity_type=sparsity_type, lsg_num_global_tokens=3), random_tokens(*LENGTHS)
    together, longer = features_of(model, tokens), features_of(model, nn.functional.pad(tokens, (0, 70), value=1))
    assert together.shape == (4, 50, 32)
    for index, length in enumerate(LENGTHS):
        alone = features_of(model, tokens[index : index + 1, :length])[0]
        assert alone.shape == (length, 32)
        for other in (together, longer):
            torch.testing.assert_close(other[index, :length], alone, atol=2e-6, rtol=1e-5)


def test_first_row_is_the_first_globals_or_token_0s() -> None:
    tokens = random_tokens(40, 25)
    pooled, plain = (build_roberta(lsg_num_global_tokens=2, lsg_pool_with_global=flag) for flag in (True, False))
    rows = features_of(plain, tokens)
    torch.testing.assert_close(features_of(pooled, tokens)[:, 1:], rows[:, 1:])
    assert not torch.allclose(features_of(pooled, tokens)[:, 0], rows[:, 0], atol=1e-2)
    # Behind a mask nothing but its own row depends on token 0: pooling leaves nothing of it.
    masked = build_roberta(lsg_num_global_tokens=2, lsg_mask_first_token=True)
    changed = tokens.clone()
    changed[:, 0] = 7
    torch.testing.assert_close(features_of(masked, changed), features_of(masked, tokens))


def test_all_hidden_states_have_the_rows_of_the_tokens() -> None:
    features, extra = build_roberta()(random_tokens(*LENGTHS), features_only=True, return_all_hiddens=True)
    assert [state.shape for state in extra["inner_states"]] == [(50, 4, 32)] * 3
    torch.testing.assert_close(extra["inner_states"][-1].transpose(0, 1), features)


def test_masked_rows_alone_are_projected_to_the_vocabulary() -> None:
    model, tokens = build_roberta(), random_tokens(*LENGTHS)
    masked = tokens.gt(30)
    logits = model(tokens)[0]
    torch.testing.assert_close(model(tokens, masked_tokens=masked)[0], logits[masked], atol=1e-6, rtol=1e-5)
    expected = nn.functional.linear(model.encoder.lm_head(features_of(model, tokens)), torch.eye(64))
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)


def test_padding_in_front_is_refused() -> None:
    tokens = random_tokens(*LENGTHS)
    tokens[1] = tokens[1].roll(50 - 17)
    with pytest.raises(LSGError, match="a row of src_tokens begins with <pad>"):
        build_roberta()(tokens)


def test_too_long_input_names_both_lengths() -> None:
    with pytest.raises(LSGError, match=r"65 tokens is longer than the model's 64 .* --max-positions if encoder-only"):
        build_roberta(max_positions=64)(random_tokens(65))


def test_gradients_reach_the_global_rows_in_use() -> None:
    model = build_roberta(lsg_num_global_tokens=3)
    model(random_tokens(*LENGTHS))[0].square().mean().backward()
    gradient = model.encoder.sentence_encoder.global_embeddings.weight.grad
    assert gradient[:3].abs().sum(dim=1).gt(0).all()
    assert not gradient[3:].any()


@pytest.mark.parametrize("flag", ["checkpoint_activations", "offload_activations"])
def test_checkpointed_activations_give_the_same_gradients(flag: str) -> None:
    gradients = []
    for value in (False, True):
        model = build_roberta(attention_dropout=0.2, **{flag: value}).train()
        assert model.args.checkpoint_activations is value
        torch.manual_seed(3)
        model(random_tokens(*LENGTHS))[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_classification_head_reads_the_first_row() -> None:
    model, tokens = build_roberta(), random_tokens(*LENGTHS)
    model.register_classification_head("topics", num_classes=3)
    logits = model.eval()(tokens, classification_head_name="topics")[0]
    assert logits.shape == (4, 3)
    torch.testing.assert_close(logits, model.classification_heads["topics"](features_of(model, tokens)[:, :1]))


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "sizes", "eps"),
    [
        ("lsg_roberta_small", (3, 256, 1024, 4), 1e-5),
        ("lsg_roberta_base", (12, 768, 3072, 12), 1e-5),
        ("lsg_roberta_large", (24, 1024, 4096, 16), 1e-5),
        ("lsg_bert_base", (12, 768, 3072, 12), 1e-12),
    ],
)
def test_architectures(arch: str, sizes: tuple[int, ...], eps: float) -> None:
    args = Namespace()
    ARCH_CONFIG_REGISTRY[arch](args)
    names = ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads")
    assert tuple(getattr(args, name) for name in names) == sizes
    assert (args.max_positions, args.layer_norm_eps, args.lsg_pass_global_tokens_to_decoder) == (4096, eps, False)


@pytest.mark.parametrize(
    ("asked", "positions"),
    [
        ({}, 4096),
        ({"tokens_per_sample": 512}, 4096),
        ({"tokens_per_sample": 8192}, 8192),
        ({"tokens_per_sample": 512, "max_positions": 600}, 600),
    ],
)
def test_positions_follow_the_samples_that_are_asked_for(asked: dict[str, int], positions: int) -> None:
    args = Namespace(**asked)
    ARCH_CONFIG_REGISTRY["lsg_roberta_base"](args)
    assert args.max_positions == args.max_source_positions == positions


@pytest.mark.parametrize(
    ("flags", "eps"), [({}, 1e-5), ({"arch": "lsg_bert_base"}, 1e-12), ({"layer_norm_eps": 0.5}, 0.5)]
)
def test_every_layer_norm_has_the_epsilon(flags: dict[str, object], eps: float) -> None:
    model = build_roberta(**flags)
    norms = {name: module.eps for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert len(norms) == 6
    assert "encoder.lm_head.layer_norm" in norms
    assert set(norms.values()) == {eps}
    if eps == 0.5:
        tokens = random_tokens(20)
        assert not torch.allclose(model(tokens)[0], build_roberta()(tokens)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"lsg_pass_global_tokens_to_decoder": True},
            "pass_global_tokens_to_decoder must be false for an encoder-only model",
        ),
        ({"layer_norm_eps": 0.0}, r"layer_norm_eps must be a number from 1e-30 to 1, not 0\.0"),
        ({"lsg_sparsity_factor": 3}, "sparsity_factor must divide block_size"),
        ({"lsg_blok_size": 3}, "there is no LSG setting 'blok_size'"),
    ],
)
def test_wrong_settings_are_one_sentence(flags: dict[str, object], message: str) -> None:
    with pytest.raises(LSGError, match=message):
        build_roberta(**flags)


def test_flags_and_their_help() -> None:
    parser = argparse.ArgumentParser()
    ARCH_MODEL_REGISTRY["lsg_roberta_base"].add_args(parser.add_argument_group(argument_default=argparse.SUPPRESS))
    assert vars(parser.parse_args([])).keys() & {"layer_norm_eps", "checkpoint_activations", "lsg_block_size"} == set()
    line = (
        "--layer-norm-eps 1e-12 --checkpoint-activations --lsg-block-size 64 --lsg-pass-global-tokens-to-decoder false"
    )
    args = parser.parse_args(line.split())
    assert (args.layer_norm_eps, args.checkpoint_activations, args.lsg_block_size) == (1e-12, True, 64)
    (passed,) = [a.help for a in parser._actions if "--lsg-pass-global-tokens-to-decoder" in a.option_strings]
    assert passed.endswith("(default: false)")


# --- checkpoints ----------------------------------------------------------------------------------------------------


def stock_roberta(num_positions: int = 64, **flags: object) -> dict[str, Tensor]:
    """The weights of fairseq's own RoBERTa of the tests' size, whose dictionary ends with `<mask>`."""
    dictionary = build_dictionary()
    dictionary.add_symbol("<mask>")
    return build_with(dictionary, "roberta_base", max_positions=num_positions, **flags).state_dict()


def build_with(dictionary: object, arch: str = "lsg_roberta_small", **flags: object) -> nn.Module:
    sizes = {"embed_dim": 32, "ffn_embed_dim": 48, "layers": 2, "attention_heads": 4}
    args = Namespace(arch=arch, **{**{f"encoder_{name}": value for name, value in sizes.items()}, **flags})
    ARCH_CONFIG_REGISTRY[arch](args)
    torch.manual_seed(1)
    return ARCH_MODEL_REGISTRY[arch].build_model(args, SimpleNamespace(source_dictionary=dictionary))


def as_of_2019(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names of the published roberta.base/model.pt, q, k and v packed."""
    old = dict(state)
    for key in [key for key in state if "q_proj" in key]:
        parts = [old.pop(key.replace("q_proj", f"{name}_proj")) for name in "qkv"]
        old[key.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    del old[PREFIX + "version"]
    old = {key.replace(".layernorm_embedding.", ".emb_layer_norm."): value for key, value in old.items()}
    return {key.replace("encoder.", "decoder.", 1): value for key, value in old.items()}


def lsg_with_mask(**flags: object) -> nn.Module:
    dictionary = build_dictionary()
    dictionary.add_symbol("<mask>")
    return build_with(dictionary, **{"max_positions": 256, **flags})


@pytest.mark.parametrize("names", [dict, as_of_2019], ids=["today", "2019"])
def test_stock_checkpoint(names: type, caplog: pytest.LogCaptureFixture) -> None:
    stock, model = stock_roberta(), lsg_with_mask()
    with caplog.at_level("INFO", logger="lsg_fairseq"):
        model.load_state_dict(names(stock), strict=True)
    assert caplog.messages == [
        "checkpoint brought up to this model: position table of 66 rows made 258; global table of 512 rows made from "
        "its positions"
    ]
    state, positions = model.state_dict(), stock[POSITIONS]
    assert torch.equal(state[POSITIONS], torch.cat([positions[:2], positions[2:].repeat(4, 1)]))
    tokens = stock[TOKENS]
    assert torch.equal(state[GLOBALS], make_global_table(positions[2:], tokens, bos_row=0, mask_row=len(tokens) - 1))
    assert torch.equal(state[GLOBALS][0], positions[2] + tokens[0])
    unchanged = stock.keys() - {POSITIONS, PREFIX + "version"}
    assert len(unchanged) == len(stock) - 2
    assert all(torch.equal(state[key], stock[key]) for key in unchanged)


def test_own_checkpoint_is_lengthened_with_its_globals_untouched(caplog: pytest.LogCaptureFixture) -> None:
    old, longer = lsg_with_mask(max_positions=64), lsg_with_mask(max_positions=100)
    nn.init.normal_(old.encoder.sentence_encoder.global_embeddings.weight)
    state = dict(old.state_dict())
    with caplog.at_level("INFO", logger="lsg_fairseq"):
        longer.load_state_dict(dict(state))
    assert caplog.messages == ["checkpoint brought up to this model: position table of 66 rows made 102"]
    assert torch.equal(longer.state_dict()[GLOBALS], state[GLOBALS])
    assert torch.equal(longer.state_dict()[POSITIONS][66:], state[POSITIONS][2:38])
    caplog.clear()
    with caplog.at_level("INFO", logger="lsg_fairseq"):
        again = lsg_with_mask(max_positions=64)
        again.load_state_dict(dict(state))
    assert caplog.messages == []
    assert all(torch.equal(again.state_dict()[key], state[key]) for key in state)


def test_upgrade_leaves_its_input_alone_and_what_fits_is_the_same_tensor() -> None:
    stock, spec = stock_roberta(), lsg_with_mask().spec
    before = dict(stock)
    upgraded = upgrade_fairseq_roberta(stock, spec, mask_row=64)
    assert stock.keys() == before.keys()
    assert all(stock[key] is before[key] for key in before)
    again = upgrade_fairseq_roberta(upgraded, spec, mask_row=64)
    assert again.keys() == upgraded.keys()
    assert all(again[key] is upgraded[key] for key in again)
    assert all(torch.equal(value, stock[key]) for key, value in with_current_names(as_of_2019(stock)).items())


def test_encoder_without_lm_head_gets_one_and_a_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    stock = {key: value for key, value in stock_roberta().items() if not key.startswith(LM_HEAD)}
    models = [lsg_with_mask(), lsg_with_mask()]
    with caplog.at_level("INFO", logger="lsg_fairseq"):
        for model in models:
            model.load_state_dict(dict(stock))
    assert all("masked-LM head made with initial values, as it has none" in message for message in caplog.messages)
    first, second = (model.encoder.lm_head.state_dict() for model in models)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(first["weight"], stock[TOKENS])
    assert 0.015 < first["dense.weight"].std() < 0.025
    assert not first["bias"].any()


def test_lm_head_with_missing_parts_is_refused() -> None:
    stock = stock_roberta()
    del stock[LM_HEAD + "dense.bias"]
    with pytest.raises(LSGError, match=r"do not fit the model .*lm_head\.dense\.bias"):
        lsg_with_mask().load_state_dict(stock)


def test_untied_weights() -> None:
    stock = stock_roberta(untie_weights_roberta=True)
    assert not torch.equal(stock[LM_HEAD + "weight"], stock[TOKENS])
    with pytest.raises(LSGError, match=r"encoder\.lm_head\.weight must be equal to .*give --untie-weights-roberta"):
        lsg_with_mask().load_state_dict(dict(stock))
    model = lsg_with_mask(untie_weights_roberta=True)
    model.load_state_dict(dict(stock))
    assert torch.equal(model.encoder.lm_head.weight, stock[LM_HEAD + "weight"])


@pytest.mark.parametrize("untied", [False, True])
def test_mask_row_that_only_one_side_has(untied: bool) -> None:
    """A dictionary without `<mask>` drops the last row everywhere; a checkpoint without one gets the mean row."""
    stock = stock_roberta(untie_weights_roberta=untied)
    without = build_with(build_dictionary(), max_positions=64, untie_weights_roberta=untied)
    without.load_state_dict(dict(stock))
    shortened = without.state_dict()
    for key in (TOKENS, LM_HEAD + "weight", LM_HEAD + "bias"):
        assert torch.equal(shortened[key], stock[key][:-1])
    tokens = stock[TOKENS]
    with_mask = make_global_table(stock[POSITIONS][2:], tokens, bos_row=0, mask_row=len(tokens) - 1)
    assert torch.equal(shortened[GLOBALS], with_mask)
    regrown = lsg_with_mask(max_positions=64, untie_weights_roberta=untied)
    regrown.load_state_dict(dict(shortened))
    torch.testing.assert_close(regrown.state_dict()[TOKENS][-1], tokens[:-1].mean(dim=0))
    assert regrown.state_dict()[LM_HEAD + "bias"][-1] == 0
    assert torch.equal(regrown.state_dict()[GLOBALS], shortened[GLOBALS])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_positions": 32}, "position table cannot be cut from the 64 positions it was trained with to 32"),
        ({"encoder_embed_dim": 64}, r"2 layers, 32 wide .* 48, and the model 2 layers, 64 wide .*: choose the --arch"),
        ({"encoder_layers": 3}, "the checkpoint has 2 layers, .* and the model 3 layers"),
        ({"encoder_ffn_embed_dim": 64}, "feed-forward layers of 48, and the model .* of 64"),
    ],
)
def test_checkpoint_of_another_size_is_refused(flags: dict[str, int], message: str) -> None:
    with pytest.raises(LSGError, match=message):
        lsg_with_mask(**flags).load_state_dict(stock_roberta())


def test_other_vocabularies_and_other_models_are_refused() -> None:
    stock, spec = stock_roberta(), lsg_with_mask().spec
    with pytest.raises(LSGError, match="65 embedding rows and the dictionary 70 symbols"):
        upgrade_fairseq_roberta(stock, replace(spec, vocab_size=70), 69)
    with pytest.raises(LSGError, match=r"this checkpoint has no encoder\.sentence_encoder\.embed_tokens\.weight"):
        lsg_with_mask().load_state_dict(build_model("lsg_bart_small").state_dict())


def test_layers_to_keep_prune_a_checkpoint_as_in_fairseq() -> None:
    stock, model = stock_roberta(encoder_layers=3), lsg_with_mask(encoder_layers_to_keep="0,2")
    model_cfg = Namespace(arch="lsg_roberta_small", encoder_layers_to_keep="0,2")
    model.load_state_dict(dict(stock), model_cfg=model_cfg)
    assert torch.equal(model.state_dict()[PREFIX + "layers.1.fc1.weight"], stock[PREFIX + "layers.2.fc1.weight"])


def test_heads_of_a_checkpoint_load_as_in_fairseq(caplog: pytest.LogCaptureFixture) -> None:
    dictionary = build_dictionary()
    dictionary.add_symbol("<mask>")
    trained = build_with(dictionary, "roberta_base", max_positions=64)
    trained.register_classification_head("mnli", num_classes=3)
    state = trained.state_dict()
    kept, same, dropped = lsg_with_mask(load_checkpoint_heads=True), lsg_with_mask(), lsg_with_mask()
    same.register_classification_head("mnli", num_classes=3)
    for model in (kept, same, dropped):
        model.load_state_dict(dict(state))
    for model in (kept, same):
        assert torch.equal(
            model.classification_heads["mnli"].out_proj.weight, state["classification_heads.mnli.out_proj.weight"]
        )
    assert not dropped.classification_heads
    assert "deleting classification head (mnli)" in caplog.text
