"""The decoder's attention over its source, against fairseq's own module with the same weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq.models import ARCH_CONFIG_REGISTRY
from fairseq.modules.multihead_attention import MultiheadAttention

from lsg_fairseq.models.lsg_decoder import give_weights
from lsg_fairseq.modules.kernel_precision import few_queries_attention
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.modules.source_attention import SourceAttention
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig, LSGSummarizationTask
from recipes.tiny_models import TINY_SIZES, build_model, random_tokens

WIDTH, SOURCE, HEADS = 16, 24, 4


def make_pair() -> tuple[SourceAttention, MultiheadAttention]:
    """Ours and fairseq's, with the same weights."""
    torch.manual_seed(0)
    theirs = MultiheadAttention(WIDTH, HEADS, kdim=SOURCE, vdim=SOURCE, encoder_decoder_attention=True).eval()
    ours = SourceAttention(WIDTH, SOURCE, HEADS).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def make_inputs(rows: int = 3, sources: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (5,rows,C), sources (7,sources,C), and a mask in which the last source ends early."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(sources, 7, dtype=torch.bool)
    mask[-1, 4:] = True
    query = torch.randn(5, rows, WIDTH, generator=generator)
    return query, torch.randn(7, sources, SOURCE, generator=generator), mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("need_head_weights", [False, True])
def test_equals_fairseq(masked: bool, need_head_weights: bool) -> None:
    ours, theirs = make_pair()
    query, source, mask = make_inputs()
    options = {"key_padding_mask": mask if masked else None, "static_kv": True, "need_head_weights": need_head_weights}
    attended, weights = ours(query, source, source, **options)
    expected, expected_weights = theirs(query, source, source, **options)
    torch.testing.assert_close(attended, expected, atol=1e-6, rtol=1e-5)
    if need_head_weights:
        torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)
    else:
        assert weights is None


