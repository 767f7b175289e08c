"""The objects of a crate that its compiler has written, while it still has other things to do.

rustc writes the object of a codegen unit as soon as that is generated, and then has work for some ten milliseconds
more: what it knows for the next time, the link. What will be asked of these objects can be prepared in that time.
Nothing is decided by it. Objects are named by their content here, and count only when the compiler has ended well and
these are what it left. Which objects an edit changes is often what the last one changed; so of these the side that runs
can be prepared even before.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.codegen_units import OBJECT, unit_name
from ipbp.build.store import Store
from ipbp.errors import IpbpError
from ipbp.kept import Kept

Early = Callable[[CrateCommand, str, Mapping[str, str]], None]
"""Is told, from a thread: a crate, the digest of the list of its objects that run, and of the new ones
that are there by now name -> digest. All of these are in the store. At first, when it is known what to expect, of
none."""
_changed: Kept[tuple[str, str], frozenset[str]] = Kept(64)
"""Of the last 64 crates, by their root modules and stems, the names of the units that the last edit changed. A crate
that is built with other features has another stem, and units of other names."""
_MOST = 16
"""Objects. Where more of them are new, the time until the compiler's end is soon used up."""
_PAUSE = 0.003
_SHARE = 25
"""Seconds between two looks, and how many times the processor time of a look that is at least, without what is made of
what was seen."""


def changed_last(row: CrateCommand) -> frozenset[str]:
    """Names of the units of the crate that its last edit changed; none when that is not known."""
    return _changed.get((row.source, row.stem)) or frozenset()


def remember_changed(row: CrateCommand, names: frozenset[str]) -> None:
    _changed.replace((row.source, row.stem), names, 1)


@contextlib.contextmanager
def seen_early(
    row: CrateCommand, folder: Path, store: Store, running: Callable[[Collection[str]], str], early: Early
) -> Iterator[None]:
    """Inside, `early` is told what the crate's compiler writes into `folder`. `running`: the list of the objects that
    run, "" when it is not known, of the crate that has units of these names."""
    ended = threading.Event()
    looking = threading.Thread(target=_look, args=(row, folder, store, running, early, ended), daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


def _look(
    row: CrateCommand,
    folder: Path,
    store: Store,
    running: Callable[[Collection[str]], str],
    early: Early,
    ended: threading.Event,
) -> None:
    began = time.time_ns() - 10**9  # what is older is a link to what the last compile made; the clocks may differ
    sizes: dict[str, int] = {}
    found: dict[str, str] = {}
    pause = _PAUSE
    expected = changed_last(row)
    if expected and not ended.wait(pause):  # the compiler comes first
        with contextlib.suppress(OSError, IpbpError):
            if old := running(expected):
                early(row, old, {})
    while not ended.wait(pause) and len(found) <= _MOST:
        start = time.thread_time()
        with contextlib.suppress(OSError, IpbpError):  # it is gone again; the compiler's end will tell what there is
            written = _written(folder, row, sizes, began)
            pause = max(_PAUSE, (time.thread_time() - start) * _SHARE)
            found.update((name, store.put(path)) for path, name in written)
            if written and (old := running(found)):
                early(row, old, dict(found))


def _written(folder: Path, row: CrateCommand, sizes: dict[str, int], began: int) -> list[tuple[Path, str]]:
    """The objects that are new since the last look, each when its size has stayed the same for one, with the names of
    their units."""
    found = []
    for entry in list(os.scandir(folder)):
        known = sizes.get(entry.name, 0)
        if known < 0 or not entry.name.startswith(f"{row.stem}.") or not entry.name.endswith(OBJECT):
            continue
        status = entry.stat()
        is_settled = 0 < status.st_size == known
        is_old = status.st_mtime_ns < began
        sizes[entry.name] = -1 if is_settled or is_old else status.st_size
        if is_settled and not is_old:
            found.append((Path(entry.path), unit_name(entry.name, row)))
    return found
