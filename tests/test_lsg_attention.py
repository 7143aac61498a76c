"""LSG attention: equal to the dense oracle, and the invariances that a user relies on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dense_lsg_attention, lsh_half_buckets, sparse_reference
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lsg_fairseq.modules import sparse_tokens
from lsg_fairseq.modules.lsg_attention import LSGMultiheadAttention, lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.registry import (
    ENCODER_ATTENTIONS,
    SPARSE_SELECTIONS,
    register_encoder_attention,
    register_sparse_selection,
)

SPARSE_TYPES = ["norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride"]
TYPES = ["none", *SPARSE_TYPES]
HEADS, HEAD_DIM = 3, 4

# (block_size, sparse_block_size, sparsity_factor, num_global_tokens, number of blocks), and what is special about each
SHAPES = {
    "plain": (4, 4, 2, 1, 5),
    "three_blocks": (4, 4, 2, 2, 3),
    "st_is_1": (4, 8, 4, 1, 8),
    "st_is_1_f_is_s": (4, 4, 4, 1, 6),
    "st_odd": (6, 6, 2, 1, 5),
    "st_odd_chunk_odd": (9, 9, 3, 1, 4),
    "s_small": (8, 2, 2, 1, 5),  # 3*st >= 4*s
    "s_smaller_than_b": (8, 4, 2, 2, 5),
    "s_does_not_divide_b": (8, 3, 2, 1, 5),
    "s_is_1": (4, 1, 2, 1, 6),
    "s_larger_than_b": (4, 10, 2, 3, 7),
    "s_larger_than_everything": (4, 100, 2, 1, 5),
    "f_is_1": (4, 3, 1, 1, 6),
    "f_larger_than_heads": (8, 8, 4, 1, 4),
    "block_of_1": (1, 2, 1, 1, 6),
    "no_sparse_block": (4, 0, 2, 1, 5),
    "factor_0": (4, 4, 0, 1, 5),
    "many_globals": (4, 4, 2, 6, 4),
    "long": (4, 4, 2, 1, 16),
}


def shape_is_allowed(kind: str, shape: tuple[int, ...]) -> bool:
    """The chunk rules of norm and lsh, which the other types do not have."""
    b, s, f = shape[:3]
    if kind not in ("norm", "lsh") or s == 0 or f in (0, 1) or (kind == "lsh" and f == s):
        return True
    return b % min(b, s) == 0 and min(b, s) % f == 0


CASES = [
    pytest.param(kind, shape, id=f"{kind}-{name}")
    for name, shape in SHAPES.items()
    for kind in TYPES
    if shape_is_allowed(kind, shape)
]


def make_config(kind: str, shape: tuple[int, ...] = SHAPES["plain"], **changes: int) -> LSGConfig:
    b, s, f, num_globals, _ = shape
    return LSGConfig(
        block_size=b,
        sparse_block_size=s,
        sparsity_factor=f,
        sparsity_type=kind,
        num_global_tokens=num_globals,
        **changes,
    )


def make_qkv(
    num_tokens: int, num_globals: int, *, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, (B,H,G+T,D) each, large enough that softmax is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch, HEADS, num_globals + num_tokens, HEAD_DIM)
    query, key, value = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(3))
    return (1.5 * query).to(dtype), key.to(dtype), value.to(dtype)


def mask_of_lengths(lengths: list[int], num_tokens: int, num_globals: int) -> Tensor:
    """Right padding: the globals and the first `length` tokens of each row are real."""
    return torch.stack([torch.arange(num_globals + num_tokens) >= num_globals + length for length in lengths])


def make_mask(kind: str, num_tokens: int, config: LSGConfig) -> Tensor | None:
    num_globals = config.num_global_tokens
    if kind == "unmasked":
        return None
    if kind == "ragged":
        return mask_of_lengths([num_tokens, num_tokens - config.block_size - 1], num_tokens, num_globals)
    if kind == "masked_blocks":
        return mask_of_lengths([1, config.block_size + 1], num_tokens, num_globals)
    holes = torch.rand(2, num_globals + num_tokens, generator=torch.Generator().manual_seed(5)) < 0.4
    holes[:, :num_globals] = False
    holes[0, num_globals] = True  # mask_first_token does this
    return holes


def fixed_projection(num_heads: int, head_dim: int, half_buckets: int, seed: int) -> Tensor:
    return torch.randn(num_heads, head_dim, half_buckets, generator=torch.Generator().manual_seed(seed))


def fix_projections(monkeypatch: pytest.MonkeyPatch, config: LSGConfig, heads: int = HEADS) -> list[Tensor]:
    """Replace lsh's draws by known ones, checking that each round asks for the right size in the right order."""
    sizes = lsh_half_buckets(config) if config.sparsity_type == "lsh" and config.sparsity_factor > 0 else []
    projections = [fixed_projection(heads, HEAD_DIM, size, seed=i) for i, size in enumerate(sizes)]
    # A round into a single bucket needs no hash; whether it draws an empty matrix is nobody's concern.
    expected = [p for p in projections if p.shape[-1] > 0]
    calls = [0]

    def draw(num_heads: int, head_dim: int, half_buckets: int, generator: torch.Generator | None) -> Tensor:
        if half_buckets == 0:
            return torch.empty(num_heads, head_dim, 0)
        projection = expected[calls[0] % len(expected)]
        calls[0] += 1
        assert (num_heads, head_dim, half_buckets) == tuple(projection.shape)
        return projection.view(1, heads, 1, HEAD_DIM, half_buckets) if calls[0] % 2 else projection

    monkeypatch.setattr(sparse_tokens, "draw_projections", draw)
    return projections


