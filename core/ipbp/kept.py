"""What was made of some content, kept for as long as the process lives and there is room: for speed, never as truth.

The key says all that the value depends on, as the hash of a content does.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import wraps
from typing import Any, Generic, TypeVar


def file_state(status: os.stat_result) -> tuple[int, ...]:
    """For a key: what tells a file from another one at its path, and from itself before something was written to it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Kept(Generic[_Key, _Value]):
    """Values by key, the ones that were used last. `most`: how large they may be together, in the unit of `put`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: OrderedDict[_Key, tuple[_Value, int]] = OrderedDict()
        self._size = 0

    def get(self, key: _Key) -> _Value | None:
        row = self._rows.get(key)
        if row is None:
            return None
        self._rows.move_to_end(key)
        return row[0]

    def put(self, key: _Key, value: _Value, size: int) -> _Value:
        """The value, which is kept; none that is larger than everything may be."""
        if key not in self._rows and size <= self._most:
            self._rows[key] = value, size
            self._size += size
            while self._size > self._most:
                _, (_, gone) = self._rows.popitem(last=False)
                self._size -= gone
        return value

    def replace(self, key: _Key, value: _Value, size: int) -> None:
        """Keep this value in the place of the one that the key has."""
        _, old = self._rows.pop(key, (None, 0))
        self._size -= old
        self.put(key, value, size)

    def clear(self) -> None:
        self._rows.clear()
        self._size = 0


def _itself(value: object) -> object:
    return value


def of_the_last(
    number: int, by: Callable[[Any], object] = _itself
) -> Callable[[Callable[[_Key], _Value]], Callable[[_Key], _Value]]:
    """For a function of one value that is never changed: what it said of the last few is not worked out again. Values
    are told apart by being the very same, or by what `by` takes of them being so."""

    def keeping(function: Callable[[_Key], _Value]) -> Callable[[_Key], _Value]:
        said: deque[tuple[object, _Value]] = deque(maxlen=number)

        @wraps(function)
        def asked(of: _Key) -> _Value:
            mark = by(of)
            for known, value in tuple(said):
                if known is mark:
                    return value
            found = function(of)
            said.append((mark, found))
            return found

        return asked

    return keeping
