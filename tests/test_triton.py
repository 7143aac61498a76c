"""The Triton kernels in Triton's interpreter against a dense oracle with the same dropout mask; what they serve.

`make triton-test` installs triton and runs these: 700 MB that only GPUs need, and an interpreter that takes seconds
for what a GPU does in microseconds.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from reference import lsg_pattern
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lsg_fairseq.modules import backend_probe, block_attention
from lsg_fairseq.modules.block_attention import Tokens, _sequences
from lsg_fairseq.modules.counter_dropout import draw_seed, keep_mask
from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.sparse_tokens import select_sparse_tokens
from lsg_fairseq.modules.triton_block_attention import fits, triton_block_attention
from lsg_fairseq.modules.triton_call import fits_sizes

HAS_TRITON = importlib.util.find_spec("triton") is not None
interpreted = pytest.mark.skipif(
    not HAS_TRITON or os.environ.get("TRITON_INTERPRET") != "1",
    reason="make triton-test installs triton and runs these in its interpreter",
)
SEED = 5


class Case(NamedTuple):
    """Sizes (B,H,T,D), the configuration, whether there is padding, and dropout."""

    shape: tuple[int, int, int, int]
    config: dict[str, Any]
    padded: bool
    dropout_p: float

    def __str__(self) -> str:
        parts = [*self.config.values(), "x".join(map(str, self.shape))]
        return "-".join(map(str, parts)) + ("-padded" if self.padded else "") + f"-{self.dropout_p}"


def case(
    sparsity_type: str, sizes: tuple[int, int, int, int], shape: tuple[int, int, int, int], padded: bool, p: float
) -> Case:
    """sizes: block, sparse block, factor, globals."""
    names = ("block_size", "sparse_block_size", "sparsity_factor", "num_global_tokens")
    return Case(shape, {"sparsity_type": sparsity_type, **dict(zip(names, sizes, strict=True))}, padded, p)


CASES = [
    case("none", (16, 16, 2, 1), (2, 1, 48, 16), True, 0.1),
    case("none", (64, 0, 2, 1), (1, 2, 256, 32), False, 0.1),
    case("stride", (16, 16, 2, 1), (2, 2, 64, 16), True, 0.0),
    case("stride", (16, 16, 2, 1), (2, 2, 64, 16), True, 0.1),
    case("stride", (16, 16, 4, 3), (1, 2, 80, 16), True, 0.1),
    case("stride", (16, 32, 2, 20), (1, 2, 96, 16), False, 0.3),
    case("stride", (16, 16, 1, 1), (2, 1, 80, 16), True, 0.1),
    case("stride", (32, 8, 2, 2), (2, 1, 128, 32), True, 0.1),
    case("stride", (48, 48, 3, 1), (2, 1, 144, 16), True, 0.1),
    case("norm", (64, 64, 4, 1), (2, 1, 320, 32), True, 0.1),
    case("norm", (128, 128, 2, 1), (2, 1, 384, 64), True, 0.1),
    case("pooling", (32, 32, 8, 1), (2, 1, 192, 16), True, 0.1),
    case("bos_pooling", (32, 32, 2, 1), (2, 1, 128, 16), True, 0.5),
    case("block_stride", (64, 64, 2, 70), (2, 1, 256, 16), True, 0.1),
    case("lsh", (32, 32, 2, 1), (1, 2, 160, 128), False, 0.1),
]
# What triton's own function has done, by the module that it did it for.
PATCHED: dict[str, Any] = {}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2.5e-2}


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mends of Triton 3.7's interpreter."""
    if HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1":
        from triton.runtime import interpreter

        monkeypatch.setattr(interpreter, "_patch_lang", functools.partial(patch_once, interpreter._patch_lang))
        monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", exact_dot)


def patch_once(patch: Any, kernel: Any) -> Any:
    """At each call of a device function it looks through the whole language: half of the time that it takes."""
    from triton.runtime import interpreter

    module = kernel.__globals__["__name__"]
    if module not in PATCHED:
        PATCHED[module] = patch(kernel)
    return interpreter._LangPatchScope()


