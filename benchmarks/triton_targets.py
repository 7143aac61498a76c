"""Compile the Triton kernels for GPUs that are not there: shared memory, registers and spills of each, by ptxas.

    python -m benchmarks.triton_targets [--targets 80 86 90] [--head-dims 64] [--dropout 0.1]

Needs triton (`make triton-test` installs it) and no GPU. Says nothing about speed, and nothing about numbers either:
those are checked in Triton's interpreter, in tests/test_triton.py.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.triton_block_attention import triton_block_attention

# Bytes that one block of threads may use, by compute capability: CUDA C++ Programming Guide, "Compute Capabilities".
SHARED_MEMORY = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


class Compiled(NamedTuple):
    """What became of one kernel: bytes of shared memory a program, registers and bytes of spilled ones a thread."""

    kernel: str
    target: int
    dtype: str
    head_dim: int
    shared: int
    registers: int
    spilled: int
    products: int


class ImaginaryDriver:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """A device of its own for each target, because compiled kernels are remembered by device."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling_for(capability: int) -> Iterator[list[Any]]:
    """Within it, launching a kernel compiles it for a target and runs nothing; yields the compiled kernels."""
    compiled: list[Any] = []
    launch = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        compiled.append(launch(self, *args, grid=grid, warmup=True, **kwargs))

    triton.runtime.driver.set_active(ImaginaryDriver(capability))
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = launch
        triton.runtime.driver._active = None


def compile_kernels(
    capability: int, dtype: torch.dtype, config: LSGConfig, head_dim: int = 64, dropout_p: float = 0.1
) -> list[Compiled]:
    """Compile what a padded training step launches, forward and backward, as its arguments are there."""
    tokens = 4 * config.block_size
    lengths = {"global": config.num_global_tokens, "local": tokens}
    if config.has_sparse_tokens:
        lengths["sparse"] = tokens // config.sparsity_factor
    query = torch.zeros(2, 2, tokens, head_dim, dtype=dtype, requires_grad=True)
    # Rows as the projections lay them out, (n,B,H,D).
    keys, values = (
        {name: torch.zeros(n, 2, 2, head_dim, dtype=dtype).permute(1, 2, 0, 3) for name, n in lengths.items()}
        for _ in range(2)
    )
    masks = {name: torch.zeros(2, 1, n, dtype=torch.bool) for name, n in lengths.items()}
    with compiling_for(capability) as kernels:
        triton_block_attention(query, keys, values, masks, config, dropout_p).sum().backward()
    return [_measured(kernel, capability, str(dtype).removeprefix("torch."), head_dim) for kernel in kernels]


def _measured(kernel: Any, capability: int, dtype: str, head_dim: int) -> Compiled:
    ptx = kernel.asm["ptx"]
    architecture = re.search(r"\.target (sm_\w+)", ptx).group(1)
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [PTXAS, "-v", f"--gpu-name={architecture}", file.name, "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = (int(re.search(p, report).group(1)) for p in (r"Used (\d+) reg", r"(\d+) bytes spill stores"))
    products = len(re.findall(r"mma\.sync|wgmma\.mma_async|tcgen05\.mma", ptx))
    sizes = (head_dim, kernel.metadata.shared, registers, spilled, products)
    return Compiled(kernel.metadata.name, capability, dtype, *sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=[80, 86, 90], choices=sorted(SHARED_MEMORY))
    parser.add_argument("--head-dims", type=int, nargs="+", default=[64])
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    print("| kernel | target | dtype | D | shared bytes | allowed | registers | spilled bytes | products |")
    print("|---|---|---|---|---|---|---|---|---|")
    for target in args.targets:
        for dtype in (torch.float16, torch.bfloat16):
            for head_dim in args.head_dims:
                for c in compile_kernels(target, dtype, LSGConfig(), head_dim, args.dropout):
                    row = (c.kernel, f"sm{c.target}", c.dtype, c.head_dim, c.shared, SHARED_MEMORY[target], *c[5:])
                    print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
