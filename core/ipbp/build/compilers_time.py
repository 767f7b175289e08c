"""How long compilers of the user's ran for the request that the engine is answering, which is not ipbp's time, and when
the first one was started.

Compilers run side by side, in threads, so moments are counted in which at least one of them ran. The engine answers one
request at a time, so there is one clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_waiting: list[threading.Event] = []
_running = 0
_since = 0.0
_seconds = 0.0


@contextmanager
def compiling() -> Iterator[None]:
    """A compiler runs inside the block."""
    global _running, _since, _seconds
    with _lock:
        if _running == 0:
            _since = time.perf_counter()
        _running += 1
        for event in _waiting:
            event.set()
        _waiting.clear()
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                _seconds += time.perf_counter() - _since


def taken_milliseconds() -> float:
    """Since this was asked the last time."""
    global _seconds
    with _lock:
        taken, _seconds = _seconds, 0.0
    return taken * 1000


def next_start() -> threading.Event:
    """Is set when a compiler runs: at once where one does already."""
    event = threading.Event()
    with _lock:
        if _running:
            event.set()
        else:
            _waiting.append(event)
    return event
