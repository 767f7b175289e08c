"""Which rows of a table have a name: a sorted column of hashes beside the names, instead of a dictionary.

A large program has several hundred thousand symbols. Hashing and sorting them as columns takes a fraction of what a
dictionary would, and two columns can be kept in a file and mapped again. The hash finds rows, their bytes decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ipbp.graph.columns import I64, U64
from ipbp.graph.names import Names
from ipbp.graph.rows import hash_of, hashes, ragged, unequal


class NameIndex(Mapping[str, Sequence[int]]):
    """Name -> its rows, ascending. `columns`: the sorted hashes and their rows, as `columns()` of an index of the same
    names gave them. `before`: the names in the order in which they lie in memory, and the row there of each; they are
    hashed in that order, which takes half the time."""

    def __init__(
        self, names: Names, columns: tuple[U64, I64] | None = None, before: tuple[Names, I64] | None = None
    ) -> None:
        self._names = names
        self._columns = columns
        self._before = before

    def columns(self) -> tuple[U64, I64]:
        """The hashes of all names, ascending, and the row of each."""
        if self._columns is None:
            every = hashes(self._names.rows) if self._before is None else self._hashed_before(*self._before)
            order = np.argsort(every)
            self._columns = every[order], order
        return self._columns

    def _hashed_before(self, names: Names, row: I64) -> U64:
        self._before = None
        return hashes(names.rows)[row]

    def __getitem__(self, name: str) -> Sequence[int]:
        found = self._rows(name)
        if not found:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._rows(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._names))

    def __len__(self) -> int:
        return len(dict.fromkeys(self._names))

    def _rows(self, name: str) -> list[int]:
        text = name.encode("utf-8", "surrogateescape")
        hashed, row = self.columns()
        wanted = np.uint64(hash_of(text))
        first = int(hashed.searchsorted(wanted))
        found = []
        while first < len(hashed) and hashed[first] == wanted:
            if self._names.rows.of(int(row[first])) == text:
                found.append(int(row[first]))
            first += 1
        return sorted(found)

    def pairs(self, wanted: Names) -> tuple[I64, I64]:
        """(row of `wanted`, row of the table) for all that have one name, both ascending."""
        hashed, row = self.columns()
        values = hashes(wanted.rows)
        first = np.searchsorted(hashed, values)
        some = np.flatnonzero(
            hashed[np.minimum(first, max(len(hashed) - 1, 0))] == values if len(hashed) else values[:0]
        )
        last = np.searchsorted(hashed, values[some], side="right")
        owner, within = ragged(last - first[some])
        one, other = some[owner], row[first[some][owner] + within].astype(np.int64)
        same = self._names.rows.length[other] == wanted.rows.length[one]
        one, other = one[same], other[same]
        equal = ~unequal(self._names.rows.take(other), wanted.rows.take(one))
        one, other = one[equal], other[equal]
        order = np.lexsort((other, one))
        return one[order], other[order]
