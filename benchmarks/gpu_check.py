"""Everything that needs a GPU, in one command of a few minutes: `make gpu-check`.

Compares the attention that a GPU gets (FlexAttention, forced, so that a silent fallback is a failure) with the
reference attention: outputs, gradients, an encoder's training steps. Runs fairseq-train and fairseq-generate on the
device in half precision, and times encoder passes beside the reference and full attention. Writes
benchmarks/results/gpu_check.json. `--device cpu --quick` runs the same code where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig
from recipes.tiny_models import build_model, random_tokens

HERE = Path(__file__).resolve().parent

TYPES = ("none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride")
# Rounding of a sum over hundreds of keys, relative to its largest entry.
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
SHAPES = {"full": (2, 4, 2048, 64, 128), "quick": (2, 4, 96, 16, 16)}  # B, H, T, D, block size
LENGTHS = {"full": (4096, 16384), "quick": (96,)}


class Check(NamedTuple):
    """A measured error and the largest one allowed."""

    name: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


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


def training_check(device: str) -> Iterator[Check]:
    """Training on the fused backend gives the losses of training on the reference."""
    one, other = (torch.tensor(train_steps(device, name)) for name in (fused(device), "reference"))
    yield Check("training: losses of 5 steps", relative_error(one, other), 1e-4)


def command_checks(device: str) -> Iterator[Check]:
    """fairseq-train and fairseq-generate as a user types them; the error is the number of commands that failed."""
    bin_folder = Path(sys.executable).parent
    where = [] if device == "cuda" else ["--cpu"]
    precision = ["--fp16"] if device == "cuda" else ["--memory-efficient-fp16"]
    user = ["--user-dir", "lsg_fairseq", "--task", "lsg_summarization", *where]
    model = (
        "--arch lsg_bart_small --encoder-layers 2 --decoder-layers 1 --max-source-positions 1024 --lsg-block-size 32"
    )
    rates = "--lsg-sparse-block-size 32 --optimizer adam --lr 1e-3 --batch-size 4 --max-epoch 1 --num-workers 0"
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"document": f"word{i} in a row of words " * 60, "summary": f"word{i}"} for i in range(16)]
        (Path(folder) / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        splits = [part for split in ("train", "valid", "test") for part in (f"--{split}", "a.jsonl")]
        commands = {
            "lsg-preprocess": [*splits, "--out", "data", "--train-tokenizer", "300"],
            "fairseq-train": ["data", *user, *model.split(), *rates.split(), *precision, "--save-dir", "model"],
            "fairseq-generate": [
                "data",
                *user,
                "--path",
                "model/checkpoint_last.pt",
                "--beam",
                "2",
                "--max-len-b",
                "8",
            ],
        }
        for name, flags in commands.items():
            env = {**os.environ, "LSG_ATTENTION_BACKEND": fused(device) if device == "cuda" else "auto"}
            done = subprocess.run(
                [bin_folder / name, *flags], cwd=folder, env=env, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
            yield Check(f"command: {name}", float(done.returncode != 0), 0.0)


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


def main() -> int:
    """Run everything; the exit status is 0 if every check passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes and no commands: checks this script, measures nothing"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu_check.json", help="default: %(default)s")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check: this torch sees no GPU; --device cpu --quick tries the script without one")
    size = "quick" if args.quick else "full"
    checks: list[Check] = []
    for make in (lambda: attention_checks(args.device, size), lambda: training_check(args.device)):
        checks += make()
    if not args.quick:
        checks += command_checks(args.device)
    for check in checks:
        print(f"{'ok  ' if check.passed else 'FAIL'} {check.error:9.2e} (allowed {check.allowed:.0e})  {check.name}")
    rows = []
    for row in benchmark(args.device, size):
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
