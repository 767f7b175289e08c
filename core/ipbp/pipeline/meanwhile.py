"""What will be needed of the process and of new objects, read while compilers run: they take longer than that, and ipbp
only waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.compilers_time import next_start
from ipbp.build.dirty import Dirty
from ipbp.build.early_objects import changed_last
from ipbp.build.rustc_replay import is_optimised_crate
from ipbp.build.store import Store
from ipbp.formats.debug_types import types_of_graph
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.model import LinkGraph
from ipbp.members import listed
from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.loader import LIBGCC, LIBUNWIND
from ipbp.pipeline.old_side import recorded_side
from ipbp.pipeline.record import Record
from ipbp.pipeline.stored import graph_of_file, read_stored, together

_MANY = 8
"""Units; where more are compiled, that takes longer than reading them does."""
_PATIENCE = 0.05
"""Seconds in which a compiler is started, if any is. Until then nothing is read: two threads of Python's get in each
other's way, and the compiler comes first."""


class Meanwhile:
    """What is read in a thread. Where that fails it fails once more where it is asked for, with its reason.
    `ahead`: what was worked out so far."""

    def __init__(
        self, modules: Iterable[LoadedModule], process: LoadedProcess, record: Record, store: Store, pool: Executor
    ) -> None:
        self.ahead = Ahead()
        self._modules, self._process, self._record, self._store = tuple(modules), process, record, store
        self._pool, self._start = pool, next_start()
        self._images: Future[None] | None = None
        self._crate: Future[None] | None = None

    def images(self) -> None:
        """Begin to read the images of the modules, unless that was begun."""
        if self._images is None:
            self._pool.submit(self._start.wait, _PATIENCE)
            self._images = self._pool.submit(_read, self._modules, self._process)

    def hurry(self) -> None:
        """Wait for no compiler any more."""
        self._start.set()

    def units(self, module: LoadedModule, rows: Sequence[Dirty]) -> None:
        """Begin to read the objects of these units of the module that may run, and to prove those that were built."""
        self.images()
        known = self._record.units(module.key)
        for row in rows[:_MANY]:
            record = known.get(str(row.command.source))
            if row.old_object is not None:
                self._pool.submit(self._old, module, row.old_object)
            elif record is not None and record.object and record.members is None:
                self._pool.submit(self.ahead.recorded, record, partial(recorded_side, record, self._store))

    def _old(self, module: LoadedModule, old_object: Path) -> None:
        self.ahead.attest(graph_of_file(old_object), module.image, self._process.read)

    def crate(self, module: LoadedModule, row: CrateCommand, running: str, made: Mapping[str, str]) -> None:
        """Begin to read both sides of a crate of this module, `build.early_objects.Early`, as far as they differ. What
        was to be read of fewer of its objects, and was not begun yet, is left out. As long as fewer objects are there
        than the last edit changed, the new side waits for the others."""
        if self._crate is not None:
            self._crate.cancel()
        self._crate = self._pool.submit(self._sides, module, row, running, made)

    def _sides(self, module: LoadedModule, row: CrateCommand, running: str, made: Mapping[str, str]) -> None:
        record, store = self._record.units(module.key).get(row.source), self._store
        before = listed(store.get(running).read_bytes()) or {}
        # What is not among those that run may be no unit's at all.
        fresh = {name: digest for name, digest in made.items() if before.get(name, digest) != digest}
        if is_optimised_crate(row.arguments) or (record is not None and record.members is None):
            _each_by_itself(row.source, fresh, store)
            return
        expected = changed_last(row).intersection(before)
        is_whole = bool(fresh) and not fresh.keys() < expected
        members = (frozenset(fresh) if is_whole else expected).union(record.members or () if record else ())
        if not members:
            return
        old = read_stored(running, store, members=members)
        types_of_graph(old)
        if record is None:
            self.ahead.attest(old, module.image, self._process.read)
        after = {**before, **fresh}
        if not is_whole:
            _each_by_itself(row.source, fresh, store)
            return
        new = together(row.source, {name: after[name] for name in members if name in after}, store)
        types_of_graph(new)
        self.ahead.pair(old, new)
        _read_sides(new)


@contextlib.contextmanager
def read_meanwhile(
    modules: Iterable[LoadedModule], process: LoadedProcess, record: Record, store: Store
) -> Iterator[Meanwhile]:
    """What is begun inside is done when this ends; after an error only what is at work then."""
    pool = ThreadPoolExecutor(1)
    meanwhile = Meanwhile(modules, process, record, store, pool)
    try:
        yield meanwhile
    except BaseException:
        meanwhile.hurry()
        pool.shutdown(cancel_futures=True)
        raise
    meanwhile.hurry()
    pool.shutdown()


def _each_by_itself(source: str, objects: Mapping[str, str], store: Store) -> None:
    """Read objects of a crate, name -> digest, of which others are not there yet: what is read of one counts for all of
    them together."""
    for name, digest in objects.items():
        graph = together(source, {name: digest}, store)
        types_of_graph(graph)
        _read_sides(graph)


def _read_sides(graph: LinkGraph) -> None:
    for section in graph.side:
        _ = section.content  # its fixups are read with it


def _read(modules: Iterable[LoadedModule], process: LoadedProcess) -> None:
    for module in modules:
        scope = process.scope(module.key)
        _ = module.image.symbols.by_name
        for name in (*LIBGCC, *LIBUNWIND):
            scope.lookup(name)
