"""The attention in chunks: exact with dropout, whatever the chunks, and again in a backward that computes it anew."""

from __future__ import annotations

import contextlib

import pytest
import torch
from reference import dense_lsg_attention, lsh_half_buckets
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lsg_fairseq.modules import chunked_block_attention, sparse_tokens
from lsg_fairseq.modules.counter_dropout import dropout_of, keep_mask
from lsg_fairseq.modules.dropout_words import keep_factors, key_words, query_words
from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig
from recipes.tiny_models import build_model, random_tokens

TYPES = ["none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride"]
B, H, T, D, G = 2, 3, 48, 4, 2


@pytest.fixture(autouse=True)
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "chunked")


def make_config(sparsity_type: str = "norm", **changes: int) -> LSGConfig:
    sizes = {"block_size": 8, "sparse_block_size": 8, "sparsity_factor": 2, "num_global_tokens": G}
    return LSGConfig(**{**sizes, "sparsity_type": sparsity_type, **changes})


def make_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (B, H, G + T, D)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3)]


def make_mask(kind: str) -> Tensor | None:
    mask = torch.zeros(B, G + T, dtype=torch.bool)
    if kind == "padded":
        mask[1, G + 13 :] = True
    elif kind == "holes":
        mask[:, G:] = torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < 0.4
    return None if kind == "whole" else mask


def run(config: LSGConfig, inputs: list[Tensor], mask: Tensor | None, dropout_p: float) -> list[Tensor]:
    """The regular rows that are not padding, and the gradients of their squares: globals' rows have another dropout."""
    torch.manual_seed(3)
    output = lsg_attention(*inputs, config, mask, dropout_p)
    return with_gradients(output, inputs, mask)


def with_gradients(output: Tensor, inputs: list[Tensor], mask: Tensor | None) -> list[Tensor]:
    rows = output[:, :, G:]
    if mask is not None:
        rows = rows.masked_fill(mask[:, None, G:, None], 0.0)
    return [rows.detach(), *torch.autograd.grad(rows.square().sum(), inputs)]


def fix_projections(monkeypatch: pytest.MonkeyPatch, config: LSGConfig) -> list[Tensor]:
    """Known hyperplanes for lsh, round after round."""
    sizes = lsh_half_buckets(config) if config.sparsity_type == "lsh" else []
    draws = [torch.randn(H, D, n, generator=torch.Generator().manual_seed(n)) for n in sizes]
    by_size = {draw.size(2): draw for draw in draws}
    monkeypatch.setattr(sparse_tokens, "draw_projections", lambda heads, width, half, generator: by_size[half])
    return draws


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest error over the largest entry of each."""
    return max(((x.double() - y).abs().max() / y.abs().max()).item() for x, y in zip(found, expected, strict=True))


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed for every draw: how many numbers the globals' dropout takes is torch's own affair."""
    monkeypatch.setattr(chunked_block_attention.counter_dropout, "draw_seed", lambda: 12345)


