"""Which attention backend serves what, and what it says when it cannot."""

from __future__ import annotations

import pytest
import torch

from lsg_fairseq.modules import block_attention, fused_cpu_attention
from lsg_fairseq.modules.block_attention import Tokens, choose_backend
from lsg_fairseq.modules.fused_cpu_attention import block_layout
from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError

CONFIG = LSGConfig(block_size=8, sparse_block_size=8, sparsity_factor=2, sparsity_type="stride")


def make_tokens(dtype: torch.dtype = torch.float32) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    return Tokens(*(torch.randn(2, 2, 1 + 48, 16, generator=generator).to(dtype) for _ in range(3)), None)


def attend(tokens: Tokens, dropout_p: float = 0.0) -> torch.Tensor:
    return lsg_attention(tokens.query, tokens.key, tokens.value, CONFIG, dropout_p=dropout_p)


def test_this_torch_has_the_fused_ops() -> None:
    """A torch whose private ops differ is served by the reference; the pinned one must not be."""
    assert fused_cpu_attention.is_available()


@pytest.mark.parametrize(
    ("dtype", "dropout_p", "backend"),
    [
        (torch.float32, 0.0, "fused_cpu"),
        (torch.float64, 0.0, "fused_cpu"),
        (torch.bfloat16, 0.0, "fused_cpu"),
        (torch.float16, 0.0, "reference"),
        (torch.float32, 0.1, "reference"),
    ],
)
@pytest.mark.filterwarnings("ignore:attention dropout")
def test_auto_takes_the_fastest_that_applies(dtype: torch.dtype, dropout_p: float, backend: str) -> None:
    assert choose_backend(make_tokens(dtype), dropout_p) == backend


def test_the_setting_forces_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "reference")
    monkeypatch.setattr(block_attention, "_fused_cpu_block_attention", lambda *args: 1 / 0)
    attend(make_tokens())
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "fused_cpu")
    with pytest.raises(ZeroDivisionError):
        attend(make_tokens())
    with pytest.raises(LSGError, match=r"LSG_ATTENTION_BACKEND=fused_cpu cannot serve torch.float16 on cpu"):
        attend(make_tokens(torch.float16))
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "flash")
    with pytest.raises(LSGError, match="must be auto, reference or fused_cpu, not 'flash'"):
        attend(make_tokens())


def test_a_torch_without_the_ops_is_served_by_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = attend(make_tokens())
    fused_cpu_attention.is_available.cache_clear()
    monkeypatch.setattr(fused_cpu_attention, "_ATTEND", lambda *args, **kwargs: (args[0] * 0, args[0].sum(-1)))
    try:
        assert choose_backend(make_tokens(), 0.0) == "reference"
        torch.testing.assert_close(attend(make_tokens()), expected)
    finally:
        fused_cpu_attention.is_available.cache_clear()


def test_dropout_says_what_it_costs() -> None:
    with pytest.warns(UserWarning, match="--attention-dropout 0 avoids that"):
        attend(make_tokens(), dropout_p=0.5)


@pytest.mark.parametrize("num_blocks", [3, 4, 5, 9])
@pytest.mark.parametrize(("sparse_block", "factor"), [(8, 2), (16, 2), (4, 4), (24, 8), (3, 4), (8, 1)])
def test_pieces_are_the_windows_of_the_definition(num_blocks: int, sparse_block: int, factor: int) -> None:
    """Every block sees the keys that section 3 of the paper's definition names, each exactly once."""
    config = LSGConfig(
        block_size=8,
        sparse_block_size=sparse_block,
        sparsity_factor=factor,
        sparsity_type="stride",
        num_global_tokens=2,
    )
    step, num_sparse = config.sparse_step, num_blocks * config.sparse_step
    seen: dict[tuple[int, str], list[int]] = {}
    for piece in block_layout(num_blocks, num_sparse, config).pieces:
        for i in range(piece.count):
            start = piece.start + i * piece.step
            seen.setdefault((piece.first + i, piece.sequence), []).extend(range(start, start + piece.size))
    for block in range(num_blocks):
        local = range(max(0, (block - 1) * 8), min(num_blocks, block + 2) * 8)
        left = range(max(0, (block - 1) * step - sparse_block), max(0, (block - 1) * step))
        right = range(min(num_sparse, (block + 2) * step), min(num_sparse, (block + 2) * step + sparse_block))
        assert sorted(seen[block, "local"]) == list(local)
        assert sorted(seen.get((block, "sparse"), [])) == [*left, *right]
        assert seen[block, "global"] == [0, 1]


def test_compiled_attention_equals_eager() -> None:
    tokens = make_tokens()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), attend(tokens), atol=1e-5, rtol=1e-5)