def exact_dot(self: Any, a: Any, b: Any, total: Any, *settings: Any) -> Any:
    """It keeps bf16 as uint16, and would multiply those."""
    from triton.runtime import interpreter

    a, b = (x.data if x.data.dtype != np.uint16 else (x.data.astype(np.uint32) << 16).view(np.float32) for x in (a, b))
    return interpreter.TensorHandle(np.matmul(a, b, dtype=np.float32) + total.data, total.dtype.scalar)


class Inputs(NamedTuple):
    """The backend's arguments; queries, keys and values are leaves, laid out as projections lay them out."""

    query: Tensor
    keys: dict[str, Tensor]
    values: dict[str, Tensor]
    masks: dict[str, Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        return [self.query, *self.keys.values(), *self.values.values()]


def make_inputs(case: Case, config: LSGConfig, dtype: torch.dtype) -> Inputs:
    """Random tokens, their sparse tokens, and padding: much of the last document, and one token of the first."""
    batch, heads, num_tokens, head_dim = case.shape
    generator = torch.Generator().manual_seed(0)
    rows = config.num_global_tokens + num_tokens
    projected = (torch.randn(rows, batch, heads, head_dim, generator=generator).to(dtype) for _ in range(3))
    mask = torch.zeros(batch, rows, dtype=torch.bool)
    mask[-1, rows - num_tokens // 2 + 3 :] = True
    mask[0, config.num_global_tokens] = True
    tokens = Tokens(*(x.permute(1, 2, 0, 3) for x in projected), mask if case.padded else None)
    regular = tokens.rows(config.num_global_tokens)
    sparse = select_sparse_tokens(*regular, config, generator) if config.has_sparse_tokens else None
    query, keys, values, masks = _sequences(tokens, sparse, config)
    leaves = [{n: x.detach().requires_grad_() for n, x in parts.items()} for parts in (keys, values)]
    return Inputs(query.detach().requires_grad_(), *leaves, masks)


def dense_attention(inputs: Inputs, config: LSGConfig, dropout_p: float, seed: int) -> Tensor:
    """All scores, the definition's pattern, and the dropout mask as a tensor, in the inputs' dtype."""
    query, keys, values, masks = inputs
    shape = query.shape[:2]
    num_sparse = keys["sparse"].size(2) if "sparse" in keys else 0
    seen = lsg_pattern(query.size(2), num_sparse, config)[config.num_global_tokens :].expand(*shape, -1, -1)
    parts = [masks.get(n, torch.zeros(1, 1, k.size(2), dtype=torch.bool)).expand(*shape, -1) for n, k in keys.items()]
    scores = query @ torch.cat(list(keys.values()), 2).mT / math.sqrt(query.size(-1))
    probs = scores.masked_fill(~(seen & ~torch.cat(parts, 2)[:, :, None]), -math.inf).softmax(-1)
    kept = keep_mask(seed, tuple(scores.shape), dropout_p)
    return (probs * kept / (1 - dropout_p)) @ torch.cat(list(values.values()), 2)


def in_fp32(inputs: Inputs) -> Inputs:
    def lift(x: Tensor) -> Tensor:
        return x.detach().float().requires_grad_()

    parts = ({n: lift(x) for n, x in part.items()} for part in inputs[1:3])
    return Inputs(lift(inputs.query), *parts, inputs.masks)


def results(output: Tensor, weights: Tensor, inputs: Inputs) -> list[Tensor]:
    """The output and the gradients of a weighted sum of it."""
    return [output.detach(), *torch.autograd.grad((output * weights.to(output.dtype)).sum(), inputs.leaves)]


def error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.float() - expected).abs().max() / expected.abs().max()).item()


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients_are_the_dense_ones(case: Case, dtype: torch.dtype, record_property: Any) -> None:
    check(case, dtype, record_property)


@interpreted
@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=str)
def test_bf16_too(case: Case, record_property: Any) -> None:
    check(case, torch.bfloat16, record_property)


