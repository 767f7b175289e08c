"""gdb's settings and selection, changed for a moment and put back whatever happens.

What the user has set, and which thread and frame they are looking at, is theirs: after a `hotpatch` all of it is as
before.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import Iterator, Union

import gdb

Value = Union[str, bool, int, None]


@contextmanager
def changed(**settings: str) -> Iterator[None]:
    """Settings by name, `_` for `-`: `changed(scheduler_locking="on")`."""
    before: list[tuple[str, Value]] = []
    try:
        for key, value in settings.items():
            name = key.replace("_", "-")
            before.append((name, gdb.parameter(name)))
            put(name, value)
        yield
    finally:
        for name, old in reversed(before):
            put(name, old)


def put(name: str, value: Value) -> None:
    """Set one setting; `value` also as gdb.parameter gives it."""
    if isinstance(value, bool):
        value = "on" if value else "off"
    elif value is None:
        value = "unlimited"
    tell(f"set {name} {value}")


def tell(line: str) -> str:
    """What a command of ours would print. It is quiet in a terminal: after each command gdb (13) looks at what it
    stopped for last, and warns when a breakpoint there has other locations since."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        return str(gdb.execute(line, to_string=True))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def quoted(word: str) -> str:
    """One word for gdb's argument splitter, which knows quotes and backslashes."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextmanager
def kept_selection() -> Iterator[None]:
    """Afterwards the thread and the frame that are selected now are selected again, where they still exist."""
    thread = gdb.selected_thread()
    frame = None
    if thread is not None and not thread.is_running():
        frame = gdb.selected_frame()
    try:
        with kept_thread():
            yield
    finally:
        if gdb.selected_thread() == thread and frame is not None and frame.is_valid() and gdb.selected_frame() != frame:
            frame.select()


@contextmanager
def kept_thread() -> Iterator[None]:
    """Afterwards the thread that is selected now is selected again, where it still exists."""
    thread = gdb.selected_thread()
    try:
        yield
    finally:
        if thread is not None and thread.is_valid() and not thread.is_exited() and gdb.selected_thread() != thread:
            thread.switch()


@contextmanager
def breakpoints_off() -> Iterator[None]:
    """None of the user's breakpoints is hit: not a stop, not its condition, its count or its commands."""
    kinds = (gdb.BP_BREAKPOINT, gdb.BP_HARDWARE_BREAKPOINT)
    points = [point for point in gdb.breakpoints() if point.enabled and point.type in kinds]
    try:
        for point in points:
            point.enabled = False
        yield
    finally:
        for point in points:
            if point.is_valid():
                point.enabled = True


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until this is over: it would arrive as an exception between any two statements."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def with_interrupts() -> Iterator[None]:
    """Inside `without_interrupts`: what may take for ever can be interrupted after all."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(thread: threading.Thread) -> None:
    """gdb waits for its signals itself: none may go to another thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
