"""All images of a process and what a name means among them.

The order of search is the dynamic loader's (gABI, "Shared Object Dependencies"; ld.so(8)): the executable, preloaded
libraries, then the needed ones breadth first, as the link map has them; libraries that were loaded later (dlopen)
come last. Of a library only the dynamic tables are read, and only until the name is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ipbp.errors import IpbpError
from ipbp.formats.elf_dynamic import R_GLOB_DAT, R_IRELATIVE, R_JUMP_SLOT, DynamicTables, read_dynamic
from ipbp.formats.elf_image import build_image
from ipbp.formats.elf_link_map import LinkMap, link_maps
from ipbp.formats.elf_linked import PF_X, LinkedFile
from ipbp.formats.elf_mapped import VDSO, MappedFile, bias_of, mapped_files, open_mapped
from ipbp.formats.elf_plt import plt_ranges
from ipbp.graph.image import Found, LoadedImage, MemoryReader
from ipbp.graph.model import SymbolType
from ipbp.protocol import Region

_STT_FUNC, _STT_TLS, _STT_IFUNC = 2, 6, 10


@dataclass(frozen=True)
class LoadedModule:
    """One file of the process; everything about it is read when it is first asked for."""

    pid: int
    mapped: MappedFile
    read: MemoryReader

    @cached_property
    def _opened(self) -> tuple[LinkedFile, str, int]:
        return open_mapped(self.pid, self.mapped, self.read)

    @property
    def file(self) -> LinkedFile:
        return self._opened[0]

    @cached_property
    def bias(self) -> int:
        return bias_of(self.file, self.mapped)

    @cached_property
    def dynamic(self) -> DynamicTables:
        return read_dynamic(self.file, self._opened[2])

    @cached_property
    def image(self) -> LoadedImage:
        return build_image(self.file, self.dynamic, self.bias, self._opened[1])

    def is_code(self, address: int) -> bool:
        """Whether an executable segment holds this load address, linker-made stubs left out."""
        link = address - self.bias
        inside = any(row.flags & PF_X and row.address <= link < row.address + row.size for row in self.file.loads())
        return inside and not any(start <= link < end for start, end in plt_ranges(self.file))


@dataclass(frozen=True)
class LoadedProcess:
    """`modules` in the order of search, the executable first. `is_linked`: the dynamic loader has made its list;
    before that the libraries are at best mapped and no pointer cell is filled."""

    modules: tuple[LoadedModule, ...]
    is_linked: bool
    read: MemoryReader

    def executable_image(self) -> LoadedImage:
        return self.modules[0].image

    def images(self) -> Iterator[LoadedImage]:
        """One after the other, each read when it is reached."""
        return (module.image for module in self.modules)

    def lookup(self, name: str) -> Found | None:
        """What a reference to `name` from a newly linked object would bind to; None when nothing exports it."""
        main = self.modules[0]
        own = _canonical(main, name)
        if own is not None:
            return own
        for module in self.modules:
            row = module.dynamic.definition(name)
            if row is not None:
                return self._found(module, name, row)
        return None

    def _found(self, module: LoadedModule, name: str, row: int) -> Found | None:
        symbols = module.dynamic.symbols
        type_, address, size = int(symbols.type[row]), int(symbols.value[row]) + module.bias, int(symbols.size[row])
        path = module.mapped.path
        if type_ == _STT_TLS:
            return Found(module.image.tls_start + int(symbols.value[row]), size, False, False, path, True)
        if type_ != _STT_IFUNC:
            is_function = type_ == _STT_FUNC or (type_ == SymbolType.NONE and module.is_code(address))
            return Found(address, size, is_function, False, path)
        chosen = self._chosen(module, name, row, address)
        return Found(chosen or address, size, True, chosen is None, path)

    def _chosen(self, module: LoadedModule, name: str, row: int, resolver: int) -> int | None:
        """The implementation that the loader has put into some cell for this indirect function."""
        if not self.is_linked:
            return None
        version = module.dynamic.version(row)
        for user in (module, *(other for other in self.modules if other is not module)):
            cells = _cells(user, name, version)
            if user is module:
                cells += _resolver_cells(module, resolver)
            for content in self.read([(cell, 8) for cell in cells]) if cells else ():
                value = int.from_bytes(content or b"", "little")
                if value != resolver and module.is_code(value):
                    return value
        return None


def read_process(pid: int, regions: Sequence[Region], executable: str, read: MemoryReader) -> LoadedProcess:
    """The images of a process. `executable` is the path that its debugger knows it by, `regions` its memory map.

    Errors: `image-unreadable` when the executable is not among the mapped files or cannot be opened;
    `image-malformed`, `image-wrong-architecture`.
    """
    files = mapped_files(regions, read)
    modules = [LoadedModule(pid, file, read) for file in files]
    main = _main(modules, executable)
    maps = link_maps(main.file, main.bias, read)
    order = _by_link_map(modules, maps) if maps else []
    rest = [module for module in modules if module is not main and module not in order]
    ordered = [main, *(module for module in order if module is not main), *rest]
    scope = _scope(ordered) if maps else ordered
    return LoadedProcess(tuple(scope), bool(maps), read)


def _main(modules: Sequence[LoadedModule], executable: str) -> LoadedModule:
    """The executable among the mapped files: /proc/PID/exe's inode, else the debugger's path, else the file with
    its base name."""
    for way in (_is_exe, _has_path, _has_name):
        for module in modules:
            if module.mapped.path != VDSO and way(module, executable):
                return module
    raise IpbpError(
        "image-unreadable",
        f"{executable} is not among the files that the process has mapped",
        "Start or attach to the program that is to be patched.",
    )


def _is_exe(module: LoadedModule, executable: str) -> bool:
    opened = module._opened[1] if module.mapped.inode and module.mapped.path.startswith("/") else ""
    return opened.startswith(f"/proc/{module.pid}/") and opened.endswith("/exe")


def _has_path(module: LoadedModule, executable: str) -> bool:
    return module.mapped.path == executable


def _has_name(module: LoadedModule, executable: str) -> bool:
    return module.mapped.path.rsplit("/", 1)[-1] == executable.rsplit("/", 1)[-1]


def _by_link_map(modules: Sequence[LoadedModule], maps: Sequence[LinkMap]) -> list[LoadedModule]:
    """The modules in the loader's order, found by where their dynamic section is."""
    found = []
    for row in maps:
        holder = next((module for module in modules if module.mapped.holds(row.dynamic)), None)
        if holder is not None and holder not in found:
            found.append(holder)
    return found


