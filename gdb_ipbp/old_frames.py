"""Frames of old code are marked in gdb's backtraces.

A frame filter (GDB manual, "Frame Filter API") shows what a backtrace prints; ours is there only while some thread is
in old code, so that backtraces are gdb's own otherwise.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Sequence

import gdb
from gdb.FrameDecorator import FrameDecorator

from ipbp.host.inferior import OldCode

_NAME = "ipbp"


def mark(code: Sequence[OldCode]) -> None:
    """From now on frames in this code are marked, and no others."""
    gdb.frame_filters.pop(_NAME, None)
    if code:
        gdb.frame_filters[_NAME] = _Filter(code)


class _Filter:
    """As gdb wants it."""

    name = _NAME
    priority = 0
    enabled = True

    def __init__(self, code: Sequence[OldCode]) -> None:
        self._code = code

    def filter(self, frames: Iterable[FrameDecorator]) -> Iterator[FrameDecorator]:
        return (_Marked(frame, self._code) for frame in frames)


class _Marked(FrameDecorator):  # type: ignore[misc]
    """The frame, its function's name with what is to be said of it."""

    def __init__(self, frame: FrameDecorator, code: Sequence[OldCode]) -> None:
        super().__init__(frame)
        self._code = code

    def function(self) -> object:
        name, frame = super().function(), self.inferior_frame()
        if name == str(frame.function()):
            name = frame.name()  # without the types of C++'s arguments, as gdb shows it
        for row in self._code:
            if row.start <= frame.pc() < row.end and isinstance(name, str):
                return f"{name} [{row.text}]"
        return name
