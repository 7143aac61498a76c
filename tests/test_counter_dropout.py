"""The hash behind dropout: as good as coin flips wherever attention could tell; and where its seeds come from."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from lsg_fairseq.modules.counter_dropout import draw_seed, dropout_of, keep_mask

SHAPE = (4, 4, 96, 160)
# A fair coin leaves these bounds once in a million tests.
SIGMAS = 5.0


def deviations(seed: int, dropout_p: float) -> torch.Tensor:
    """The mask as numbers of mean 0 and variance 1, were it flipped by coins."""
    kept = keep_mask(seed, SHAPE, dropout_p).double()
    return (kept - (1 - dropout_p)) / math.sqrt(dropout_p * (1 - dropout_p))


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31 - 1])
@pytest.mark.parametrize("dropout_p", [0.01, 0.1, 0.5, 0.9])
def test_the_rate_is_the_probability(seed: int, dropout_p: float) -> None:
    x = deviations(seed, dropout_p)
    assert abs(x.sum()) < SIGMAS * math.sqrt(x.numel())


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("dim", [0, 1, 2, 3], ids=["batches", "heads", "queries", "keys"])
def test_neighbours_do_not_correlate(seed: int, dim: int) -> None:
    x = deviations(seed, 0.1)
    for distance in range(1, min(x.size(dim), 18)):
        products = x.narrow(dim, distance, x.size(dim) - distance) * x.narrow(dim, 0, x.size(dim) - distance)
        assert abs(products.sum()) < SIGMAS * math.sqrt(products.numel()), distance


def test_rectangles_do_not_correlate() -> None:
    """A hash of a row XOR a hash of a key, without another mix, would fail this alone."""
    x = deviations(3, 0.5)
    for rows, keys in [(1, 1), (1, 64), (32, 1), (16, 128)]:
        high, low = x[..., rows:, :], x[..., :-rows, :]
        products = high[..., keys:] * high[..., :-keys] * low[..., keys:] * low[..., :-keys]
        assert abs(products.sum()) < SIGMAS * math.sqrt(products.numel()), (rows, keys)


@pytest.mark.parametrize("dim", [0, 1, 2, 3], ids=["batches", "heads", "queries", "keys"])
def test_sums_vary_as_sums_of_coins_do(dim: int) -> None:
    """No batch, head, query or key is dropped more often than others: squares of sums are chi-square."""
    x = deviations(11, 0.1)
    others = [d for d in range(4) if d != dim]
    statistic = (x.sum(others) ** 2).sum() / math.prod(x.size(d) for d in others)
    assert abs(statistic - x.size(dim)) < SIGMAS * math.sqrt(2 * x.size(dim))


def test_seeds_do_not_correlate() -> None:
    for a, b in [(0, 1), (1, 2), (5, 5 + 2**16), (0, 2**30)]:
        products = deviations(a, 0.1) * deviations(b, 0.1)
        assert abs(products.sum()) < SIGMAS * math.sqrt(products.numel()), (a, b)


def test_where_a_key_stands_does_not_depend_on_how_many_there_are() -> None:
    whole, part = keep_mask(9, SHAPE, 0.3), keep_mask(9, (*SHAPE[:2], 40, 50), 0.3)
    assert torch.equal(whole[..., :40, :50], part)


@pytest.mark.parametrize("dropout_p", [0.0, 0.1, 0.5, 1.0])
def test_the_expectation_is_kept(dropout_p: float) -> None:
    dropout = dropout_of(dropout_p)
    kept = keep_mask(1, SHAPE, dropout_p)
    if dropout is None:
        assert dropout_p == 0.0
        assert kept.all()
    else:
        assert 0 <= dropout.threshold < 2**31
        assert dropout.scale * (1 - dropout_p) == pytest.approx(1.0 if dropout_p < 1 else 0.0)
        assert kept.any() == (dropout_p < 1)


def test_seeds_come_from_the_generator_that_checkpointing_restores() -> None:
    seeds = []

    def layer(x: torch.Tensor) -> torch.Tensor:
        seeds.append(draw_seed())
        return x.exp()

    torch.manual_seed(0)
    x = torch.ones(1, requires_grad=True)
    for use_reentrant in (True, False):
        checkpoint(layer, x, use_reentrant=use_reentrant).sum().backward()
    assert seeds[0] == seeds[1]
    assert seeds[2] == seeds[3] != seeds[0]
    torch.manual_seed(0)
    assert draw_seed() == seeds[0]