def _scope(modules: Sequence[LoadedModule]) -> list[LoadedModule]:
    """The global scope first: what stands before the first needed library was preloaded, and what nobody in that
    closure needs was loaded later. The vdso exports nothing to the program."""
    main, rest = modules[0], [module for module in modules[1:] if module.mapped.path != VDSO]
    by_name = {_soname(module): module for module in reversed(rest)}
    closure, waiting = [main], [main]
    first_needed = next((i for i, module in enumerate(rest) if _soname(module) in main.dynamic.needed), 0)
    preloaded = rest[:first_needed]
    waiting += preloaded
    closure += preloaded
    while waiting:
        for name in waiting.pop(0).dynamic.needed:
            module = by_name.get(name)
            if module is not None and module not in closure:
                closure.append(module)
                waiting.append(module)
    ordered = [module for module in modules if module in closure]
    return [*ordered, *(module for module in modules if module not in closure)]


def _soname(module: LoadedModule) -> str:
    return module.dynamic.soname or module.mapped.path.rsplit("/", 1)[-1]


def _canonical(main: LoadedModule, name: str) -> Found | None:
    """In a fixed executable that takes a library function's address, its stub is that function's address for the
    whole process: an undefined dynamic symbol with a value (psABI, "Function Addresses")."""
    symbols = main.dynamic.symbols
    for row in main.dynamic.rows.get(name, ()):
        if symbols.section[row] == 0 and symbols.value[row] != 0 and symbols.type[row] in (_STT_FUNC, _STT_IFUNC):
            return Found(int(symbols.value[row]) + main.bias, 0, True, False, main.mapped.path)
    return None


def _cells(user: LoadedModule, name: str, version: str) -> list[int]:
    """Load addresses of the pointer cells that `user` has for this name in this version."""
    tables = user.dynamic
    rows = [row for row in tables.rows.get(name, ()) if tables.version(row) in ("", version) or not version]
    if not rows:
        return []
    relocations = tables.relocations
    wanted = np.isin(relocations.type, (R_GLOB_DAT, R_JUMP_SLOT)) & np.isin(relocations.symbol, rows)
    return [int(cell) + user.bias for cell in relocations.offset[wanted]]


def _resolver_cells(module: LoadedModule, resolver: int) -> list[int]:
    relocations = module.dynamic.relocations
    wanted = (relocations.type == R_IRELATIVE) & (relocations.addend == resolver - module.bias)
    return [int(cell) + module.bias for cell in relocations.offset[wanted]]
