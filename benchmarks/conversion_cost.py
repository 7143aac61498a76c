"""What lsg-convert and lsg-export cost at bart-large's size: seconds, and peak memory beside the size of the file.

The checkpoint is random, made here. Run:  python -m benchmarks.conversion_cost [--layers N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

from lsg_fairseq.huggingface.config import read_config
from lsg_fairseq.huggingface.seq2seq_weights import key_pairs
from lsg_fairseq.modules.lsg_config import MAX_GLOBAL_TOKENS

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "scripts"
GIB = 1 << 30
# facebook/bart-large's sizes.
CONFIG = {
    "model_type": "bart",
    "architectures": ["BartForConditionalGeneration"],
    "vocab_size": 50265,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "max_position_embeddings": 1024,
}


def write_checkpoint(folder: Path, layers: int) -> None:
    """A Hugging Face folder of that size: config.json, random float32 weights, and a tokenizer with as many tokens."""
    config = CONFIG | {"encoder_layers": layers, "decoder_layers": layers}
    spec = read_config(config)[0]
    sizes = {"V": spec.vocab_size, "C": spec.embed_dim, "E": spec.encoder_ffn_dim, "D": spec.decoder_ffn_dim, "1": 1}
    sizes |= {"S": spec.max_source_positions + 2, "T": spec.max_target_positions + 2, "G": MAX_GLOBAL_TOKENS}
    tensors = {pair.hf: torch.randn(*(sizes[symbol] for symbol in pair.shape)) * 0.02 for pair in key_pairs(spec)}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    known = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    fillers = [f"filler{i}" for i in range(spec.vocab_size - len(known) - 1)]
    vocab = {token: index for index, token in enumerate([*known, *fillers, "<mask>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def measure(*command: object) -> tuple[float, float]:
    """Run a command; returns its seconds and, in GiB, the largest resident set of any command so far.

    The resident set counts pages of mapped files too, which the system can drop at any time.
    """
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return time.perf_counter() - start, peak / GIB


def report(name: str, seconds: float, peak: float, size: float) -> None:
    print(f"{name:8} {seconds:6.1f} s   peak {peak:5.2f} GiB = {peak / size:.2f} x the checkpoint's {size:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12, help="encoder and decoder layers each (default: 12)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        # In a process of its own: its memory must not count.
        code = "from pathlib import Path; from benchmarks.conversion_cost import write_checkpoint; "
        code += f"write_checkpoint(Path({str(work / 'hf')!r}), {args.layers})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
        size = (work / "hf" / "model.safetensors").stat().st_size / GIB
        for name, source, out in (("convert", "hf", "out"), ("export", "out", "back")):
            script = SCRIPTS / f"{name}_hf_checkpoint.py"
            code = "from benchmarks.conversion_cost import measure; "
            code += f"print(*measure({str(script)!r}, {str(work / source)!r}, {str(work / out)!r}))"
            command = [sys.executable, "-c", code]
            printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout
            report(name, *map(float, printed.split()), size)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
