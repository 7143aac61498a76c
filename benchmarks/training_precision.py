"""Attention of a bfloat16 model in training on a CPU: computed in float32, as the plugin does it, or in bfloat16.

python -m benchmarks.training_precision

Prints a JSON line for each shape: median milliseconds of a forward and backward, and the median of their ratio taken in
turns. MiniLM's heads: 12 of width 32.
"""

from __future__ import annotations

import json
import statistics
import time

import torch
from tqdm import tqdm

from lsg_fairseq.modules.lsg_attention import LSGMultiheadAttention
from lsg_fairseq.modules.lsg_config import LSGConfig
from recipes.machine import machine_facts

SHAPES = ((45, 90), (16, 512), (4, 4096))  # sources, tokens
HEADS, WIDTH = 12, 32
ROUNDS = 7


def main() -> None:
    """Measure every shape."""
    print(json.dumps(machine_facts()))
    for sources, tokens in SHAPES:
        print(json.dumps({"sources": sources, "tokens": tokens} | compare(sources, tokens)), flush=True)


def compare(sources: int, tokens: int) -> dict[str, float]:
    """Milliseconds in both dtypes, and how many times as long bfloat16 takes."""
    attention = LSGMultiheadAttention(HEADS * WIDTH, HEADS, LSGConfig()).train()
    mask = torch.zeros(sources, 1 + tokens, dtype=torch.bool)
    mask[:, -20:] = True  # batches of documents have padding
    shape = (3, sources, HEADS, 1 + tokens, WIDTH)
    heads = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    pairs = []
    for _ in tqdm(range(ROUNDS + 1), f"{sources} sources of {tokens} tokens"):
        pairs.append([_milliseconds(attention, heads, mask, dtype) for dtype in (torch.float32, torch.bfloat16)])
    pairs = pairs[1:]  # the first one warms up
    wide, half = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(half / wide for wide, half in pairs)
    return {"float32_ms": round(wide, 1), "bfloat16_ms": round(half, 1), "ratio": round(ratio, 2)}


def _milliseconds(
    attention: LSGMultiheadAttention, heads: torch.Tensor, mask: torch.Tensor, dtype: torch.dtype
) -> float:
    """Of one training step's share, the conversion there and back included."""
    leaves = [x.clone().requires_grad_() for x in heads]
    start = time.perf_counter()
    attended = attention.attend(*(x.to(dtype) for x in leaves), mask).to(torch.bfloat16)
    attended.backward(torch.ones_like(attended))
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
