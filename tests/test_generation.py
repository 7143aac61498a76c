"""LSGSequenceGenerator finds what fairseq's own generator finds with fairseq's own self-attention."""

from __future__ import annotations

import itertools

import pytest
import torch
from fairseq import search
from fairseq.modules.multihead_attention import MultiheadAttention
from fairseq.sequence_generator import SequenceGenerator
from fairseq.token_generation_constraints import pack_constraints

from lsg_fairseq.generation import LSGSequenceGenerator, RowwiseBeamSearch
from recipes.tiny_models import build_model, random_tokens

Hypotheses = list[list[dict[str, torch.Tensor]]]
OPTIONS = {"beam_size": 4, "max_len_b": 12, "min_len": 1}
STRATEGIES = {
    "beams": lambda dictionary: None,
    "diverse": lambda dictionary: search.DiverseBeamSearch(dictionary, 2, 0.5),
    "siblings": lambda dictionary: search.DiverseSiblingsSearch(dictionary, 0.5),
    "sampling": lambda dictionary: search.Sampling(dictionary, 5),
    "prefixes": lambda dictionary: search.PrefixConstrainedBeamSearch(dictionary, lambda _, tokens: [2, *range(9, 40)]),
    "constraints": lambda dictionary: search.LexicallyConstrainedBeamSearch(dictionary, "unordered"),
}


def stock_model(**flags: object) -> torch.nn.Module:
    """The model of build_model with fairseq's self-attention in its decoder."""
    model = build_model(**flags)
    for layer in model.decoder.layers:
        ours = layer.self_attn
        layer.self_attn = MultiheadAttention(ours.num_heads * ours.head_dim, ours.num_heads, self_attention=True)
        layer.self_attn.load_state_dict(ours.state_dict())
    return model.eval()


def make_sample(**more: torch.Tensor) -> dict:
    tokens = random_tokens(40, 20, 30, 7)
    return {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(1).sum(1)}, **more}


def assert_same(found: Hypotheses, expected: Hypotheses) -> None:
    for one, other in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert torch.equal(one["tokens"], other["tokens"])
        torch.testing.assert_close(one["score"], other["score"], atol=1e-6, rtol=2e-6)
        torch.testing.assert_close(one["positional_scores"], other["positional_scores"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_search_finds_what_fairseq_finds(strategy: str) -> None:
    model, stock = build_model(), stock_model()
    dictionary, make = model.decoder.dictionary, STRATEGIES[strategy]
    more = {}
    if strategy == "constraints":
        more = {"constraints": pack_constraints([[torch.tensor([9 + i, 20])] for i in range(4)])}
    results = []
    for kind, each in ((LSGSequenceGenerator, model), (SequenceGenerator, stock)):
        torch.manual_seed(5)
        generator = kind([each], dictionary, search_strategy=make(dictionary), **OPTIONS)
        results.append(generator.generate([each], make_sample(), **more))
    assert_same(*results)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"len_penalty": 2.0, "unk_penalty": 0.5},
        {"temperature": 0.7},
        {"normalize_scores": False},
        {"max_len_a": 0.5, "max_len_b": 60, "min_len": 40},
        {"match_source_len": True},
    ],
    ids=str,
)
def test_options_mean_what_they_mean_in_fairseq(options: dict[str, object]) -> None:
    model, stock = build_model(), stock_model()
    found, expected = (
        kind([each], each.decoder.dictionary, **{**OPTIONS, **options}).generate([each], make_sample())
        for kind, each in ((LSGSequenceGenerator, model), (SequenceGenerator, stock))
    )
    assert_same(found, expected)


def test_ensembles_and_prefix_tokens() -> None:
    prefix = torch.tensor([[0, 9, 10], [0, 11, 1], [0, 1, 1], [0, 9, 2]])
    results = []
    for kind, build in ((LSGSequenceGenerator, build_model), (SequenceGenerator, stock_model)):
        models = [build(), build(lsg_sparsity_type="none")]
        generator = kind(models, models[0].decoder.dictionary, **OPTIONS)
        results.append(generator.generate(models, make_sample(), prefix_tokens=prefix))
    assert_same(*results)
    assert results[0][0][0]["tokens"][:3].tolist() == [0, 9, 10]


@pytest.mark.parametrize("step", [0, 3])
def test_best_continuations_are_those_of_all(step: int) -> None:
    dictionary = build_model().decoder.dictionary
    generator = torch.Generator().manual_seed(0)
    lprobs = torch.randn(3, 4, len(dictionary), generator=generator).log_softmax(-1)
    lprobs[:, :, 5] = -torch.inf
    scores = torch.randn(3, 4, step, generator=generator)
    found, expected = (
        kind(dictionary).step(step, lprobs.clone(), scores) for kind in (RowwiseBeamSearch, search.BeamSearch)
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
