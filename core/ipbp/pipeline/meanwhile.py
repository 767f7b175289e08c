"""What will be needed of the process, read while compilers run: they take longer than that, and ipbp only waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ipbp.build.compile import Tell
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.pipeline.loader import LIBGCC, LIBUNWIND


@contextlib.contextmanager
def read_meanwhile(modules: Iterable[LoadedModule], process: LoadedProcess, tell: Tell) -> Iterator[Tell]:
    """Another `tell`, whose first word, that a compiler is started, begins to read the images of these modules in a
    thread. They are read when this ends. What fails there fails once more where it is asked for, with its reason."""
    reading: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:

        def told(line: str) -> None:
            if not reading:
                reading.append(pool.submit(_read, list(modules), process))
            tell(line)

        yield told


def _read(modules: Iterable[LoadedModule], process: LoadedProcess) -> None:
    for module in modules:
        scope = process.scope(module.key)
        _ = module.image.symbols.by_name
        for name in (*LIBGCC, *LIBUNWIND):
            scope.lookup(name)
