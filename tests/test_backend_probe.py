"""A GPU's attention is tried before it is trusted; here a backend for CPUs stands for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lsg_fairseq.modules import backend_probe, block_attention
from lsg_fairseq.modules.chunked_block_attention import chunked_block_attention
from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig

CONFIG = LSGConfig(block_size=8, sparse_block_size=8, sparsity_factor=2, sparsity_type="stride")
Attend = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backend_probe, "VERDICTS", {})
    backend_probe.FAILURES.clear()
    yield
    backend_probe.FAILURES.clear()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Attend], None]:
    """Put an attention with dropout in the place of the Triton one, and let it be the first that fits."""

    def put(attend: Attend) -> None:
        backend = block_attention.Backend(attend, lambda query, config: True, has_dropout=True, is_probed=True)
        rest = {"chunked": block_attention.BACKENDS["chunked"]}
        monkeypatch.setattr(block_attention, "BACKENDS", {"triton": backend, **rest})

    return put


def run(dropout_p: float = 0.0, seed: int = 0) -> list[Tensor]:
    """Output and gradients."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 2, 49, 16, generator=generator).requires_grad_() for _ in range(3)]
    torch.manual_seed(seed)
    output = lsg_attention(*inputs, CONFIG, dropout_p=dropout_p)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), inputs)]


class Wrong(torch.autograd.Function):
    """The identity, with a gradient that is twice too large, or does not compile."""

    @staticmethod
    def forward(ctx, x, failure):
        ctx.failure = failure
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if ctx.failure is not None:
            raise ctx.failure
        return grad * 2, None


def wrong_backward(failure: Exception | None) -> Attend:
    return lambda *args: Wrong.apply(chunked_block_attention(*args), failure)


def test_what_is_right_is_used_and_tried_once(use: Callable[[Attend], None]) -> None:
    calls = []
    use(lambda query, *rest: calls.append(query.size(2)) or chunked_block_attention(query, *rest))
    for _ in range(3):
        run()
    assert calls == [32, 48, 48, 48]
    run(dropout_p=0.5)
    assert calls[4:] == [32, 48]


@pytest.mark.parametrize("dropout_p", [0.0, 0.5])
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (None, "a tiny input gives a relative error of"),
        (RuntimeError("out of resource: shared memory"), "it fails .*shared memory"),
    ],
)
def test_a_backward_that_is_wrong_or_fails_never_reaches_training(
    use: Callable[[Attend], None], failure: Exception | None, message: str, dropout_p: float
) -> None:
    expected = run(dropout_p)
    use(wrong_backward(failure))
    with pytest.warns(UserWarning, match=rf"triton attention is given up for float32 heads of 16 on cpu: {message}"):
        found = run(dropout_p)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(dropout_p)


def test_a_probe_without_memory_is_tried_again(use: Callable[[Attend], None]) -> None:
    use(wrong_backward(torch.OutOfMemoryError("another process")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
    assert backend_probe.VERDICTS == {}
    use(chunked_block_attention)
    run()
    assert list(backend_probe.VERDICTS.values()) == [True]


def test_one_failure_is_served_and_three_are_enough(use: Callable[[Attend], None]) -> None:
    expected, failing = run(0.5), []

    def attend(query: Tensor, *rest: object) -> Tensor:
        if failing and query.size(2) == 48:
            torch.rand(7)  # has drawn already
            raise RuntimeError("a passing failure")
        return chunked_block_attention(query, *rest)

    use(attend)
    run(0.5)
    failing.append(True)
    for message in ("failed once", "failed once", "is given up"):
        with pytest.warns(UserWarning, match=message):
            found = run(0.5)
        # The same probabilities are dropped, whoever serves.
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert list(backend_probe.VERDICTS.values()) == [False]


def test_memory_that_runs_out_is_the_trainers_business(use: Callable[[Attend], None]) -> None:
    def attend(query: Tensor, *rest: object) -> Tensor:
        if query.size(2) == 48:
            raise torch.OutOfMemoryError("a batch too large")
        return chunked_block_attention(query, *rest)

    use(attend)
    for _ in range(5):
        with pytest.raises(torch.OutOfMemoryError):
            run()
    assert list(backend_probe.VERDICTS.values()) == [True]


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_probe_leaves_no_trace_in_a_checkpointed_layer(use: Callable[[Attend], None], reentrant: bool) -> None:
    """Neither in the random state nor in the hooks of the checkpoint, nor is it in autocast or inference mode."""
    expected = run(0.5)
    seen = []

    def attend(query: Tensor, *rest: object) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), query.is_inference()))
        return chunked_block_attention(query, *rest)

    use(attend)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 2, 49, 16, generator=generator).requires_grad_() for _ in range(3)]
    torch.manual_seed(0)
    output = checkpoint(lambda *x: lsg_attention(*x, CONFIG, dropout_p=0.5), *inputs, use_reentrant=reentrant)
    output.square().sum().backward()
    for one, other in zip([output, *(x.grad for x in inputs)], expected, strict=True):
        torch.testing.assert_close(one, other)
    assert seen[0] == (False, True, False)
    backend_probe.VERDICTS.clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        lsg_attention(*inputs, CONFIG)
    assert seen[-2] == (False, True, False)
    assert list(backend_probe.VERDICTS.values()) == [True]


def test_nothing_is_probed_within_a_backward(use: Callable[[Attend], None]) -> None:
    """A kind that appears there first, as under autocast that ended with the forward, is served by chunks."""
    calls = []
    use(lambda *args: calls.append(1) or chunked_block_attention(*args))
    x = torch.ones(1, requires_grad=True)
    y = x * 2
    y.register_hook(torch.enable_grad()(lambda grad: run() and None))
    y.backward()
    assert calls == []
    assert backend_probe.VERDICTS == {}
