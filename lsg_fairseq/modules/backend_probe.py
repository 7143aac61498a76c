"""Whether a GPU backend can be trusted: each kind of input is tried once on a tiny example, forward and backward.

Kernels are compiled on the user's machine, and a backward only when the first gradient arrives, where no fallback
could catch a failure. So whether a kind compiles and is right is found out before it is used.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsg_fairseq.modules.chunked_block_attention import chunked_block_attention
from lsg_fairseq.modules.lsg_config import LSGConfig

Attend = Callable[[Tensor, dict, dict, dict, LSGConfig, float], Tensor]
# Largest difference over the largest entry. Wrong kernels are off by the entries themselves.
TOLERANCES = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# A kind that passed may still fail for a passing reason, such as memory held by another process.
MOST_FAILURES = 3
NUM_HEADS, NUM_BLOCKS, DROPOUT = 2, 4, 0.25


class Kind(NamedTuple):
    """What this package specialises a kernel on; `single`: a batch of one."""

    backend: str
    device: torch.device
    dtype: torch.dtype
    head_dim: int
    config: LSGConfig
    single: bool
    masked: bool
    dropout: bool


# Whether a kind passed, and how often one that passed failed later.
VERDICTS: dict[Kind, bool] = {}
FAILURES: Counter[Kind] = Counter()


def passes(kind: Kind, attend: Attend) -> bool:
    """Whether a kind may be used; tries it the first time."""
    if kind in VERDICTS:
        return VERDICTS[kind]
    # A backward inside a backward may deadlock. Layers recomputed there have been tried in their forward.
    if within_backward():
        return False
    try:
        error = _in_thread(lambda: _error(kind, attend))
    except torch.OutOfMemoryError:
        return False
    except Exception as failure:  # compilers raise many kinds where a device, a size or an installation is amiss
        return _give_up(kind, f"it fails ({failure})")
    if not error <= TOLERANCES.get(kind.dtype, TOLERANCES[torch.float32]):
        return _give_up(kind, f"a tiny input gives a relative error of {error:.1e}")
    VERDICTS[kind] = True
    return True


def within_backward() -> bool:
    """Whether autograd's backward is running this, as when a checkpointed layer is recomputed."""
    return torch._C._current_graph_task_id() != -1


def note_failure(kind: Kind, failure: Exception) -> None:
    """Count a failure of a kind that had passed; after MOST_FAILURES the kind is given up."""
    FAILURES[kind] += 1
    if FAILURES[kind] >= MOST_FAILURES:
        _give_up(kind, f"it failed {MOST_FAILURES} times ({failure})")
    else:
        warnings.warn(f"{kind.backend} attention failed once ({failure}); this call is served without", stacklevel=3)


def _give_up(kind: Kind, why: str) -> bool:
    VERDICTS[kind] = False
    what = f"{str(kind.dtype).removeprefix('torch.')} heads of {kind.head_dim} on {kind.device}"
    warnings.warn(f"{kind.backend} attention is given up for {what}: {why}; a slower one takes over", stacklevel=4)
    return False


def _in_thread(compute: Callable[[], float]) -> float:
    """Compute in a thread of its own, free of the caller's autocast, inference mode and checkpointing hooks."""
    results: list[float | Exception] = []

    def work() -> None:
        try:
            results.append(compute())
        except Exception as failure:
            results.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def _error(kind: Kind, attend: Attend) -> float:
    """The worst relative error of the output and its gradients, against the chunked attention in float32 on the CPU."""
    tensors, masks = _tiny_input(kind)
    expected = _results(chunked_block_attention, tensors, masks, kind)
    on_device = {name: x.to(kind.device, kind.dtype) for name, x in tensors.items()}
    found = _results(attend, on_device, {name: x.to(kind.device) for name, x in masks.items()}, kind)
    return max(
        ((one.float().cpu() - other).abs().max() / other.abs().max()).item()
        for one, other in zip(found, expected, strict=True)
    )


def _tiny_input(kind: Kind) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Query, keys, values and the output's gradient by name, exact in the kind's dtype, and masks by sequence."""
    config, batch = kind.config, 1 if kind.single else 2
    lengths = {"global": config.num_global_tokens, "local": NUM_BLOCKS * config.block_size}
    if config.has_sparse_tokens:
        lengths["sparse"] = NUM_BLOCKS * config.sparse_step
    generator = torch.Generator().manual_seed(0)
    sizes = {"query": lengths["local"], "grad": lengths["local"]}
    sizes |= {f"{part} {name}": length for name, length in lengths.items() for part in ("key", "value")}
    tensors = {
        name: torch.randn(batch, NUM_HEADS, size, kind.head_dim, generator=generator).to(kind.dtype).float()
        for name, size in sizes.items()
    }
    masks = {}
    if kind.masked:
        masks = {name: torch.arange(n).ge(max(1, n * 2 // 3)).expand(batch, 1, n) for name, n in lengths.items()}
    return tensors, masks


def _results(attend: Attend, tensors: dict[str, Tensor], masks: dict[str, Tensor], kind: Kind) -> list[Tensor]:
    """The output and the gradients of everything that has one."""
    leaves = {name: x.detach().requires_grad_() for name, x in tensors.items() if name != "grad"}
    keys, values = (_of(leaves, part) for part in ("key", "value"))
    with torch.random.fork_rng(devices=[]):  # seeds come from the CPU's generator
        torch.manual_seed(0)
        output = attend(leaves["query"], keys, values, masks, kind.config, DROPOUT if kind.dropout else 0.0)
    return [output.detach(), *torch.autograd.grad(output, list(leaves.values()), tensors["grad"])]


def _of(leaves: dict[str, Any], part: str) -> dict[str, Any]:
    return {name.split()[1]: x for name, x in leaves.items() if name.split()[0] == part}
