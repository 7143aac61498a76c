"""The decoder's attention over its own output, against fairseq's own module with the same weights."""

from __future__ import annotations

import pytest
import torch
from fairseq.modules.multihead_attention import MultiheadAttention

from lsg_fairseq.modules import target_attention
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.modules.target_attention import TargetAttention

WIDTH, HEADS = 16, 4


def make_pair() -> tuple[TargetAttention, MultiheadAttention]:
    """Ours and fairseq's, with the same weights."""
    torch.manual_seed(0)
    theirs = MultiheadAttention(WIDTH, HEADS, self_attention=True).eval()
    ours = TargetAttention(WIDTH, HEADS).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def causal_mask(length: int) -> torch.Tensor:
    return torch.full((length, length), -torch.inf).triu(1)


def test_parameters_are_fairseqs_in_its_order() -> None:
    torch.manual_seed(3)
    ours = TargetAttention(WIDTH, HEADS)
    torch.manual_seed(3)
    theirs = MultiheadAttention(WIDTH, HEADS, self_attention=True)
    for (name, one), (other_name, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)


@pytest.mark.parametrize("masked", [False, True])
def test_teacher_forcing_equals_fairseq_with_its_gradients(masked: bool) -> None:
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = True
    results = []
    for attention in make_pair():
        x = torch.randn(6, 3, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
        options = {"key_padding_mask": padding if masked else None, "attn_mask": causal_mask(6), "need_weights": False}
        attended, weights = attention(x, x, x, **options)
        assert weights is None
        attended.square().sum().backward()
        results.append([attended, x.grad, *(p.grad for p in attention.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_steps_equal_caches_that_are_concatenated_and_reordered(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beams continue each other, documents finish, a token is padding, and the cache outgrows its room."""
    monkeypatch.setattr(target_attention, "FIRST_STEPS", 2)
    ours, theirs = make_pair()
    ours.set_beam_size(beams)
    generator = torch.Generator().manual_seed(1)
    states: tuple[dict, dict] = {}, {}
    documents = 4
    for step in range(9):
        x = torch.randn(1, documents * beams, WIDTH, generator=generator)
        padding = None
        if step == 4:
            padding = torch.zeros(documents * beams, 1, dtype=torch.bool)
            padding[-1] = True
        attended, expected = (
            attention(x, x, x, key_padding_mask=padding, incremental_state=state, need_weights=False)[0]
            for attention, state in zip((ours, theirs), states, strict=True)
        )
        torch.testing.assert_close(attended, expected, atol=1e-6, rtol=1e-5)
        kept = [0, *range(2, documents)] if step in (3, 5) else list(range(documents))
        continued = torch.randint(beams, (len(kept), beams), generator=generator)
        order = (torch.tensor(kept)[:, None] * beams + continued).flatten()
        for attention, state in zip((ours, theirs), states, strict=True):
            attention.reorder_incremental_state(state, order)
        documents = len(kept)


def test_caches_stay_where_they_are_while_beams_change_places() -> None:
    ours, _ = make_pair()
    ours.set_beam_size(3)
    state: dict = {}
    for _ in range(3):
        ours(torch.randn(1, 6, WIDTH), incremental_state=state)
        cache = state[ours._state_name]["key"]
        ours.reorder_incremental_state(state, torch.tensor([2, 2, 0, 3, 5, 5]))
        assert state[ours._state_name]["key"] is cache


def test_a_step_is_one_token() -> None:
    with pytest.raises(LSGError, match="one token at a time, not by 2"):
        make_pair()[0](torch.randn(2, 3, WIDTH), incremental_state={})
