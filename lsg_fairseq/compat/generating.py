"""Generating: checkpoints that the task knows, positions in the batch, limits of length, and documents a line each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

# --- load_model_ensemble: a task cannot find the files beside the checkpoint that it generates with.


@patches(checkpoint_utils, "load_model_ensemble")
def tell_task_its_checkpoints(upstream: Callable[..., Any], filenames: Any, *args: Any, **kwargs: Any) -> Any:
    task = kwargs.get("task", args[1] if len(args) > 1 else None)
    if hasattr(task, "checkpoint_paths"):
        task.checkpoint_paths = tuple(filenames)
    return upstream(filenames, *args, **kwargs)


# --- a search is promised positions in the batch and gets the data set's ids (--diverse-beam-groups: IndexError).


@patches(SequenceGenerator, "_generate")
def give_searches_positions(
    upstream: Callable[..., Any], generator: SequenceGenerator, sample: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    first = next(value for value in sample["net_input"].values() if isinstance(value, Tensor))
    sample = {**sample, "id": torch.arange(len(first), device=first.device)}
    return upstream(generator, sample, *args, **kwargs)


# --- --match-source-len asks a decoder for as many tokens as the source has, and it may have fewer positions.


@patches(SequenceGenerator, "_generate")
def limit_matched_length(
    upstream: Callable[..., Any], generator: SequenceGenerator, sample: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    net_input = sample["net_input"]
    if generator.match_source_len and "src_lengths" in net_input:
        lengths = net_input["src_lengths"].clamp(max=generator.max_len - 1)
        sample = {**sample, "net_input": {**net_input, "src_lengths": lengths}}
    return upstream(generator, sample, *args, **kwargs)


# --- Python's text files end a line at a lone carriage return, too, which tears a document in two.

INTERACTIVE = "fairseq-interactive"
# The module of the command, as it is installed or run.
MODULES = ("fairseq_cli.interactive", "__main__")


def carriage_returns_end_documents() -> bool:
    module = _command()
    return module is not None and module.buffered_read is not buffered_read


def end_documents_at_line_feeds() -> None:
    _command().buffered_read = buffered_read


def buffered_read(input: str, buffer_size: int) -> Iterator[list[str]]:
    """The lines of a UTF-8 file, or of standard input ("-"), stripped, up to `buffer_size` at a time.

    Raises:
        LSGError: one is not UTF-8.
    """
    buffer: list[str] = []
    with nullcontext(sys.stdin.buffer) if input == "-" else Path(input).open("rb") as file:
        for number, line in enumerate(file, start=1):
            buffer.append(_text_of(line, f"{'standard input' if input == '-' else input}, line {number}"))
            if len(buffer) >= buffer_size:
                yield buffer
                buffer = []
    if buffer:
        yield buffer


def _text_of(line: bytes, where: str) -> str:
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise LSGError(f"{where}, is not UTF-8 text (byte {error.start + 1} of the line): save it as UTF-8") from error


def _command() -> ModuleType | None:
    if Path(sys.argv[0]).name != INTERACTIVE:
        return None
    return next((m for name in MODULES if hasattr(m := sys.modules.get(name), "buffered_read")), None)
