"""What the tests share: a small corpus, tiny models, and fairseq's commands run as a user runs them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGIN = REPOSITORY / "lsg_fairseq"
WORDS = "the cat sat on a mat while rain fell and birds sang in trees near old river banks under grey skies".split()
BLOCK = 16

# Dimensions that keep a training run under a few seconds.
TINY = [
    *"--arch lsg_bart_small --encoder-layers 2 --decoder-layers 2".split(),
    *"--encoder-embed-dim 32 --decoder-embed-dim 32".split(),
    *"--encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64 --max-source-positions 1024".split(),
    *f"--lsg-block-size {BLOCK} --lsg-sparse-block-size {BLOCK}".split(),
]
TRAINING = "--optimizer adam --lr 1e-3 --batch-size 4 --max-epoch 1 --cpu --num-workers 0 --no-progress-bar".split()
SUMMARIZATION = ["--user-dir", str(PLUGIN), "--task", "lsg_summarization"]


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Tiny matrices are slower on two threads than on one."""
    torch.set_num_threads(1)


def run(*command: object, cwd: Path | None = None, stdin: str | None = None, check: bool = True) -> str:
    """Run a command and return what it printed, both streams; fail with that text if it failed."""
    command = [str(part) for part in command]
    if (Path(sys.executable).parent / command[0]).exists():
        command[0] = str(Path(sys.executable).parent / command[0])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=300, env=env)
    printed = done.stdout + done.stderr
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{printed[-3000:]}"
    return printed if check else f"{done.returncode}\n{printed}"


def write_jsonl(path: Path, lengths: list[int], seed: int, summaries: bool = True) -> Path:
    """A file of documents with the given numbers of words; a summary is a document's first words."""
    generator = random.Random(seed)
    with path.open("w") as file:
        for length in lengths:
            words = generator.choices(WORDS, k=length)
            example = {"document": " ".join(words)} | ({"summary": " ".join(words[:6])} if summaries else {})
            file.write(json.dumps(example) + "\n")
    return path


def preprocess(folder: Path, **splits: Path) -> Path:
    """Binarize splits into folder/data with a tokenizer trained on them."""
    flags = [part for split, path in splits.items() for part in (f"--{split}", path)]
    flags += ["--out", folder / "data", "--train-tokenizer", 300, "--workers", 1]
    run(sys.executable, REPOSITORY / "scripts" / "preprocess.py", *flags)
    return folder / "data"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Binarized data: documents from under 2 blocks to over 20 of them."""
    folder = tmp_path_factory.mktemp("corpus")
    return preprocess(
        folder,
        train=write_jsonl(folder / "train.jsonl", [20, 60, 90, 150] * 3 + [330], seed=0),
        valid=write_jsonl(folder / "valid.jsonl", [40, 120, 25, 200, 70], seed=1),
        test=write_jsonl(folder / "test.jsonl", [30, 100, 45, 80, 160, 300, 20, 61, 75, 90, 110], seed=2),
    )


@pytest.fixture(scope="session")
def checkpoints(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of two epochs on the corpus."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run("fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, "--max-epoch", 2, "--save-dir", folder)
    return folder