def test_gradients_equal_fairseq() -> None:
    results = []
    for attention in make_pair():
        query, source, mask = make_inputs()
        query.requires_grad_()
        source.requires_grad_()
        attention(query, source, source, key_padding_mask=mask, static_kv=True)[0].square().sum().backward()
        results.append([query.grad, source.grad, *(p.grad for _, p in sorted(attention.named_parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kept_in_half", [False, True], ids=["bfloat16 model", "float32 model"])
def test_steps_in_half_precision_are_near_those_in_float32(masked: bool, kept_in_half: bool) -> None:
    ours, _ = make_pair()
    query, source, mask = make_inputs(rows=6, sources=3)
    mask = mask if masked else None
    copied = source.repeat_interleave(2, 1), None if mask is None else mask.repeat_interleave(2, 0)
    expected = ours(query[:1], copied[0], copied[0], key_padding_mask=copied[1])[0]
    ours.set_beam_size(2)
    if kept_in_half:
        ours.source_dtype = torch.bfloat16
    else:
        ours, query, source = ours.bfloat16(), query.bfloat16(), source.bfloat16()
    state: dict = {}
    attended, _ = ours(query[:1], source, source, mask, incremental_state=state)
    assert state[ours._state_name]["key"].dtype == torch.bfloat16
    assert attended.dtype == query.dtype
    torch.testing.assert_close(attended.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("beams", [1, 3])
def test_beams_read_their_own_source_step_by_step(beams: int) -> None:
    """Each row of a generation gets what a forward of its source, copied for each beam, gives it."""
    ours, _ = make_pair()
    query, source, mask = make_inputs(rows=2 * beams, sources=2)
    copied = source.repeat_interleave(beams, 1), mask.repeat_interleave(beams, 0)
    expected = ours(query, copied[0], copied[0], key_padding_mask=copied[1])[0]
    ours.set_beam_size(beams)
    state: dict = {}
    for step in range(5):
        # Only the first step may look at the source.
        given = (source, source, mask) if step == 0 else (None, None, None)
        attended, weights = ours(query[step : step + 1], *given, incremental_state=state, need_head_weights=True)
        torch.testing.assert_close(attended[0], expected[step], atol=1e-6, rtol=1e-5)
        assert weights is None
        before = state[ours._state_name]["key"]
        # Beams of a source change places.
        state = ours.reorder_incremental_state(state, torch.arange(2 * beams).view(2, beams).flip(1).flatten())
        assert state[ours._state_name]["key"] is before


def test_a_finished_source_is_let_go() -> None:
    ours, _ = make_pair()
    query, source, mask = make_inputs(rows=9, sources=3)
    ours.set_beam_size(3)
    state: dict = {}
    everything = ours(query[:1], source, source, mask, state)[0]
    left = torch.tensor([0, 2, 1, 7, 6, 8])  # rows of sources 0 and 2
    state = ours.reorder_incremental_state(state, left)
    assert state[ours._state_name]["key"].size(0) == 2
    torch.testing.assert_close(ours(query[:1, left], None, None, None, state)[0], everything[:, left])


def test_rows_must_share_sources_evenly() -> None:
    ours, _ = make_pair()
    query, source, _ = make_inputs(rows=5, sources=3)
    with pytest.raises(LSGError, match="5 decoder rows cannot share 3 sources evenly"):
        ours(query, source, source)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(LSGError, match="must divide the width 16, which 3 does not"):
        SourceAttention(16, 16, 3)


def test_a_model_still_gives_alignments() -> None:
    """fairseq's --print-alignment reads the last layer's probabilities from a teacher-forced forward."""
    model = build_model()
    tokens, target = random_tokens(20, 12), random_tokens(5, 4, seed=1)
    attention = model(tokens, None, target)[1]["attn"][0]
    assert attention.shape == (2, 5, 20)  # the share of the global token in front is not among them
    assert (attention.sum(-1) < 1).all()
    assert not attention[1, :, 12:].any()


def test_a_training_gives_weights_where_they_are_read() -> None:
    """Without them its gradients are the same."""
    model = build_model(attention_dropout=0.0, dropout=0.0).train()
    tokens, target = random_tokens(20, 12), random_tokens(5, 4, seed=1)
    found = []
    for given in (True, False):
        give_weights(model, given)
        model.zero_grad()
        output, extra = model(tokens, None, target)
        output.sum().backward()
        assert (extra["attn"][0] is not None) is given
        found.append([output, *(p.grad for p in model.parameters() if p.grad is not None)])
    for with_weights, without in zip(*found, strict=True):
        torch.testing.assert_close(without, with_weights, atol=1e-5, rtol=1e-5)
    # Nor in validation, whose batches are as large.
    assert model.eval()(tokens, None, target)[1]["attn"][0] is None


@pytest.mark.parametrize(
    ("load_alignments", "from_checkpoint", "given"),
    [(False, False, False), (True, False, True), (False, True, True)],
)
def test_a_training_asks_for_weights_if_it_learns_alignments(
    load_alignments: bool, from_checkpoint: bool, given: bool, corpus: Path
) -> None:
    """A checkpoint that is used gives them, as fairseq's models do."""
    task = LSGSummarizationTask.setup_task(LSGSummarizationConfig(data=str(corpus), load_alignments=load_alignments))
    args = Namespace(arch="lsg_bart_small", **TINY_SIZES)
    ARCH_CONFIG_REGISTRY[args.arch](args)
    model = task.build_model(args, from_checkpoint)
    assert [layer.encoder_attn.gives_weights for layer in model.decoder.layers] == [given] * len(model.decoder.layers)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries", [1, 4])
def test_few_queries_attend_as_many_do(masked: bool, dtype: torch.dtype, queries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8, generator=generator).to(dtype) for n in (queries, 50, 50))
    present = torch.arange(50).lt(torch.tensor([[50], [20]]))[:, None, None] if masked else None
    expected = torch.nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), present)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    found = few_queries_attention(query, key, value, present)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
