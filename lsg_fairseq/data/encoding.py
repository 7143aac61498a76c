"""Examples -> dictionary indices, in several processes and in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lsg_fairseq.data.document_files import Example
from lsg_fairseq.data.signals import signals_held
from lsg_fairseq.data.split_files import SEPARATOR
from lsg_fairseq.data.text_lines import Place
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, load_tokenizer, token_rows

EXAMPLES_PER_TASK = 16


class Encoded(NamedTuple):
    """An example as dictionary indices (n,), int32; None for a text that is missing or has no tokens.

    `query_length` is the number of tokens of the query, with which the source begins.
    """

    place: Place
    source: np.ndarray | None
    target: np.ndarray | None
    language: str = ""
    query_length: int = 0


class Encoder:
    """Encodes examples with the tokenizer in a folder; each process has an Encoder of its own."""

    def __init__(self, folder: str | Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        dictionary = build_dictionary(self.tokenizer)
        self.rows, self.eos = token_rows(self.tokenizer, dictionary), dictionary.eos()

    def encode(self, text: str | None, in_front: Sequence[int] = ()) -> np.ndarray | None:
        """Indices (n,), int32, of `in_front`, the text's tokens and `</s>`; None if there is no text or no token."""
        rows = self._rows_of(text)
        return np.array([*in_front, *rows, self.eos], dtype=np.int32) if rows else None

    def encode_example(self, example: Example) -> Encoded:
        """Encode both sides of an example."""
        query = self._rows_of(example.query)
        lead = [*query, *([self.eos] * len(SEPARATOR) if query else ())]
        source, target = self.encode(example.document, lead), self.encode(example.summary)
        return Encoded(example.place, source, target, example.language, len(query))

    def encode_all(self, examples: Iterable[Example]) -> list[Encoded]:
        """Encode several examples."""
        return [self.encode_example(example) for example in examples]

    def _rows_of(self, text: str | None) -> list[int]:
        return [self.rows[token] for token in self.tokenizer.encode(text)] if text and text.strip() else []


_worker_encoder: Encoder | None = None


def _start_worker(folder: str) -> None:
    """Load the tokenizer once per process; only the parent handles Ctrl-C."""
    global _worker_encoder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _worker_encoder = Encoder(folder)


def _end_with_parent() -> None:
    """Exit when the parent is gone: a killed parent cannot stop its workers, which would wait for tasks for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _encode_in_worker(examples: list[Example]) -> list[Encoded]:
    assert _worker_encoder is not None
    return _worker_encoder.encode_all(examples)


def encode_in_order(examples: Iterator[Example], folder: Path, workers: int) -> Iterator[Encoded]:
    """Encode in `workers` processes and yield results in the order of the examples.

    At most two tasks per worker are in flight, so memory does not depend on the number of examples.

    Raises:
        LSGError: a process died.
    """
    tasks = iter(lambda: list(islice(examples, EXAMPLES_PER_TASK)), [])
    if workers == 1:
        encoder = Encoder(folder)
        for task in tasks:
            yield from encoder.encode_all(task)
        return
    # tokenizers would warn in every process that was forked after a tokenizer was trained.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    pending: deque[Future[list[Encoded]]] = deque()
    try:
        with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(str(folder),)) as pool:
            for task in tasks:
                with signals_held():
                    pending.append(pool.submit(_encode_in_worker, task))
                if len(pending) >= 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise LSGError("a worker process died, probably for lack of memory: try fewer --workers") from error


def task_count(examples: int) -> int:
    """The number of tasks for a number of examples: more processes than that would have nothing to do."""
    return -(-examples // EXAMPLES_PER_TASK)
