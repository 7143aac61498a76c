"""Everything that needs a GPU, in one command of some minutes: `make gpu-check`.

Compares the attentions that a GPU gets with the reference: FlexAttention, forced, so that a silent fallback is a
failure; the ones with dropout, with the same mask on the CPU; an encoder's training steps. Then trains as people do,
with the commands that they type (gpu_training.py), and fails if a backend was given up. Times encoder passes beside the
reference and full attention. Writes benchmarks/results/gpu_check.json. `--device cpu --quick` runs the same code where
there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.gpu_training import Check, training_checks
from lsg_fairseq.modules import backend_probe
from lsg_fairseq.modules.block_attention import Tokens, block_attention
from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.sparse_tokens import select_sparse_tokens
from recipes.tiny_models import build_model, random_tokens

HERE = Path(__file__).resolve().parent
TYPES = ("none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride")
# Rounding of a sum over hundreds of keys, relative to its largest entry.
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
SHAPES = {"full": (2, 4, 2048, 64, 128), "quick": (2, 4, 96, 16, 16)}  # B, H, T, D, block size
LENGTHS = {"full": (4096, 16384), "quick": (96,)}


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Force an attention backend."""
    before = os.environ.get("LSG_ATTENTION_BACKEND")
    os.environ["LSG_ATTENTION_BACKEND"] = name
    try:
        yield
    finally:
        os.environ.pop("LSG_ATTENTION_BACKEND")
        if before is not None:
            os.environ["LSG_ATTENTION_BACKEND"] = before


def fused(device: str) -> str:
    """The fused backend that this device has."""
    return "flex" if device == "cuda" else "fused_cpu"


