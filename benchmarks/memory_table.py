"""The table of memory in docs/training.md, from the commands that stand there: `python -m benchmarks.memory_table`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lsg_fairseq.planning.memory import GRADIENTS, WORK, most_rows, plan, standing
from lsg_fairseq.planning.report import GIB, Room
from lsg_fairseq.planning.setup import Machine, parse_flags, read_setup

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
SECTION = "## Large models on 1, 8 and 2 x 8 GPUs"
CARD = Room(total=80e9 / GIB, reserve=2.0)
NAMES = {"bart-4096": "LSG-BART-large, 4,096", "bart-16384": "LSG-BART-large, 16,384"}
NAMES["pegasus-4096"] = "LSG-Pegasus-large, 4,096"
HEAD = (
    "| recipe | checkpointed | standing | gradients | kept | temporary | 1 GPU | 8 or 16 GPUs | fit |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|--:|"
)
# What the shell would run, printed instead: words end with a zero byte, commands with two.
STUBS = r"""
print_words() { printf '%s\0' "$@"; printf '\0'; }
fairseq-train() { print_words fairseq-train "$@"; }
torchrun() { print_words torchrun "$@"; }
which() { echo "$1"; }
NODE=0 FIRST=10.0.0.1
"""


def main() -> None:
    """Print the table."""
    print(memory_table(PAGE.read_text()))


def training_commands(page: str) -> list[tuple[int, list[str]]]:
    """The section's trainings: number of processes and fairseq-train's words, as bash reads them."""
    section = page.split(SECTION)[1].split("\n## ")[0]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]
    done = subprocess.run(["bash", "-euc", STUBS + block], capture_output=True, text=True, check=True)
    commands = [words.split("\0") for words in done.stdout.removesuffix("\0\0").split("\0\0")]
    return [(_processes(words), words[words.index("fairseq-train") + 1 :]) for words in commands]


def _processes(words: list[str]) -> int:
    flags = dict(word.removeprefix("--").split("=") for word in words if re.match(r"--n(nodes|proc_per_node)=", word))
    return int(flags.get("nnodes", 1)) * int(flags.get("nproc_per_node", 1))


def memory_table(page: str) -> str:
    """A row for each recipe without and with activation checkpointing, GiB."""
    recipes: dict[str, dict[int, list[str]]] = {}
    for processes, words in training_commands(page):
        name = words[words.index("--restore-file") + 1].partition("/")[0]
        recipes.setdefault(name, {})[processes] = words
    return "\n".join([HEAD, *(row for name, commands in recipes.items() for row in _rows(NAMES[name], commands))])


def _rows(name: str, commands: dict[int, list[str]]) -> Iterator[str]:
    setup = read_setup(parse_flags(commands[1]), Machine())
    for checkpoints in (False, True):
        alone = replace(setup, model=replace(setup.model, checkpoints=checkpoints))
        planned, stands = plan(alone), sum(standing(alone).values())
        kept = planned.peak - stands - planned.parts[GRADIENTS] - planned.parts[WORK]
        # DDP's buckets are as large on 8 as on 16.
        peaks = {f"{plan(replace(alone, world_size=n)).peak / GIB:.1f}" for n in commands if n > 1}
        sizes = (stands, planned.parts[GRADIENTS], kept, planned.parts[WORK], planned.peak)
        figures = " | ".join(f"{size / GIB:.1f}" for size in sizes)
        fit = most_rows(alone, CARD.usable)
        yield f"| {name} | {'yes' if checkpoints else 'no'} | {figures} | {' / '.join(sorted(peaks))} | {fit} |"


if __name__ == "__main__":
    main()