def check(case: Case, dtype: torch.dtype, record_property: Any) -> None:
    config = LSGConfig(**case.config)
    assert fits_sizes(case.shape, config)
    inputs = make_inputs(case, config, dtype)
    weights = torch.randn(case.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    torch.manual_seed(SEED)
    seed = draw_seed()
    torch.manual_seed(SEED)
    actual = results(triton_block_attention(*inputs, config, case.dropout_p), weights, inputs)
    exact = in_fp32(inputs)
    expected = results(dense_attention(exact, config, case.dropout_p, seed), weights, exact)
    errors = [error(a, e) for a, e in zip(actual, expected, strict=True)]
    record_property("error", max(errors))
    assert all(a.dtype == dtype for a in actual)
    assert max(errors) < TOLERANCE[dtype], errors


@interpreted
def test_queries_that_see_nothing_are_zero_and_have_no_gradient() -> None:
    case = CASES[2]
    config = LSGConfig(**case.config)
    inputs = make_inputs(case, config, torch.float32)
    for mask in inputs.masks.values():
        mask[-1] = True
    output, *grads = results(triton_block_attention(*inputs, config), torch.ones(case.shape), inputs)
    assert not output[-1].any()
    assert output[0].all()
    assert all(g.isfinite().all() and not g[-1].any() for g in grads)


@interpreted
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_drops_the_same(use_reentrant: bool) -> None:
    case = CASES[0]
    config = LSGConfig(**case.config)
    inputs = make_inputs(case, config, torch.float32)
    attend = functools.partial(triton_block_attention, config=config, dropout_p=0.5)
    outputs, grads = [], []
    for layer in (attend, functools.partial(checkpoint, attend, use_reentrant=use_reentrant)):
        torch.manual_seed(SEED)
        inputs.query.grad = None
        outputs.append(layer(*inputs))
        # Reentrant checkpointing works under backward() alone.
        outputs[-1].square().sum().backward()
        grads.append(inputs.query.grad)
    assert torch.equal(*outputs)
    assert torch.equal(*grads)


@interpreted
def test_the_probe_trusts_them_and_a_layer_drops_what_the_chunked_attention_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, but for `fits`, which tells a CPU apart."""
    kernels, chunked = block_attention.BACKENDS["triton"], block_attention.BACKENDS["chunked"]
    config = LSGConfig(sparsity_type="none", block_size=16)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 1, 49, 16, generator=generator).requires_grad_() for _ in range(3)]
    monkeypatch.setattr(backend_probe, "VERDICTS", {})
    found = []
    for backends in ({"triton": kernels._replace(fits=lambda query, config: True)}, {"chunked": chunked}):
        monkeypatch.setattr(block_attention, "BACKENDS", backends)
        torch.manual_seed(SEED)
        output = lsg_attention(*inputs, config, dropout_p=0.5)
        found.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
    assert [kind.backend for kind, passed in backend_probe.VERDICTS.items() if passed] == ["triton"]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


# --- what they serve ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block_size", "head_dim", "served"),
    [
        (128, 64, True),
        (256, 128, True),
        (16, 16, True),
        (48, 32, True),
        (8, 64, False),
        (24, 64, False),
        (128, 8, False),
        (128, 80, False),
        (128, 256, False),
    ],
)
def test_sizes_that_tiles_cannot_be_made_of_are_left_to_others(block_size: int, head_dim: int, served: bool) -> None:
    assert (
        fits_sizes((2, 4, 4 * block_size, head_dim), LSGConfig(sparsity_type="none", block_size=block_size)) is served
    )


@pytest.mark.parametrize(
    ("changed", "served"),
    [
        ({}, True),
        ({"dtype": torch.bfloat16}, True),
        ({"capability": (12, 0)}, True),
        ({"dtype": torch.float32}, False),
        ({"capability": (7, 5)}, False),
        ({"kind": "cpu"}, False),
        ({"hip": "6.4"}, False),
        ({"triton": None}, False),
        ({"batch": 70000}, False),
    ],
)
def test_devices_and_dtypes(changed: dict[str, Any], served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"dtype": torch.float16, "kind": "cuda", "capability": (8, 0), "hip": None, "triton": object(), "batch": 2}
    given |= changed
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: given["capability"])
    monkeypatch.setattr(torch.version, "hip", given["hip"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: given["triton"])
    device, shape = SimpleNamespace(type=given["kind"]), (given["batch"], 4, 512, 64)
    assert fits(SimpleNamespace(device=device, dtype=given["dtype"], shape=shape), LSGConfig()) is served
