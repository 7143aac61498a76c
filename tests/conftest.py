"""What the tests share: a small corpus, tiny models, and fairseq's commands run as a user runs them."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fork_server import ForkServer

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

ENCODER_SIZES = {f"encoder_{name}": n for name, n in (("layers", 2), ("embed_dim", 32), ("ffn_embed_dim", 64))}
ENCODER_SIZES["encoder_attention_heads"] = 4
TINY_ENCODER = ["--arch", "lsg_roberta_small", *(f"--{k.replace('_', '-')}={n}" for k, n in ENCODER_SIZES.items())]
TINY_ENCODER += ["--lsg-block-size", BLOCK, "--lsg-sparse-block-size", BLOCK]
MASKED_LM = ["--user-dir", PLUGIN, *"--task masked_lm --criterion masked_lm --sample-break-mode eos".split()]
CLASSES = ["--user-dir", PLUGIN, *"--task sentence_prediction --criterion sentence_prediction --num-classes 2".split()]
CLASSES += "--init-token 0 --shorten-method truncate".split()
RESETS = ["--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler"]


SERVER = ForkServer()


@pytest.fixture(scope="session", autouse=True)
def _server() -> Iterator[None]:
    yield
    SERVER.close()


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Tiny matrices are slower on two threads than on one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No conversion of an earlier run stands in for one of this run, and none is left to its user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch-home")))
        yield


def run(*command: object, cwd: Path | None = None, stdin: str | None = None, check: bool = True) -> str:
    """Run a command and return what it printed, both streams; fail with that text if it failed."""
    command = [str(part) for part in command]
    if (Path(sys.executable).parent / command[0]).exists():
        command[0] = str(Path(sys.executable).parent / command[0])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if script := _forked(command):
        returncode, printed = SERVER.run(script, cwd, stdin, env)
    else:
        done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=300, env=env)
        returncode, printed = done.returncode, done.stdout + done.stderr
    assert not check or returncode == 0, f"{command} ended with {returncode}:\n{printed[-3000:]}"
    return printed if check else f"{returncode}\n{printed}"


def _forked(command: list[str]) -> list[str]:
    """A Python script and its arguments, if it can be forked from a process that has imported fairseq."""
    if os.environ.get("LSG_TEST_FRESH"):
        return []
    if command[0] == sys.executable and command[1].endswith(".py"):
        return command[1:]
    return command if Path(command[0]).name.startswith(("fairseq-", "lsg-")) else []


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


@pytest.fixture(scope="session")
def labelled(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """input0 (documents, which masked_lm reads too) and label, as fairseq's RoBERTa recipes lay them out."""
    from lsg_fairseq.tokenizers.fairseq_bpe import LSGBPE

    folder = tmp_path_factory.mktemp("labelled")
    bpe = LSGBPE.from_folder(corpus / "tokenizer")
    for split in ("train", "valid"):
        documents = [
            json.loads(line)["document"] for line in (corpus.parent / f"{split}.jsonl").read_text().splitlines()
        ]
        (folder / f"{split}.input0").write_text("".join(bpe.encode(document) + "\n" for document in documents))
        (folder / f"{split}.label").write_text("".join(f"{len(document) % 2}\n" for document in documents))
    for name, flags in (("input0", ["--srcdict", corpus / "dict.txt"]), ("label", [])):
        prefixes = [part for split in ("train", "valid") for part in (f"--{split}pref", folder / f"{split}.{name}")]
        run(
            "fairseq-preprocess", "--only-source", *prefixes, *flags, "--destdir", folder / "bin" / name, "--workers", 1
        )
    return folder / "bin"


@pytest.fixture(scope="session")
def pretrained(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of two epochs of masked language modelling."""
    folder = tmp_path_factory.mktemp("pretrained")
    run("fairseq-train", labelled / "input0", *MASKED_LM, *TINY_ENCODER, *TRAINING, "--max-epoch", 2,
        "--save-dir", folder)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def classifier(labelled: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint fine-tuned from the pretrained one, which is made longer on the way."""
    folder = tmp_path_factory.mktemp("classifier")
    printed = run("fairseq-train", labelled, *CLASSES, *TINY_ENCODER, *TRAINING, "--max-positions", 5000, *RESETS,
                  "--restore-file", pretrained / "checkpoint_last.pt", "--save-dir", folder,
                  "--best-checkpoint-metric", "accuracy", "--maximize-best-checkpoint-metric")  # fmt: skip
    assert "checkpoint brought up to this model: position table of 4,098 rows made 5,002\n" in printed
    assert re.search(r"valid on 'valid' subset \| loss [\d.]+ .*\| accuracy [\d.]+", printed)
    return folder / "checkpoint_best.pt"
