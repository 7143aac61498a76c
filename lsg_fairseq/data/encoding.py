"""Examples -> dictionary rows, in several processes and in order."""

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
    """Dictionary rows (int32) of an example; None where a text is missing or has no token.

    `query_length` says how many of the source's rows are its query, which comes first.
    """

    place: Place
    source: np.ndarray | None
    target: np.ndarray | None
    language: str = ""
    query_length: int = 0


class Encoder:
    """Examples -> dictionary rows, with a tokenizer of its own in each process."""

    def __init__(self, folder: str | Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        dictionary = build_dictionary(self.tokenizer)
        self.rows, self.eos = token_rows(self.tokenizer, dictionary), dictionary.eos()

    def encode(self, text: str | None, in_front: Sequence[int] = ()) -> np.ndarray | None:
        """(n + 1,) int32 rows of `in_front`, the text's tokens and `</s>`; None without a text or a token."""
        rows = self._rows_of(text)
        return np.array([*in_front, *rows, self.eos], dtype=np.int32) if rows else None

    def encode_example(self, example: Example) -> Encoded:
        """Both sides of an example."""
        query = self._rows_of(example.query)
        lead = [*query, *([self.eos] * len(SEPARATOR) if query else ())]
        source, target = self.encode(example.document, lead), self.encode(example.summary)
        return Encoded(example.place, source, target, example.language, len(query))

    def encode_all(self, examples: Iterable[Example]) -> list[Encoded]:
        """Both sides of several examples."""
        return [self.encode_example(example) for example in examples]

    def _rows_of(self, text: str | None) -> list[int]:
        return [self.rows[token] for token in self.tokenizer.encode(text)] if text and text.strip() else []


_worker_encoder: Encoder | None = None


def _start_worker(folder: str) -> None:
    """Each process reads the tokenizer once; Ctrl-C is the parent's business."""
    global _worker_encoder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _worker_encoder = Encoder(folder)


def _end_with_parent() -> None:
    """A parent that was killed can tell nobody to stop, and a worker would wait for its next task for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _encode_in_worker(examples: list[Example]) -> list[Encoded]:
    assert _worker_encoder is not None
    return _worker_encoder.encode_all(examples)


def encode_in_order(examples: Iterator[Example], folder: Path, workers: int) -> Iterator[Encoded]:
    """Encode in several processes; results in the order of the examples, at most two tasks a worker in flight.

    Raises:
        LSGError: a process died.
    """
    tasks = iter(lambda: list(islice(examples, EXAMPLES_PER_TASK)), [])
    if workers == 1:
        encoder = Encoder(folder)
        for task in tasks:
            yield from encoder.encode_all(task)
        return
    # Said in advance: after training, tokenizers would warn about it in every process.
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
    """How many tasks, and so at most how many processes, a number of examples makes."""
    return -(-examples // EXAMPLES_PER_TASK)
