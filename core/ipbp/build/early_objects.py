"""The objects of a crate that its compiler has written, while it still has other things to do.

rustc writes the object of a codegen unit as soon as that is generated, and then has work for some ten milliseconds
more: what it knows for the next time, the link. What will be asked of these objects can be prepared in that time.
Nothing is decided by it. Objects are named by their content here, and count only when the compiler has ended well and
these are what it left. Which objects an edit changes is often what the last one changed; so of these the side that runs
can be prepared even before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.codegen_units import OBJECT, unit_name
from ipbp.build.store import Store
from ipbp.errors import IpbpError
from ipbp.kept import Kept
from ipbp.members import listed

Early = Callable[[CrateCommand, str, Mapping[str, str]], None]
"""Is told: a crate, the digest of the list of its objects that run, and of the new ones that are there by now
name -> digest. All of these are in the store. At first, when it is known what to expect, of none."""
_changed: Kept[tuple[str, str], frozenset[str]] = Kept(64)
"""Of the last 64 crates, by their root modules and stems, the names of the units that the last edit changed. A crate
that is built with other features has another stem, and units of other names."""
_MOST = 16
"""Objects. Where more of them are new, the time until the compiler's end is soon used up."""


def changed_last(row: CrateCommand) -> frozenset[str]:
    """Names of the units of the crate that its last edit changed; none when that is not known."""
    return _changed.get((row.source, row.stem)) or frozenset()


def remember_changed(row: CrateCommand, names: frozenset[str]) -> None:
    _changed.replace((row.source, row.stem), names, 1)


class EarlyObjects:
    """What a crate's compiler writes, of which `early` is told. `running`: the list of the objects that run, "" when it
    is not known, of the crate that has units of these names."""

    def __init__(
        self, row: CrateCommand, store: Store, running: Callable[[Collection[str]], str], early: Early
    ) -> None:
        self._row, self._store, self._running, self._early = row, store, running, early
        self._found: dict[str, str] = {}
        self.there = frozenset[str]()
        """Digests of the objects that run, as far as they were found in the store meanwhile."""

    def expected(self) -> None:
        """Tell of the side that runs, where it is known which objects to expect."""
        names = changed_last(self._row)
        with contextlib.suppress(OSError, IpbpError):  # the compiler's end will tell
            if names and (old := self._running(names)):
                self._early(self._row, old, {})
                running = listed(self._store.get(old).read_bytes()) or {}
                self.there = frozenset(filter(self._store.keep, running.values()))

    def written(self, paths: Iterable[Path]) -> None:
        """Tell of the new objects among these files, which are whole. What is a link to an object of the last compile
        is not written, and not among them."""
        found = dict(self._found)
        with contextlib.suppress(OSError, IpbpError):  # it is gone again; the compiler's end will tell what there is
            for path in paths:
                is_object = path.name.startswith(f"{self._row.stem}.") and path.name.endswith(OBJECT)
                if is_object and len(found) < _MOST and path.stat().st_size:
                    found[unit_name(path.name, self._row.stem)] = self._store.put(path)
            if found != self._found and (old := self._running(found)):
                self._early(self._row, old, found)
        self._found = found
