"""Memory that is read each time in the same places, asked for all at once.

What the loader keeps of a process is lists of pointers: each place is known when the one before it was read, and each
reading is a question to the debugger. The places of the last time are nearly always those of this time. So they are
read together first, anew each time, and what is asked for then is among them; what is not is asked for by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipbp.graph.image import MemoryReader
from ipbp.kept import Kept

_Range = tuple[int, int]
_places: Kept[object, tuple[_Range, ...]] = Kept(16)
"""Of the last 16 processes, the places that were read last."""


class Foreseen:
    """A `MemoryReader` for one reading of the lists of a process, which `key` names. `done` when it is over: the next
    one begins with these places."""

    def __init__(self, key: object, read: MemoryReader) -> None:
        self._key, self._read = key, read
        self._found: dict[_Range, bytes] | None = None
        self._asked: dict[_Range, None] = {}

    def __call__(self, ranges: Sequence[_Range]) -> list[bytes | None]:
        wanted = list(ranges)
        self._asked.update(dict.fromkeys(wanted))
        if self._found is None:
            known = [row for row in _places.get(self._key) or () if row not in self._asked]
            together = [*wanted, *known]
            pairs = zip(together, self._read(together), strict=True)
            self._found = {row: content for row, content in pairs if content is not None}
            return [self._found.get(row) for row in wanted]
        missing = [row for row in dict.fromkeys(wanted) if row not in self._found]
        fresh = dict(zip(missing, self._read(missing), strict=True)) if missing else {}
        return [self._found[row] if row in self._found else fresh[row] for row in wanted]

    def done(self) -> None:
        """Remember the places."""
        _places.replace(self._key, tuple(self._asked), 1)
