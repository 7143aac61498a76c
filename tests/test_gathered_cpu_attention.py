"""Block attention in bfloat16 without gradients, against the definition in float32 over the same numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lsg_fairseq.modules.block_attention import Tokens, block_attention, full_attention, reference_block_attention
from lsg_fairseq.modules.fused_cpu_attention import block_layout
from lsg_fairseq.modules.gathered_cpu_attention import runs
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.sparse_tokens import SparseTokens, select_sparse_tokens

CONFIG = LSGConfig(block_size=8, sparse_block_size=8, sparsity_factor=2, num_global_tokens=3)


def make_tokens(num_blocks: int, masked: bool) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    heads = (torch.randn(2, 2, 3 + 8 * num_blocks, 8, generator=generator).bfloat16() for _ in range(3))
    mask = torch.zeros(2, 3 + 8 * num_blocks, dtype=torch.bool)
    # The second document is padding from its first block on: later blocks see globals alone.
    mask[1, 3 + 5 :] = True
    return Tokens(*heads, mask if masked else None)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_blocks", [3, 4, 9])
@pytest.mark.parametrize("sparsity_type", ["none", "norm"])
def test_equals_the_definition(masked: bool, num_blocks: int, sparsity_type: str) -> None:
    config, tokens = replace(CONFIG, sparsity_type=sparsity_type), make_tokens(num_blocks, masked)
    sparse = select_sparse_tokens(*tokens.rows(3), config) if config.has_sparse_tokens else None
    with torch.no_grad():
        found = block_attention(tokens, sparse, config, 0.0)
    wide = Tokens(*(x.float() for x in tokens[:3]), tokens.padding_mask)
    if sparse is not None:
        sparse = SparseTokens(sparse.key.float(), sparse.value.float(), sparse.padding_mask)
    expected = reference_block_attention(wide, sparse, config, 0.0)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_queries", [1, 3, 40])
def test_global_rows_equal_the_definition(masked: bool, num_queries: int) -> None:
    """A few queries, as global tokens are, take another way than many."""
    tokens = make_tokens(9, masked)
    query = tokens.query[:, :, :num_queries]
    with torch.no_grad():
        found = full_attention(query, tokens, 0.0)
    scores = query.float() @ tokens.key.float().transpose(-1, -2) / query.size(-1) ** 0.5
    if masked:
        scores = scores.masked_fill(tokens.padding_mask[:, None, None], -torch.inf)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), scores.softmax(-1) @ tokens.value.float(), atol=0.03, rtol=0.03)


def test_runs_cover_every_block_once_with_all_of_its_keys() -> None:
    pieces = block_layout(9, 36, CONFIG).pieces
    seen = {block: {} for block in range(9)}
    for run in runs(pieces):
        assert len({(piece.first, piece.count) for piece in run}) == 1
        for piece in run:
            for i in range(piece.count):
                starts = seen[piece.first + i].setdefault(piece.sequence, [])
                starts.append((piece.start + i * piece.step, piece.size))
    for block, found in seen.items():
        covering = [p for p in pieces if p.first <= block < p.first + p.count]
        expected = sorted((p.sequence, p.start + (block - p.first) * p.step, p.size) for p in covering)
        assert sorted((name, *where) for name, all_of in found.items() for where in all_of) == expected


def test_selected_rows_are_those_that_gradients_see() -> None:
    tokens = make_tokens(9, True).rows(3)
    with torch.no_grad():
        found = select_sparse_tokens(*tokens, CONFIG)
    expected = select_sparse_tokens(*tokens, CONFIG)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
