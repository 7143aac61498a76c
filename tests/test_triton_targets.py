"""The Triton kernels compile for GPUs that are not there, and fit into them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.triton_call import HEAD_DIMS


# Triton remembers what it compiled under ~/.triton; what is to be tested is compiling.
@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_COMPILE") != "1",
    reason="make triton-test installs triton and runs these, which take a minute",
)
KERNELS = ["attend_kernel", "query_gradient_kernel", *["key_gradient_kernel"] * 3]
# A few bytes of a loop's bounds; sums that spill would be hundreds.
MAX_SPILLED = 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("target", [80, 86, 90], ids="sm{}".format)
def test_every_kernel_fits(target: int, dtype: torch.dtype) -> None:
    check(target, dtype, 64)


def test_the_widest_head_fits_the_smallest_gpu() -> None:
    check(86, torch.bfloat16, max(HEAD_DIMS))


def check(target: int, dtype: torch.dtype, head_dim: int) -> None:
    from benchmarks.triton_targets import SHARED_MEMORY, compile_kernels

    compiled = compile_kernels(target, dtype, LSGConfig(), head_dim)
    assert [c.kernel for c in compiled] == KERNELS
    assert all(c.shared <= SHARED_MEMORY[target] for c in compiled)
    assert all(c.spilled <= MAX_SPILLED for c in compiled)
    # Products run on tensor cores: mma on sm80 and sm86, wgmma on sm90.
    assert all(c.products > 0 for c in compiled)
