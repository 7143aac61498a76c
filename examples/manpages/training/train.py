"""Manual pages -> a model that describes them in a line: MiniLM's weights, then four stages of stock fairseq-train.

python -m examples.manpages.training.train [--data manpages-run]

Package descriptions (short texts, many) teach the decoder to write one-line descriptions; the openings of pages teach
the whole model pages, and both mixed teach it more; whole pages, up to 4,096 tokens, make it long. Stop it whenever you
like: it goes on from the last checkpoint, unless that was trained with other settings or data, which is said.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.manpages.corpus.pages import path_of
from examples.manpages.training.lineage import Facts, check_trained, is_made_from, key_of, make_room, write_facts
from examples.manpages.training.start import START, StartPlan, make_start
from examples.manpages.training.texts import DESCRIPTIONS, MIXTURE, OPENINGS, PAGES, TEXTS
from lsg_fairseq.commands.running import run_command
from recipes.files import sha256_of
from recipes.stages import Stages

PROGRAM = "examples.manpages.training.train"
IF_INTERRUPTED = "the same command goes on from the last checkpoint"

PLUGIN = "--user-dir lsg_fairseq --task lsg_summarization"
# fairseq-train's names of the sizes in the start's config.json.
SIZES = {"layers": "layers", "attention-heads": "attention_heads", "ffn-embed-dim": "ffn_dim"}
TRAINING = (
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --optimizer adam --adam-betas (0.9,0.98) "
    "--weight-decay 0.01 --clip-norm 1.0 --dropout 0.1 --attention-dropout 0 --lr-scheduler polynomial_decay --seed 1 "
    "--cpu --bf16 --num-workers 0 --no-epoch-checkpoints --keep-interval-updates 1 "
    "--log-format json --log-interval 25"
).split()


@dataclass(frozen=True)
class Stage:
    """One run of fairseq-train; `max_tokens` is of sources in a batch, padding included."""

    name: str
    data: str
    begins_as: str  # the checkpoint whose weights it starts with
    positions: int
    max_tokens: int
    updates: int
    learning_rate: float
    warmup: int
    saves: int  # checkpoints on the way, each with a validation: an interruption costs minutes
    flags: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """What it makes."""
        return f"model-{self.name}"


# The decoder, and the embeddings that it shares, at first: updates cost less, and MiniLM's layers are not bent towards
# a decoder that knows nothing yet.
ALONE = ("--freeze-encoder",)
# Up to MiniLM's own length its own attention, which is faster there.
FULL = ("--lsg-attention", "full")
# Name, data, what it begins as, positions, tokens of a batch, updates, learning rate, warm-up, checkpoints on the way.
STAGES = (
    Stage("descriptions", DESCRIPTIONS, f"{START}/lsg/model.pt", 512, 4096, 1500, 1e-3, 100, 4, ALONE),
    Stage("openings", OPENINGS, "model-descriptions/checkpoint_last.pt", 512, 8192, 2400, 4e-4, 50, 8, FULL),
    Stage("mixture", MIXTURE, "model-openings/checkpoint_last.pt", 512, 8192, 2600, 3e-4, 50, 13, FULL),
    Stage("long", PAGES, "model-mixture/checkpoint_last.pt", 4096, 16384, 300, 2e-4, 15, 4),
)
LAST, LOG = "checkpoint_last.pt", "train.log"
TOKENIZER = ("--tokenizer", f"{START}/lsg/tokenizer")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)
    return run_command(PROGRAM, lambda: train_all(args.data.resolve(), StartPlan(), STAGES), IF_INTERRUPTED)


def train_all(data: Path, plan: StartPlan, stages: Sequence[Stage]) -> None:
    """Make the start, binarize, and train one stage after the other; what is done already is not repeated.

    Raises:
        LSGError: the corpora are not prepared, or a folder has checkpoints that were trained from something else.
        SystemExit: a command failed.
    """
    folders = [data / stage.folder for stage in stages]
    start = make_start(data, plan, folders)
    binarized = data_facts(data, start)
    trained = model_facts(data, stages, start, binarized)
    check_trained(folders, list(trained.values()))
    runner = Stages(data)
    for folder, facts in binarized.items():
        binarize(runner, folder, facts)
    for stage in stages:
        train(runner, stage, trained[stage.folder])


def data_facts(data: Path, start: Facts) -> dict[str, Facts]:
    """What each folder of binarized data follows from."""
    found = {}
    for folder, texts in TEXTS.items():
        training, validation = texts.files()
        command = ["lsg-preprocess", "--train", training, "--valid", validation, "--out", folder, *TOKENIZER]
        hashes = {split: sha256_of([path_of(data, split)]) for split in texts.splits}
        found[folder] = {"command": command, "start": start, "files": hashes} | texts.settings()
    return found


def model_facts(data: Path, stages: Sequence[Stage], start: Facts, binarized: Mapping[str, Facts]) -> dict[str, Facts]:
    """What the folder of each stage follows from, in the order of training."""
    keys = {START: key_of(start)} | {folder: key_of(facts) for folder, facts in binarized.items()}
    found = {}
    for stage in stages:
        before = keys[Path(stage.begins_as).parts[0]]
        command = command_of(stage, model_flags(data / START / "short"))
        found[stage.folder] = {"command": command, "start": start, "data": keys[stage.data], "begins_as": before}
        keys[stage.folder] = key_of(found[stage.folder])
    return found


def model_flags(start: Path) -> list[str]:
    """The sizes of a short BART as flags of fairseq-train."""
    config = json.loads((start / "config.json").read_text())
    flags = ["--max-target-positions", config["max_position_embeddings"]]
    for side in ("encoder", "decoder"):
        flags += [f"--{side}-embed-dim", config["d_model"]]
        for flag, name in SIZES.items():
            flags += [f"--{side}-{flag}", config[f"{side}_{name}"]]
    return flags


def command_of(stage: Stage, sizes: Sequence[object]) -> list[str]:
    """The command that trains a stage of a model of these sizes."""
    # --restore-file would begin anew each time; this is read only where no checkpoint is there to go on from.
    begin = ["--finetune-from-model", stage.begins_as, "--save-dir", stage.folder]
    log = ["--log-file", f"{stage.folder}/{LOG}"]
    size = ["--max-source-positions", stage.positions, "--max-tokens", stage.max_tokens]
    rate = ["--lr", stage.learning_rate, "--warmup-updates", stage.warmup]
    save = ["--save-interval-updates", max(1, stage.updates // stage.saves)]
    length = [*save, "--total-num-update", stage.updates, "--max-update", stage.updates]
    model = ["fairseq-train", stage.data, *PLUGIN.split(), "--arch", "lsg_bart_base", *sizes]
    return [str(part) for part in [*model, *TRAINING, *stage.flags, *begin, *log, *size, *rate, *length]]


def binarize(runner: Stages, folder: str, facts: Facts) -> None:
    """Make a folder of binarized data, anew if it follows from something else: that takes a minute."""
    name, path = f"preprocess-{folder}", runner.folder / folder
    if is_made_from(path, facts):
        return
    make_room(path)
    TEXTS[folder].write(runner.folder)
    runner.forget(name)
    runner.run(name, None, *facts["command"])
    write_facts(path, facts)


def train(runner: Stages, stage: Stage, facts: Facts) -> None:
    """Train a stage, or go on with it."""
    name, path = f"train-{stage.name}", runner.folder / stage.folder
    if not (path / LAST).is_file():  # the folder was removed, or training never came as far
        runner.forget(name)
        write_facts(path, facts)
    runner.run(name, None, *facts["command"], resumes=True)


if __name__ == "__main__":
    sys.exit(main())
