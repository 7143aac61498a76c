"""Ctrl-C and a polite kill: an exception that says which, and a way to make them wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal that asks for the end; `done` says what was complete when it came, "" if nothing that matters."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.done = number, ""


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block ends; they are raised then.

    A signal mask would not do, as any thread of a library can take the signal for the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread runs handlers, or may set them
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
