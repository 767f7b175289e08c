"""All images of a process and what a name means from inside each of them.

Images live in namespaces that do not see each other: the program's own, and one for each dlmopen(3). Within a
namespace the dynamic loader searches the global scope in lookup order, then what was opened together with the image
(gABI, "Shared Object Dependencies"; ld.so(8); `elf_search_lists`). Of a library only the dynamic tables are read, and
only until the name is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ipbp.errors import IpbpError
from ipbp.formats.elf_debug_file import DEBUG_FOLDER
from ipbp.formats.elf_dynamic import R_GLOB_DAT, R_IRELATIVE, R_JUMP_SLOT
from ipbp.formats.elf_index_cache import IndexCache
from ipbp.formats.elf_link_map import namespaces
from ipbp.formats.elf_mapped import VDSO, mapped_files
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_namespaces import Namespace, loaded_namespaces, one_namespace
from ipbp.formats.foreseen import Foreseen
from ipbp.graph.image import Found, LoadedImage, MemoryReader
from ipbp.graph.model import SymbolType
from ipbp.protocol import Region

_STT_FUNC, _STT_TLS, _STT_IFUNC = 2, 6, 10


@dataclass(frozen=True)
class ImageScope:
    """`ipbp.graph.image.Scope` of one image."""

    module: LoadedModule
    modules: tuple[LoadedModule, ...]
    process: LoadedProcess

    @property
    def image(self) -> LoadedImage:
        return self.module.image

    @cached_property
    def order(self) -> tuple[str, ...]:
        return tuple(module.key for module in self.modules)

    def lookup(self, name: str) -> Found | None:
        own = self._canonical(name)
        if own is not None:
            return own
        plain, version = self._version(name)
        for module in self.modules:
            row = module.dynamic.definition(plain, version)
            if row is not None:
                return self.process.found(module, plain, row)
        return None

    def _version(self, name: str) -> tuple[str, str]:
        """A name and the version of it that an object means by `name` or `name@VERSION`: without one what the image's
        own references ask for, or where these ask for several, the default."""
        plain, at, version = name.partition("@")
        wanted = () if at else self.module.dynamic.wanted_versions(plain)
        return plain, wanted[0] if len(wanted) == 1 else version

    def _canonical(self, name: str) -> Found | None:
        main = self.process.modules[0]
        found = _canonical(main, name) if main in self.modules else None
        # With RTLD_DEEPBIND what was opened comes before the program.
        before = self.modules[: self.modules.index(main)] if found is not None else ()
        return None if any(module.dynamic.definition(name) is not None for module in before) else found

    @property
    def binds_itself(self) -> bool:
        return self.module.is_executable or self.module.dynamic.is_symbolic

    def exports(self, name: str) -> bool:
        return self.module.dynamic.exports(name)

    def _cells(self, name: str) -> Sequence[int]:
        slots = self.image.slots
        found = next((slots[known] for known in self.image.imported_as(name) if known in slots), None)
        if found is not None or len(self.module.dynamic.wanted_versions(name)) < 2:
            return found or ()
        # Of several versions a name without one means the default.
        defaults = ((module, module.dynamic.definition(name)) for module in self.modules)
        version = next((module.dynamic.version(row) for module, row in defaults if row is not None), "")
        return slots.get(f"{name}@{version}", ())

    def bound(self, name: str) -> int | None:
        own = self._canonical(name)
        if own is not None:
            return own.address
        cells = self._cells(name) if self.process.is_linked else ()
        for content in self.process.read([(cell, 8) for cell in cells]) if cells else ():
            value = int.from_bytes(content or b"", "little")
            if value and not self.module.is_stub(value):
                return value
        return None


@dataclass(frozen=True)
class LoadedProcess:
    """`modules`: the executable first, then in the order of search as far as they have one. `is_linked`: the dynamic
    loader has made its lists; before that the libraries are at best mapped and no pointer cell is filled."""

    modules: tuple[LoadedModule, ...]
    namespaces: tuple[Namespace, ...]
    is_linked: bool
    read: MemoryReader

    def executable_image(self) -> LoadedImage:
        return self.modules[0].image

    def images(self) -> Iterator[LoadedImage]:
        """One after the other, each read when it is reached."""
        return (module.image for module in self.modules)

    def lookup(self, name: str) -> Found | None:
        """What a reference to `name` from a new object of the executable would bind to; None when nothing that it
        sees exports the name."""
        return self.scope(self.modules[0].key).lookup(name)

    def module(self, key: str) -> LoadedModule | None:
        """The one whose image has this key."""
        for module in self.modules:
            if key.startswith(f"{module.mapped.start:#x}.") and module.key == key:
                return module
        return None

    def scope(self, key: str) -> ImageScope:
        """What names mean from inside the image of this key. An image that the loader does not list sees itself."""
        module = self.module(key)
        if module is None:
            raise KeyError(key)
        space = next((space for space in self.namespaces if module in space.members), None)
        return ImageScope(module, space.scope(module) if space else (module,), self)

    def found(self, module: LoadedModule, name: str, row: int) -> Found | None:
        """What the definition in this row of the module's dynamic symbols is in memory."""
        symbols = module.dynamic.symbols
        type_, address, size = int(symbols.type[row]), int(symbols.value[row]) + module.bias, int(symbols.size[row])
        if type_ == _STT_TLS:
            return Found(module.image.tls_start + int(symbols.value[row]), size, False, False, module.key, True)
        if type_ != _STT_IFUNC:
            is_function = type_ == _STT_FUNC or (type_ == SymbolType.NONE and module.is_code(address))
            return Found(address, size, is_function, False, module.key)
        chosen = self._chosen(module, name, row, address)
        return Found(chosen or address, size, True, chosen is None, module.key)

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


