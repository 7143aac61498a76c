"""One measured model in a process of its own: builds it, then runs it once for each line on standard input.

Started by speed.py, in this project's environment or in the peers'. Prints a JSON object a line: first the memory of
the process with the model built, then seconds and peak memory of each run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks import our_models, peer_models
from benchmarks.process_memory import memory_mib, reset_peak

Build = Callable[[int], tuple[torch.nn.Module, Callable[[], object]]]
TYPES = ("none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride")
DROPOUT = 0.1

OURS: dict[str, Build] = {
    "lsg_fairseq": our_models.build_encoder,
    "floor": our_models.build_floor,
    "products": our_models.build_product_floor,
    "layer": our_models.build_layer,
    "layer_products": our_models.build_products,
    "layer_full": partial(our_models.build_layer, full=True),
    "dropout": partial(our_models.build_encoder, dropout=DROPOUT),
    "generation": our_models.build_generation,
} | {f"type_{name}": partial(our_models.build_encoder, sparsity=name) for name in TYPES}

PEERS: dict[str, Build] = {
    "public_lsg": peer_models.build_public_lsg,
    "bart_full": peer_models.build_bart_full,
    "led": peer_models.build_led,
    "bigbird": peer_models.build_bigbird,
    "layer_public_lsg": peer_models.build_public_layer,
    "dropout_public_lsg": partial(peer_models.build_public_lsg, dropout=DROPOUT),
    "generation_public_lsg": peer_models.build_public_generation,
}
AUTOCAST = "bf16 autocast"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, AUTOCAST: torch.float32}


def run_once(model: torch.nn.Module, run: Callable[[], object], mode: str, dtype: str) -> float:
    """Seconds of a forward pass, or of one with its backward pass."""
    started = time.perf_counter()
    if mode == "train":
        run().float().square().mean().backward()
    else:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == AUTOCAST):
            run()
    seconds = time.perf_counter() - started
    model.zero_grad()
    return seconds


def main() -> None:
    """Build, then answer each line of standard input with a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*OURS, *PEERS])
    parser.add_argument("tokens", type=int)
    parser.add_argument("mode", choices=["forward", "train"])
    parser.add_argument("dtype", choices=DTYPES)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model, run = (OURS | PEERS)[args.name](args.tokens)
    model.to(DTYPES[args.dtype]).train(args.mode == "train")
    reset_peak()
    print(json.dumps({"built_mib": memory_mib("VmRSS")}), flush=True)
    for _ in sys.stdin:
        seconds = run_once(model, run, args.mode, args.dtype)
        print(json.dumps({"seconds": seconds, "peak_mib": memory_mib("VmHWM")}), flush=True)


if __name__ == "__main__":
    main()
