"""A training as people run it, for gpu_check.py: every command as a user types it, and no backend given up on the way.

Half precision, dropout in attention too, checkpointed activations, batches of mixed lengths, validation after each of
two epochs with the second one resumed from the first's checkpoint, then generation.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# What lsg_fairseq.modules.backend_probe warns with.
GIVEN_UP = re.compile(r"attention (is given up|failed once)")


class Check(NamedTuple):
    """A measured error and the largest one allowed."""

    name: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


class Size(NamedTuple):
    """Of the model and the documents: words at most in a document, positions, block size, tokens in a batch."""

    documents: int
    words: int
    positions: int
    block: int
    batch_tokens: int


SIZES = {"full": Size(160, 1300, 4096, 128, 8192), "quick": Size(12, 40, 128, 8, 512)}
PRECISIONS = {"cuda": {"fp16": ["--fp16"], "bf16": ["--bf16"]}, "cpu": {"fp16": ["--memory-efficient-fp16"]}}


def training_checks(device: str, size: str) -> Iterator[Check]:
    """Prepare data, then train, resume and generate in each precision; errors count commands that failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_documents(folder / "a.jsonl", SIZES[size])
        splits = [part for split in ("train", "valid", "test") for part in (f"--{split}", "a.jsonl")]
        yield from _command(folder, "lsg-preprocess", [*splits, "--out", "data", "--train-tokenizer", "300"], "once")
        for precision, flags in PRECISIONS[device].items():
            yield from _one_precision(folder, precision, [*flags, *([] if device == "cuda" else ["--cpu"])], size)


def _write_documents(path: Path, size: Size) -> None:
    """Documents of very different lengths, whose summary is their first word."""
    choose = random.Random(0)
    rows = []
    for i in range(size.documents):
        words = [f"word{choose.randint(0, 99)}" for _ in range(choose.randint(size.words // 20, size.words))]
        rows.append({"document": " ".join([f"word{i % 10}", *words]), "summary": f"word{i % 10}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _one_precision(folder: Path, precision: str, flags: list[str], size: str) -> Iterator[Check]:
    sizes = SIZES[size]
    user = ["--user-dir", "lsg_fairseq", "--task", "lsg_summarization", *flags]
    model = (
        f"--arch lsg_bart_small --encoder-layers 2 --decoder-layers 1 --max-source-positions {sizes.positions} "
        f"--lsg-block-size {sizes.block} --lsg-sparse-block-size {sizes.block} --encoder-embed-dim 128 "
        "--decoder-embed-dim 128 --encoder-attention-heads 2 --decoder-attention-heads 2"
    )
    recipe = (
        f"--max-tokens {sizes.batch_tokens} --dropout 0.1 --attention-dropout 0.1 --checkpoint-activations "
        "--optimizer adam --lr 1e-3 --clip-norm 1.0 --num-workers 0 --log-format json --log-interval 1"
    )
    train = ["data", *user, *model.split(), *recipe.split(), "--save-dir", precision]
    for epochs in ("1", "2"):
        # The second run finds the first one's checkpoint_last.pt.
        yield from _command(folder, "fairseq-train", [*train, "--max-epoch", epochs], f"{precision}, epoch {epochs}")
    path = f"{precision}/checkpoint_last.pt"
    generate = [
        "data",
        *user,
        "--path",
        path,
        "--beam",
        "2",
        "--max-len-b",
        "8",
        "--max-tokens",
        str(sizes.batch_tokens),
    ]
    yield from _command(folder, "fairseq-generate", generate, precision)


def _command(folder: Path, name: str, flags: list[str], what: str) -> Iterator[Check]:
    """Run a command: whether it failed, whether it gave a backend up, and what its losses were if it has any."""
    program = Path(sys.executable).parent / name
    env = {**os.environ, "PYTHONWARNINGS": "always::UserWarning"}
    done = subprocess.run([program, *flags], cwd=folder, env=env, capture_output=True, text=True, check=False)
    log = done.stdout + done.stderr
    if done.returncode:
        print(log[-4000:], file=sys.stderr)
    yield Check(f"command: {name}, {what}", float(done.returncode != 0), 0.0)
    given_up = [line for line in log.splitlines() if GIVEN_UP.search(line)]
    print(*given_up, sep="\n", file=sys.stderr)
    yield Check(f"backends given up: {name}, {what}", float(len(given_up)), 0.0)
    if name == "fairseq-train":
        losses = [float(x) for x in re.findall(r'"(?:valid_)?loss": "([^"]+)"', log)]
        missing = not losses or not all(map(math.isfinite, losses))
        yield Check(f"losses that are no number: {name}, {what}", float(missing), 0.0)
        yield Check(f"no validation: {name}, {what}", float('"valid_loss"' not in log), 0.0)
        if what.endswith("epoch 2"):
            yield Check(f"not resumed: {name}, {what}", float("Loaded checkpoint" not in log), 0.0)