def factors_of(config: LSGConfig, dropout_p: float) -> Tensor:
    num_sparse = T // config.sparsity_factor if config.has_sparse_tokens else 0
    return keep_mask(12345, (B, H, T, G + T + num_sparse), dropout_p).double() / (1 - dropout_p)


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize("mask_kind", ["whole", "padded", "holes"])
@pytest.mark.parametrize("sparsity_type", TYPES)
def test_dropout_equals_the_oracle_with_the_same_mask(
    monkeypatch: pytest.MonkeyPatch, sparsity_type: str, mask_kind: str
) -> None:
    config, mask = make_config(sparsity_type), make_mask(mask_kind)
    projections = fix_projections(monkeypatch, config)
    found = run(config, make_inputs(), mask, 0.1)
    exact = make_inputs(torch.float64)
    dense = dense_lsg_attention(*exact, config, mask, projections, factors_of(config, 0.1))
    assert worst(found, with_gradients(dense, exact, mask)) < 1e-5


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize("sizes", [(16, 4), (3, 4), (24, 8), (8, 1)], ids=str)
@pytest.mark.parametrize("most_scores", [1, 1000, 4000, 10**9])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], most_scores: int) -> None:
    """Neither their sizes, down to single blocks, nor those of windows: fp64, to its own precision."""
    config = make_config("stride", **dict(zip(("sparse_block_size", "sparsity_factor"), sizes, strict=True)))
    monkeypatch.setattr(chunked_block_attention, "MOST_SCORES", {"cpu": most_scores})
    inputs = make_inputs(torch.float64)
    mask = make_mask("padded")
    dense = dense_lsg_attention(*inputs, config, mask, None, factors_of(config, 0.3))
    assert worst(run(config, inputs, mask, 0.3), with_gradients(dense, inputs, mask)) < 1e-12


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 1e-2), (torch.float16, 1.5e-3)])
@pytest.mark.parametrize("products", [torch.float32, None], ids=["wide products", "half products"])
def test_half_precision_is_close(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bound: float, products: torch.dtype | None
) -> None:
    """Products are as wide as softmax on a CPU, and of half precision on a GPU."""
    monkeypatch.setattr(chunked_block_attention, "_product_dtype", lambda query: products or query.dtype)
    config, mask, inputs = make_config("stride"), make_mask("padded"), make_inputs(torch.bfloat16)
    inputs = [x.detach().to(dtype).requires_grad_() for x in inputs]
    found = run(config, inputs, mask, 0.1)
    assert {x.dtype for x in found} == {dtype}
    exact = [x.detach().double().requires_grad_() for x in inputs]
    dense = dense_lsg_attention(*exact, config, mask, None, factors_of(config, 0.1))
    assert worst(found, with_gradients(dense, exact, mask)) < (bound if products else 3 * bound)


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize("ends_before_backward", [False, True])
def test_autocast_leaves_it_alone(ends_before_backward: bool) -> None:
    """Whether autocast lasts until the backward or not; half precision comes with the heads, if they have it."""
    config, inputs = make_config("stride"), make_inputs()
    expected = run(config, inputs, None, 0.1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        output = lsg_attention(*inputs, config, None, 0.1)[:, :, G:].square().sum()
        if ends_before_backward:
            stack.close()
        grads = torch.autograd.grad(output, inputs)
    # Globals' rows are torch's own attention, which autocast does narrow; they are not looked at.
    assert worst(list(grads), expected[1:]) < 1e-5


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("sparsity_type", ["norm", "lsh"])
def test_a_checkpointed_layer_drops_the_same(reentrant: bool, sparsity_type: str) -> None:
    """Seeds come from the generator that checkpointing restores; other draws in between do not matter."""
    config, results = make_config(sparsity_type), []
    for checkpointed in (False, True):
        inputs = make_inputs(torch.float64)
        torch.manual_seed(3)

        def attend(*inputs: Tensor) -> Tensor:
            return lsg_attention(*inputs, config, None, 0.3)

        output = checkpoint(attend, *inputs, use_reentrant=reentrant) if checkpointed else attend(*inputs)
        torch.rand(5)
        output[:, :, G:].square().sum().backward()
        results.append([output[:, :, G:].detach(), *(x.grad for x in inputs)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_an_encoder_trains_with_it(monkeypatch: pytest.MonkeyPatch, checkpointed: bool) -> None:
    """fairseq's --attention-dropout and --checkpoint-activations: the same gradients with and without the latter."""
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "auto")
    grads = []
    for flag in (False, checkpointed):
        model = build_model(attention_dropout=0.3, dropout=0.0, checkpoint_activations=flag).train()
        torch.manual_seed(0)
        model.encoder(random_tokens(40, 33))["encoder_out"][0].square().mean().backward()
        grads.append([p.grad for p in model.encoder.parameters() if p.grad is not None])
    assert len(grads[0]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_nothing_quadratic_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays for the backward is no larger than the input."""
    inputs, kept = make_inputs(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        lsg_attention(*inputs, make_config("none"), make_mask("padded"), 0.1)
    assert max(kept) <= inputs[0].numel()


@pytest.mark.parametrize("backend", ["chunked", "reference"])
@pytest.mark.parametrize("sparsity_type", [name for name in TYPES if name != "lsh"])
def test_no_layer_looks_at_its_data(monkeypatch: pytest.MonkeyPatch, sparsity_type: str, backend: str) -> None:
    """A look makes the CPU wait for a GPU. Tensors without data, on which a look fails, stand for one; lsh's one_hot
    does not know them."""
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", backend)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # has no such device
    inputs = [x.detach().to("meta").requires_grad_() for x in make_inputs()]
    dropout_p = 0.1 if backend == "chunked" else 0.0
    lsg_attention(*inputs, make_config(sparsity_type), make_mask("padded").to("meta"), dropout_p).sum().backward()
    assert all(x.grad.shape == x.shape for x in inputs)


def test_everything_dropped_is_zero() -> None:
    output = lsg_attention(*make_inputs(), make_config(), None, 1.0)[:, :, G:]
    assert torch.equal(output, torch.zeros_like(output))


@pytest.mark.parametrize("dropout_p", [0.1, 0.5, 2.0**-16])
def test_words_make_the_decisions_of_the_counter(dropout_p: float) -> None:
    """In 32-bit words as in 64-bit numbers, for a part of the queries and keys too."""
    seed, rows, num_queries, num_keys = 2**31 - 2, 6, 40, 70
    expected = keep_mask(seed, (1, rows, num_queries, num_keys), dropout_p)[0, 2:, 8:, 5:]
    queries = query_words(seed, torch.arange(2, rows), num_queries)[:, 8:, None]
    keys = key_words(torch.arange(5, num_keys))[None, None]
    words = tuple(torch.empty(expected.shape, dtype=torch.int32) for _ in range(2))
    factors = keep_factors(queries, keys, dropout_of(dropout_p).threshold, words, torch.empty(expected.shape))
    assert torch.equal(factors, expected.float())
