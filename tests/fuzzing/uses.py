"""How inputs are used: the lsg-* commands, torch.hub's calls and fairseq's commands, inside a forked child."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lsg_fairseq import compat
from lsg_fairseq.commands import average, convert, export, plan, preprocess, summarize
from lsg_fairseq.modules.lsg_config import LSGError

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN = REPOSITORY / "lsg_fairseq"
COMMANDS = {
    "average": average.main,
    "convert": convert.main,
    "export": export.main,
    "plan": plan.main,
    "preprocess": preprocess.main,
    "summarize": summarize.main,
}
TASK = ["--user-dir", PLUGIN, "--task", "lsg_summarization", "--cpu", "--num-workers", "0"]
FAST = ["--max-len-b", "3", "--beam", "1", "--quiet"]
ALONE = ["--max-len-b", "3", "--beam", "1"]
SEARCH = [*ALONE, "--batch-size", "4"]
TINY = (
    "--arch lsg_bart_small --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32".split()
)
TINY += "--encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64 --max-source-positions 1024".split()
TINY += "--lsg-block-size 16 --lsg-sparse-block-size 16 --optimizer adam --lr 1e-3 --batch-size 4".split()
TINY += ["--no-progress-bar"]


def command(name: str, *arguments: object) -> Callable[[], int]:
    """A call of an lsg-* command."""
    return lambda: COMMANDS[name]([str(argument) for argument in arguments])


def hub_load(entry: str, **settings: Any) -> Any:
    """torch.hub.load of this repository."""
    return torch.hub.load(str(REPOSITORY), entry, source="local", trust_repo=True, **settings)


def hub_call(work: Callable[[], object]) -> Callable[[], int]:
    """A call of the hub, whose LSGError is its sentence."""

    def call() -> int:
        try:
            print(f"gave: {work()!r:.300}")
        except LSGError as error:
            print(f"hub: error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        return 0

    return call


def fairseq(name: str, *arguments: object, stdin: Path | None = None) -> Callable[[], int]:
    """A call of one of fairseq's commands, as its script does it."""

    def call() -> int:
        import importlib
        import logging

        module = importlib.import_module(f"fairseq_cli.{name}")
        sys.argv = [f"fairseq-{name}", *map(str, arguments)]
        logging.basicConfig(level="INFO", stream=sys.stdout, force=True)
        for fix in compat.FIXES:
            if fix.name == "one_line_errors" and fix.needed():
                fix.apply()
        if stdin is not None:
            sys.stdin = stdin.open(encoding="utf-8", errors="replace")
        module.cli_main()
        return 0

    return call


# --- what a run gave -------------------------------------------------------------------------------------------------


def printed_lines(printed: str) -> str:
    """What was printed, without warnings, paths and times."""
    return "\n".join(line for line in printed.splitlines() if not re.search(r"warning|/|lsg-\w+:", line))


def hypotheses(printed: str) -> str:
    """fairseq-generate's hypotheses and their scores."""
    return "\n".join(sorted(re.findall(r"^[HD]-\d+.*$", printed, re.MULTILINE)))


def content_of(path: Path) -> Callable[[str], str]:
    """The content of a file or folder, as a hash."""

    def content(_: str) -> str:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return str([(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files if p.is_file()])

    return content
