"""SIGINT (Ctrl-C) and SIGTERM: the exception that they raise, and a block that delays them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A stop signal was received; `done` says what was complete by then ("": nothing)."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.done = number, ""


@contextmanager
def signals_held() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block.

    A signal mask is not enough: a thread of a library can receive the signal, and Python then handles it in the main
    thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread runs handlers and may set them
        return
    received: list[int] = []
    handlers = {number: signal.signal(number, lambda n, _: received.append(n)) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)