def read_process(
    pid: int,
    regions: Sequence[Region],
    executable: str,
    read: MemoryReader,
    cache: IndexCache | None = None,
    debug_folders: Sequence[str] = (),
) -> LoadedProcess:
    """The images of a process. `executable` is the path that its debugger knows it by, `regions` its memory map; the
    symbols of images that are asked for are taken from `cache` or put there. `debug_folders`: where the user keeps
    separate debug files.

    Errors: `image-unreadable` when the executable is not among the mapped files or cannot be opened;
    `image-malformed`, `image-wrong-architecture`.
    """
    folders = tuple(dict.fromkeys((*debug_folders, DEBUG_FOLDER)))
    at_once = Foreseen((pid, executable), read)
    files = mapped_files(regions, at_once)
    modules = [LoadedModule(pid, file, read, cache=cache, debug_folders=folders) for file in files]
    found = _main(modules, executable)
    main = replace(found, is_executable=True)
    modules = [main, *(module for module in modules if module is not found)]
    chains = namespaces(main.file, main.bias, at_once)
    spaces = loaded_namespaces(modules, chains, at_once) if chains else one_namespace(modules)
    at_once.done()
    listed = [module for space in spaces for module in (*space.scope(space.members[0]), *space.members)]
    ordered = {module.mapped.start: module for module in (*listed, *modules)}
    return LoadedProcess(tuple(ordered.values()), tuple(spaces), bool(chains), read)


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
    opened = module.opened_as if module.mapped.inode and module.mapped.path.startswith("/") else ""
    return opened.startswith(f"/proc/{module.pid}/") and opened.endswith("/exe")


def _has_path(module: LoadedModule, executable: str) -> bool:
    return module.mapped.path == executable


def _has_name(module: LoadedModule, executable: str) -> bool:
    return module.mapped.path.rsplit("/", 1)[-1] == executable.rsplit("/", 1)[-1]


def _canonical(main: LoadedModule, name: str) -> Found | None:
    """In a fixed executable that takes a library function's address, its stub is that function's address for the
    whole process: an undefined dynamic symbol with a value (psABI, "Function Addresses")."""
    symbols = main.dynamic.symbols
    for row in main.dynamic.rows.get(name, ()):
        if symbols.section[row] == 0 and symbols.value[row] != 0 and symbols.type[row] in (_STT_FUNC, _STT_IFUNC):
            return Found(int(symbols.value[row]) + main.bias, 0, True, False, main.key)
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