def relative_error(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference over the largest entry."""
    return ((one - other).abs().max() / other.abs().max()).item()


def attend(device: str, size: str, config: LSGConfig, dtype: torch.dtype, padded: bool) -> list[torch.Tensor]:
    """An attention's output and the gradients of query, key and value, in fp32 on the CPU."""
    batch, heads, length, width, _ = SHAPES[size]
    generator = torch.Generator().manual_seed(0)
    shape = (batch, heads, config.num_global_tokens + length, width)
    inputs = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]
    mask = torch.zeros(batch, shape[2], dtype=torch.bool, device=device)
    mask[-1, -length // 3 :] = True
    weight = torch.randn(shape, generator=generator).to(device, dtype)
    output = lsg_attention(*inputs, config, mask if padded else None, generator=torch.Generator().manual_seed(1))
    present = ~mask[:, None, :, None] if padded else torch.ones_like(output)
    (output * weight * present).sum().backward()
    return [(output * present).detach().float().cpu(), *(x.grad.float().cpu() for x in inputs)]


def attention_checks(device: str, size: str) -> Iterator[Check]:
    """Each sparsity type in each dtype, without and with padding, against the reference in the same dtype."""
    block = SHAPES[size][-1]
    dtypes = TOLERANCES if device == "cuda" else (torch.float32, torch.bfloat16)
    for sparsity_type in TYPES:
        config = LSGConfig(block_size=block, sparse_block_size=block, sparsity_type=sparsity_type)
        for dtype in dtypes:
            for padded in (False, True):
                results = []
                for name in (fused(device), "reference"):
                    with backend(name):
                        results.append(attend(device, size, config, dtype, padded))
                what = f"{sparsity_type}, {str(dtype).removeprefix('torch.')}, {'padded' if padded else 'whole'}"
                for part, one, other in zip(("output", "dq", "dk", "dv"), *results, strict=True):
                    yield Check(f"attention {part}: {what}", relative_error(one, other), TOLERANCES[dtype])


def train_steps(device: str, name: str, steps: int = 5) -> list[float]:
    """Losses of a few steps of a small model on the device."""
    model = build_model(lsg_sparsity_type="norm", encoder_embed_dim=64, decoder_embed_dim=64).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens, target = random_tokens(200, 120).to(device), random_tokens(9, 9, seed=1).to(device)
    losses = []
    with backend(name):
        for _ in range(steps):
            optimizer.zero_grad()
            torch.manual_seed(0)
            loss = torch.nn.functional.cross_entropy(model(tokens, None, target)[0].flatten(0, 1), target.flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def step_checks(device: str, size: str) -> Iterator[Check]:
    """Training on the fused backend gives the losses of training on the reference."""
    one, other = (torch.tensor(train_steps(device, name)) for name in (fused(device), "reference"))
    yield Check("training: losses of 5 steps", relative_error(one, other), 1e-4)


def attend_with_dropout(device: str, size: str, dtype: torch.dtype, padded: bool) -> list[torch.Tensor]:
    """Regular queries' output and the gradients of query, key and value with dropout of one seed, fp32 on the CPU."""
    batch, heads, length, width, block = SHAPES[size]
    config = LSGConfig(block_size=block, sparse_block_size=block, sparsity_type="stride")
    generator = torch.Generator().manual_seed(0)
    shape = (batch, heads, config.num_global_tokens + length, width)
    inputs = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]
    mask = torch.zeros(batch, shape[2], dtype=torch.bool, device=device)
    mask[-1, -length // 3 :] = True
    tokens = Tokens(*inputs, mask if padded else None)
    sparse = select_sparse_tokens(*tokens.rows(config.num_global_tokens), config)
    torch.manual_seed(0)  # of the CPU's generator, which seeds come from on every device
    output = block_attention(tokens, sparse, config, 0.1)
    output.backward(torch.randn(output.shape, generator=generator).to(output))
    return [x.detach().float().cpu() for x in (output, *(x.grad for x in inputs))]


def dropout_checks(device: str, size: str) -> Iterator[Check]:
    """Every attention with dropout against the one in chunks on the CPU in float32, of which the same is dropped."""
    for dtype in TOLERANCES if device == "cuda" else (torch.float32, torch.bfloat16):
        half_on_gpu = device == "cuda" and dtype != torch.float32
        for name in ("chunked", "triton") if half_on_gpu else ("chunked",):
            for padded in (False, True):
                with backend("chunked"):
                    expected = attend_with_dropout("cpu", size, torch.float32, padded)
                with backend(name):
                    found = attend_with_dropout(device, size, dtype, padded)
                what = f"{name}, {str(dtype).removeprefix('torch.')}, {'padded' if padded else 'whole'}"
                for part, one, other in zip(("output", "dq", "dk", "dv"), found, expected, strict=True):
                    # The input is rounded on one side alone.
                    yield Check(f"dropout {part}: {what}", relative_error(one, other), 3 * TOLERANCES[dtype])


def automatic_checks(device: str, size: str) -> Iterator[Check]:
    """What auto takes, which is tried first: that nothing is given up, with dropout and without, in every dtype."""
    backend_probe.VERDICTS.clear()
    block = SHAPES[size][-1]
    with backend("auto"):
        for dtype in TOLERANCES if device == "cuda" else (torch.float32, torch.bfloat16):
            attend_with_dropout(device, size, dtype, True)
            for padded in (False, True):
                attend(device, size, LSGConfig(block_size=block, sparse_block_size=block), dtype, padded)
    given_up = [kind for kind, passed in backend_probe.VERDICTS.items() if not passed]
    yield Check(f"backends given up: {', '.join(map(str, given_up)) or 'none'}", float(len(given_up)), 0.0)


def timed(run: Callable[[], torch.Tensor], device: str, train: bool, rounds: int = 5) -> dict[str, float]:
    """Median milliseconds, and peak memory over what was there before, MiB (GPU only)."""
    times = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    for _ in range(rounds + 2):
        started = time.perf_counter()
        with torch.set_grad_enabled(train):
            output = run()
            if train:
                output.float().square().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started))
    figures = {"ms": round(sorted(times[2:])[rounds // 2], 2)}
    if device == "cuda":
        figures["peak_mib"] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    return figures


def benchmark(device: str, size: str) -> Iterator[dict[str, object]]:
    """BART-base's encoder at two lengths: ours, the reference backend, full attention."""
    full_size = {"encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_layers": 6}
    full_size |= {"encoder_attention_heads": 12, "decoder_embed_dim": 768, "decoder_attention_heads": 12}
    sizes, block = (full_size, 128) if size == "full" else ({}, 16)
    ways = {"lsg_fairseq": ("lsg", fused(device)), "reference": ("lsg", "reference"), "full": ("full", "reference")}
    dtypes = (torch.float32, torch.bfloat16)
    for name, (attention, forced) in ways.items():
        lsg = {"lsg_attention": attention, "lsg_block_size": block, "lsg_sparse_block_size": block}
        model = build_model("lsg_bart_small", **sizes, **lsg, dropout=0.0, max_source_positions=max(LENGTHS[size]))
        for dtype in dtypes:
            model.to(device, dtype)
            for length in LENGTHS[size]:
                ids = torch.randint(4, 60, (1, length), device=device)
                for mode in ("forward", "train"):
                    with backend(forced):
                        figures = timed(lambda: model.encoder(ids)["encoder_out"][0], device, mode == "train")  # noqa: B023
                    model.zero_grad()
                    what = {"name": name, "dtype": str(dtype).removeprefix("torch."), "tokens": length, "mode": mode}
                    yield what | figures


PARTS: dict[str, Callable[[str, str], Iterator[Check]]] = {
    "attention": attention_checks,
    "dropout": dropout_checks,
    "auto": automatic_checks,
    "steps": step_checks,
    "training": training_checks,
}


def main() -> int:
    """Run everything; the exit status is 0 if every check passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: checks this script, measures nothing")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "speed"], default=[*PARTS, "speed"])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu_check.json", help="default: %(default)s")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check: this torch sees no GPU; --device cpu --quick tries the script without one")
    size = "quick" if args.quick else "full"
    checks = [check for part in args.parts if part in PARTS for check in PARTS[part](args.device, size)]
    for check in checks:
        print(f"{'ok  ' if check.passed else 'FAIL'} {check.error:9.2e} (allowed {check.allowed:.0e})  {check.name}")
    rows = []
    for row in benchmark(args.device, size) if "speed" in args.parts else ():
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    conditions = {"device": device, "torch": torch.__version__, "size": size}
    result = {**conditions, "checks": [{**check._asdict(), "passed": check.passed} for check in checks], "speed": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks)} checks, {failed} failed; {args.out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
