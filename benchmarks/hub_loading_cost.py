"""Time and peak memory of loading an lsg_bart_large-sized converted folder through the hub interface.

Makes such a folder with random weights (1.7 GB, removed afterwards), then loads it in a process of its own and reads
the peak of that process; a second process loads it and reads every weight, so that all of them are in memory.

    python -m benchmarks.hub_loading_cost [--arch lsg_bart_large]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

MEASURE = """
import resource, sys, time
import torch
from lsg_fairseq import hub

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

imported = peak()
start = time.perf_counter()
lsg = hub.lsg_bart_large(sys.argv[1])
seconds = time.perf_counter() - start
if sys.argv[2] == "forward":
    with torch.inference_mode():
        for tensor in lsg.model.state_dict().values():
            tensor.sum()
        lsg.extract_features(lsg.encode("a"))
weights = sum(p.numel() * p.element_size() for p in lsg.model.parameters()) / 2**20
print(f"{weights:.0f} {seconds:.2f} {imported:.0f} {peak():.0f}")
"""


def make_folder(folder: Path, arch: str) -> None:
    """A converted folder of the architecture's size with random weights and a trained tokenizer's few words."""
    import torch
    from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

    from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, train_tokenizer

    dictionary = build_dictionary(train_tokenizer(["a few words"] * 10, 300, folder / "tokenizer"))
    while len(dictionary) < 50265:
        dictionary.add_symbol(f"madeupword{len(dictionary)}")
    for name in ("dict.txt", "dict.source.txt", "dict.target.txt"):
        dictionary.save(str(folder / name))
    args = Namespace(arch=arch, max_target_positions=4096)
    ARCH_CONFIG_REGISTRY[arch](args)
    task = Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model = ARCH_MODEL_REGISTRY[arch].build_model(args, task)
    torch.save({"args": args, "model": model.state_dict()}, folder / "model.pt")


def measure(folder: Path, mode: str) -> list[float]:
    """Weights (MiB), seconds, MiB before loading, peak MiB, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), mode], capture_output=True, text=True, check=True
    )
    return [float(part) for part in done.stdout.split()[-4:]]


def main() -> None:
    """Print one line for loading alone and one for loading with a look at every weight."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="lsg_bart_large")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own too: building the model takes memory.
        code = "from pathlib import Path; from benchmarks.hub_loading_cost import make_folder; "
        code += f"make_folder(Path({name!r}), {args.arch!r})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])
        for mode in ("load", "forward"):
            weights, seconds, before, peak = measure(folder, mode)
            print(
                f"{mode:8} {weights:.0f} MiB of weights: loaded in {seconds:.1f} s; process {before:.0f} MiB before, "
                f"{peak:.0f} MiB at its peak, so {(peak - before) / weights:.2f} times the weights"
            )


if __name__ == "__main__":
    main()