def run_both(
    config: LSGConfig, qkv: tuple[Tensor, ...], mask: Tensor | None, projections: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """What the package and the oracle give; rows of padding are zeroed, since nobody may read them."""
    actual = lsg_attention(*qkv, config, mask, generator=torch.Generator().manual_seed(0))
    expected = dense_lsg_attention(*(t.double() for t in qkv), config, mask, projections)
    assert torch.isfinite(actual).all()
    if mask is not None:
        actual = actual.masked_fill(mask[:, None, :, None], 0)
        expected = expected.masked_fill(mask[:, None, :, None], 0)
    return actual, expected


# --- against the oracle ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["auto", "reference", "chunked"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for every backend; auto takes the fused one wherever it applies."""
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", request.param)


@pytest.mark.parametrize("mask_kind", ["unmasked", "ragged", "masked_blocks", "holes"])
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_equals_oracle(monkeypatch: pytest.MonkeyPatch, kind: str, shape: tuple[int, ...], mask_kind: str) -> None:
    config = make_config(kind, shape)
    num_tokens = shape[0] * shape[4]
    projections = fix_projections(monkeypatch, config)
    mask = make_mask(mask_kind, num_tokens, config)
    actual, expected = run_both(config, make_qkv(num_tokens, shape[3]), mask, projections)
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pre_rounds", [0, 2, 3])
@pytest.mark.parametrize("shape", ["s_smaller_than_b", "st_odd", "st_odd_chunk_odd", "s_larger_than_b"])
def test_lsh_rounds_equal_oracle(monkeypatch: pytest.MonkeyPatch, shape: str, pre_rounds: int) -> None:
    config = make_config("lsh", SHAPES[shape], lsh_num_pre_rounds=pre_rounds)
    num_tokens = config.block_size * 5
    projections = fix_projections(monkeypatch, config)
    qkv, mask = make_qkv(num_tokens, config.num_global_tokens), make_mask("holes", num_tokens, config)
    torch.testing.assert_close(*run_both(config, qkv, mask, projections), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", ["plain", "st_is_1", "s_smaller_than_b", "s_larger_than_b"])
def test_equals_oracle_in_float32(monkeypatch: pytest.MonkeyPatch, kind: str, shape: str) -> None:
    config = make_config(kind, SHAPES[shape])
    num_tokens = config.block_size * 6
    projections = fix_projections(monkeypatch, config)
    qkv = make_qkv(num_tokens, config.num_global_tokens, dtype=torch.float32)
    actual, expected = run_both(config, qkv, make_mask("ragged", num_tokens, config), projections)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", TYPES)
def test_equals_oracle_in_half_precision(monkeypatch: pytest.MonkeyPatch, kind: str, dtype: torch.dtype) -> None:
    # One round of lsh only: a second one hashes rounded sums, and a rounded sum may well change its bucket.
    # Windows of 14 cut the chunks' 4 sparse tokens, so the order by norm has to survive rounding too.
    config = make_config(kind, (8, 14, 2, 1, 12), lsh_num_pre_rounds=0)
    projections = fix_projections(monkeypatch, config)
    qkv = make_qkv(96, 1, dtype=dtype)
    actual, expected = run_both(config, qkv, make_mask("ragged", 96, config), projections)
    assert actual.dtype == dtype
    tolerance = 0.03 if dtype == torch.bfloat16 else 0.005
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("num_tokens", [1, 3, 4, 7, 8])
def test_short_inputs_are_dense(kind: str, num_tokens: int) -> None:
    config = make_config(kind)
    query, key, value = make_qkv(num_tokens, 1)
    mask = mask_of_lengths([num_tokens, (num_tokens + 1) // 2], num_tokens, 1)
    actual = lsg_attention(query, key, value, config, mask)
    keep = ~mask[:, None, None, :]
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, keep)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", SPARSE_TYPES)
@pytest.mark.parametrize(
    "shape", ["plain", "st_is_1_f_is_s", "st_odd_chunk_odd", "s_smaller_than_b", "s_larger_than_b"]
)
@pytest.mark.parametrize("mask_kind", ["unmasked", "holes"])
def test_each_selection_equals_its_loop(monkeypatch: pytest.MonkeyPatch, kind: str, shape: str, mask_kind: str) -> None:
    config = make_config(kind, SHAPES[shape])
    num_tokens = config.block_size * 3
    projections = fix_projections(monkeypatch, config)
    query, key, value = make_qkv(num_tokens, 0)
    mask = make_mask(mask_kind, num_tokens, dataclasses.replace(config, num_global_tokens=1))
    mask = None if mask is None else mask[:, 1:]
    actual = SPARSE_SELECTIONS[kind](query, key, value, mask, config, torch.Generator())
    assert actual.key.shape == (2, HEADS, num_tokens // config.sparsity_factor, HEAD_DIM)
    for n in range(2):
        for h in range(HEADS):
            masked = torch.zeros(num_tokens, dtype=torch.bool) if mask is None else mask[n]
            expected = sparse_reference(query[n, h], key[n, h], value[n, h], masked, h, config, projections)
            if actual.padding_mask is None:
                assert not expected.masked.any()
            else:
                assert actual.padding_mask[n, h].tolist() == expected.masked.tolist()
            seen = ~expected.masked
            torch.testing.assert_close(actual.key[n, h][seen], expected.key[seen], rtol=0, atol=1e-10)
            torch.testing.assert_close(actual.value[n, h][seen], expected.value[seen], rtol=0, atol=1e-10)


@st.composite
def attention_problems(draw: st.DrawFn) -> tuple[LSGConfig, int, Tensor]:
    kind = draw(st.sampled_from(TYPES))
    factor = draw(st.integers(1, 4))
    block = factor * draw(st.integers(1, 3))
    sparse_block = draw(st.integers(1, 12))
    num_globals = draw(st.integers(1, 3))
    num_blocks = draw(st.integers(3, 6))
    if not shape_is_allowed(kind, (block, sparse_block, factor)):
        sparse_block = block * draw(st.integers(1, 2))
    config = make_config(kind, (block, sparse_block, factor, num_globals, num_blocks))
    num_tokens = block * num_blocks
    bits = draw(st.lists(st.booleans(), min_size=2 * num_tokens, max_size=2 * num_tokens))
    mask = torch.tensor(bits).view(2, num_tokens)
    return config, num_tokens, torch.cat([torch.zeros(2, num_globals, dtype=torch.bool), mask], dim=1)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(problem=attention_problems())
def test_any_lengths_and_masks_equal_oracle(problem: tuple[LSGConfig, int, Tensor]) -> None:
    config, num_tokens, mask = problem
    with pytest.MonkeyPatch.context() as monkeypatch:
        projections = fix_projections(monkeypatch, config)
        actual, expected = run_both(config, make_qkv(num_tokens, config.num_global_tokens), mask, projections)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


# --- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(lengths=st.lists(st.integers(1, 24), min_size=1, max_size=3))
def test_example_does_not_depend_on_its_batch(kind: str, lengths: list[int]) -> None:
    config = make_config(kind)
    query, key, value = make_qkv(24, 1, batch=4, dtype=torch.float32)
    lengths = [24, *lengths]
    mask = mask_of_lengths([*lengths, *[24] * (4 - len(lengths))], 24, 1)
    together = lsg_attention(query, key, value, config, mask, generator=torch.Generator().manual_seed(0))
    for n, length in enumerate(lengths):
        # Alone it is padded as the encoder pads: not at all up to two blocks, else to whole blocks.
        rows = 1 + (length if length <= 8 else -(-length // 4) * 4)
        parts = (t[n : n + 1, :, :rows] for t in (query, key, value))
        alone = lsg_attention(*parts, config, mask[n : n + 1, :rows], generator=torch.Generator().manual_seed(0))
        real = slice(0, 1 + length)
        torch.testing.assert_close(alone[0, :, real], together[n, :, real], rtol=0, atol=1e-6)


@pytest.mark.parametrize("extra_blocks", [1, 5])
@pytest.mark.parametrize("length", [5, 9, 12, 17])
@pytest.mark.parametrize("shape", ["plain", "st_is_1", "s_larger_than_b"])
@pytest.mark.parametrize("kind", TYPES)
def test_more_padding_changes_nothing(kind: str, shape: str, length: int, extra_blocks: int) -> None:
    config = make_config(kind, SHAPES[shape])
    num_globals = config.num_global_tokens
    short, long = -(-length // 4) * 4, -(-length // 4) * 4 + 4 * extra_blocks
    qkv = make_qkv(long, num_globals, batch=1, dtype=torch.float32)
    outputs = [
        lsg_attention(
            *(t[:, :, : num_globals + size] for t in qkv),
            config,
            mask_of_lengths([length], size, num_globals),
            generator=torch.Generator().manual_seed(0),
        )[:, :, : num_globals + length]
        for size in (short, long)
    ]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", TYPES)
def test_masked_tokens_are_absent(kind: str) -> None:
    config = make_config(kind)
    query, key, value = make_qkv(20, 1)
    mask = make_mask("holes", 20, config)
    hidden = mask[:, None, :, None]
    outputs = []
    for noise in (0.0, 1e3):
        noisy = (key.masked_fill(hidden, noise), value.masked_fill(hidden, -noise))
        generator = torch.Generator().manual_seed(0)
        outputs.append(lsg_attention(query, *noisy, config, mask, generator=generator).masked_fill(hidden, 0))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", TYPES)
def test_inputs_are_left_alone(kind: str) -> None:
    config = make_config(kind)
    inputs = [*make_qkv(20, 1), make_mask("holes", 20, config)]
    before = [t.clone() for t in inputs]
    lsg_attention(*inputs[:3], config, inputs[3])
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_fields_of_the_encoder_are_ignored() -> None:
    config = make_config("norm")
    other = dataclasses.replace(
        config, adaptive=False, mask_first_token=True, pass_global_tokens_to_decoder=False, pool_with_global=True
    )
    qkv = make_qkv(20, 1)
    assert torch.equal(lsg_attention(*qkv, config), lsg_attention(*qkv, other))


@pytest.mark.parametrize("num_tokens", [9, 11, 13])
def test_partial_block_is_an_error(num_tokens: int) -> None:
    with pytest.raises(ValueError, match=rf"{num_tokens}.*4|4.*{num_tokens}"):
        lsg_attention(*make_qkv(num_tokens, 1), make_config("norm"))


@pytest.mark.parametrize("kind", ["stride", "block_stride"])
def test_stride_with_too_few_heads_warns(kind: str) -> None:
    with pytest.warns(UserWarning, match="heads"):
        run_module(make_config(kind, (8, 8, 4, 1, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_module(make_config(kind, (8, 8, 2, 1, 3)))


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_gradcheck(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    config = make_config(kind)
    fix_projections(monkeypatch, config)
    qkv = [t.requires_grad_() for t in make_qkv(12, 1, batch=1)]
    mask = mask_of_lengths([10], 12, 1)
    # fast_mode compares random projections of the Jacobian, which still sees every entry.
    assert torch.autograd.gradcheck(lambda *t: lsg_attention(*t, config, mask), qkv, fast_mode=True)


@pytest.mark.parametrize("mask_kind", ["unmasked", "masked_blocks", "holes"])
@pytest.mark.parametrize("shape", ["plain", "st_is_1", "st_odd", "s_larger_than_b", "f_is_1"])
@pytest.mark.parametrize("kind", TYPES)
def test_gradients_equal_oracle(monkeypatch: pytest.MonkeyPatch, kind: str, shape: str, mask_kind: str) -> None:
    config = make_config(kind, SHAPES[shape])
    num_tokens = config.block_size * 4
    projections = fix_projections(monkeypatch, config)
    mask = make_mask(mask_kind, num_tokens, config)
    gradients = []
    for which in (0, 1):
        qkv = [t.requires_grad_() for t in make_qkv(num_tokens, config.num_global_tokens)]
        output = run_both(config, tuple(qkv), mask, projections)[which]
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        gradients.append(torch.autograd.grad((output * weights).sum(), qkv))
    for actual, expected in zip(*gradients, strict=True):
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", TYPES)
def test_no_nan_where_everything_is_masked(kind: str) -> None:
    # Every row counts here, padding too: a NaN in a row that nobody reads still poisons the gradients.
    config = make_config(kind)
    mask = mask_of_lengths([0, 1], 20, 1)
    qkv = [t.requires_grad_() for t in make_qkv(20, 1, dtype=torch.float32)]
    output = lsg_attention(*qkv, config, mask)
    output.square().sum().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(t.grad).all() for t in qkv)
    # The second example has one token: it sees that and its global, and nothing else.
    torch.testing.assert_close(
        output[1, :, :2],
        torch.nn.functional.scaled_dot_product_attention(*(t[1, :, :2] for t in qkv)),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", SPARSE_TYPES)
def test_gradients_reach_far_tokens_through_sparse_keys(kind: str) -> None:
    config = make_config(kind)
    query, key, value = (t.requires_grad_() for t in make_qkv(20, 1))
    lsg_attention(query, key, value, config, generator=torch.Generator().manual_seed(0))[:, :, 1:5].sum().backward()
    far = slice(1 + 8, 1 + 8 + 8)  # beyond block 1, within s * f tokens
    assert value.grad[:, :, far].abs().amax() > 1e-3
    assert key.grad[:, :, far].abs().amax() > 1e-3


def test_dropout_drops_probabilities() -> None:
    # With one-hot values an output row is the row of probabilities: each is dropped or doubled.
    config = make_config("none")
    query, key, _ = make_qkv(12, 1)
    value = torch.eye(13, dtype=torch.float64).expand(2, HEADS, 13, 13)
    weights = lsg_attention(query, key, value, config)
    torch.manual_seed(0)
    dropped = lsg_attention(query, key, value, config, dropout_p=0.5)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * weights[kept], rtol=0, atol=1e-10)
    assert 0.4 < kept[weights > 0].double().mean() < 0.6


# --- the module -----------------------------------------------------------------------------------------------------


def make_module(config: LSGConfig, layer_index: int = 0, dropout: float = 0.0) -> LSGMultiheadAttention:
    torch.manual_seed(1)
    return LSGMultiheadAttention(HEADS * HEAD_DIM, HEADS, config, dropout=dropout, layer_index=layer_index)


def make_hidden(config: LSGConfig, num_blocks: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    rows = config.num_global_tokens + config.block_size * num_blocks
    # Large enough that the keys' part from the input, not the bias, decides what is selected.
    return 3 * torch.randn(rows, 2, HEADS * HEAD_DIM, generator=torch.Generator().manual_seed(2)).to(dtype)


def run_module(config: LSGConfig, layer_index: int = 0) -> Tensor:
    module, hidden = make_module(config, layer_index).eval(), make_hidden(config)
    return module(hidden, hidden, hidden)[0]


@pytest.mark.parametrize("kind", TYPES)
def test_module_projects_attends_and_projects(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    config = make_config(kind)
    projections = fix_projections(monkeypatch, config)
    module = make_module(config).double().eval()
    hidden = make_hidden(config, dtype=torch.float64)
    mask = mask_of_lengths([20, 11], 20, 1)
    output, weights = module(hidden, hidden, hidden, key_padding_mask=mask)

    def to_heads(projection: torch.nn.Linear) -> Tensor:
        return projection(hidden).view(21, 2, HEADS, HEAD_DIM).permute(1, 2, 0, 3)

    attended = dense_lsg_attention(
        to_heads(module.q_proj), to_heads(module.k_proj), to_heads(module.v_proj), config, mask, projections
    )
    expected = module.out_proj(attended.permute(2, 0, 1, 3).reshape(21, 2, -1))
    assert weights is None
    real = ~mask.T
    torch.testing.assert_close(output[real], expected[real], rtol=0, atol=1e-10)


def test_module_parameters_are_those_of_fairseq() -> None:
    names = sorted(make_module(make_config("lsh")).state_dict())
    assert names == sorted(f"{p}_proj.{w}" for p in ("q", "k", "v", "out") for w in ("weight", "bias"))


def test_lsh_evaluation_is_reproducible() -> None:
    config = make_config("lsh")
    module, hidden = make_module(config).eval(), make_hidden(config)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first = module(hidden, hidden, hidden)[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(module(hidden, hidden, hidden)[0], first)


def test_lsh_evaluation_draws_belong_to_seed_and_layer() -> None:
    config = make_config("lsh")
    layer_0, layer_1 = run_module(config), run_module(config, layer_index=1)
    assert not torch.allclose(layer_0, layer_1)
    assert torch.equal(run_module(dataclasses.replace(config, lsh_seed=1)), layer_1)


def test_lsh_training_draws_follow_the_default_generator() -> None:
    config = make_config("lsh")
    module, hidden = make_module(config).train(), make_hidden(config)
    torch.manual_seed(3)
    first, second = (module(hidden, hidden, hidden)[0] for _ in range(2))
    torch.manual_seed(3)
    again = module(hidden, hidden, hidden)[0]
    assert torch.equal(again, first)
    assert not torch.allclose(second, first)


def test_dropout_only_in_training() -> None:
    config = make_config("pooling")
    module, hidden = make_module(config, dropout=0.5), make_hidden(config)
    plain = make_module(config)(hidden, hidden, hidden)[0]
    assert torch.equal(module.eval()(hidden, hidden, hidden)[0], plain)
    assert not torch.allclose(module.train()(hidden, hidden, hidden)[0], plain, atol=1e-3)


def test_module_gives_no_weights_and_takes_no_mask() -> None:
    config = make_config("norm")
    module, hidden = make_module(config), make_hidden(config)
    for unsupported in ({"need_weights": True}, {"attn_mask": torch.zeros(21, 21)}):
        with pytest.raises(LSGError, match="weights"):
            module(hidden, hidden, hidden, **unsupported)


def test_module_refuses_a_partial_block() -> None:
    config = make_config("norm")
    module, hidden = make_module(config), make_hidden(config)[:-1]
    with pytest.raises(ValueError, match="multiple"):
        module(hidden, hidden, hidden)


@pytest.mark.parametrize("kind", TYPES)
def test_autocast_bf16_is_close(kind: str) -> None:
    config = make_config(kind, lsh_num_pre_rounds=0)
    module, hidden = make_module(config).eval(), make_hidden(config)
    exact = module(hidden, hidden, hidden)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = module(hidden, hidden, hidden)[0]
    rough.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    # A near tie that rounds the other way selects another key, so the mean says more than the worst entry.
    assert (rough.float() - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_lsh_sums_in_fp32_under_autocast_too() -> None:
    """Its buckets hold sums of up to a chunk of keys; rounded, they are off by a quarter."""
    config = make_config("lsh", (128, 128, 2, 1, 3))
    heads = [x.to(torch.bfloat16) for x in make_qkv(384, 0)]
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            generator = torch.Generator().manual_seed(0)
            results.append(sparse_tokens.select_sparse_tokens(*heads, None, config, generator))
    for alone, under_autocast in zip(*results, strict=True):
        assert torch.equal(alone, under_autocast)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_activation_checkpointing_gives_the_same_gradients(kind: str, use_reentrant: bool) -> None:
    config = make_config(kind)
    module = make_module(config).train()

    def attend(hidden: Tensor) -> Tensor:
        return module(hidden, hidden, hidden)[0]

    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(7)
        hidden = make_hidden(config).requires_grad_()
        output = checkpoint(attend, hidden, use_reentrant=use_reentrant) if checkpointed else attend(hidden)
        module.zero_grad()
        output.square().sum().backward()
        gradients.append([hidden.grad, *(p.grad for p in module.parameters())])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


# --- registries -----------------------------------------------------------------------------------------------------


@pytest.fixture
def seventh_selection() -> Iterator[str]:
    """Every factor-th token, whatever the head: what `stride` does in head 0."""

    @register_sparse_selection("every_nth")
    def select_every_nth(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        config: LSGConfig,
        generator: torch.Generator | None,
    ) -> sparse_tokens.SparseTokens:
        step = config.sparsity_factor
        mask = key_padding_mask if key_padding_mask is None else key_padding_mask[:, None, ::step].expand(-1, HEADS, -1)
        return sparse_tokens.SparseTokens(key[:, :, ::step], value[:, :, ::step], mask)

    yield "every_nth"
    del SPARSE_SELECTIONS["every_nth"]


@pytest.mark.parametrize("mask_kind", ["unmasked", "holes"])
def test_seventh_selection_works(seventh_selection: str, mask_kind: str) -> None:
    config = make_config(seventh_selection)
    qkv, mask = make_qkv(20, 1), make_mask(mask_kind, 20, config)
    actual = lsg_attention(*qkv, config, mask)
    stride = lsg_attention(*qkv, make_config("stride"), mask)
    torch.testing.assert_close(actual[:, 0], stride[:, 0], rtol=0, atol=1e-10)
    assert not torch.allclose(actual[:, 1], stride[:, 1])


def test_registered_names() -> None:
    assert set(SPARSE_SELECTIONS) == set(SPARSE_TYPES)
    assert "lsg" in ENCODER_ATTENTIONS


@pytest.mark.parametrize(
    ("register", "name"),
    [(register_sparse_selection, "norm"), (register_encoder_attention, "lsg")],
)
def test_a_name_is_registered_once(register: Callable, name: str) -> None:
    registered = {**SPARSE_SELECTIONS, **ENCODER_ATTENTIONS}[name]
    with pytest.raises(ValueError, match=name):
        register(name)(lambda: None)
    assert {**SPARSE_SELECTIONS, **ENCODER_ATTENTIONS}[name] is registered


def test_a_wrong_name_lists_the_registered_ones(seventh_selection: str) -> None:
    with pytest.raises(LSGError, match="nrom") as error:
        make_config("nrom")
    assert all(name in str(error.value) for name in [*TYPES, seventh_selection])
    with pytest.raises(LSGError, match="lgs") as error:
        LSGConfig(attention="lgs")
    assert all(name in str(error.value) for name in ENCODER_ATTENTIONS)


@pytest.mark.parametrize("kind", SPARSE_TYPES)
def test_keys_near_the_end_of_fp32_are_selected_finitely(kind: str) -> None:
    torch.manual_seed(0)
    key = torch.randn(1, 2, 256, 8).clamp(-3, 3) * 1e38
    config = LSGConfig(block_size=32, sparse_block_size=32, sparsity_factor=4, sparsity_type=kind)
    query = torch.randn(1, 2, 256, 8) * 1e-38
    selected = sparse_tokens.select_sparse_tokens(
        query, key, torch.randn(1, 2, 256, 8), None, config, torch.Generator()
    )
    assert selected.key.isfinite().all()
    assert selected.value.isfinite().all()
    if kind == "lsh":  # buckets do not depend on the size of the keys
        small = sparse_tokens.select_sparse_tokens(query, key * 2.0**-100, query, None, config, torch.Generator())
        assert torch.equal(small.padding_mask, selected.padding_mask)
        torch.testing.assert_close(small.key, selected.key * 2.0**-100)
