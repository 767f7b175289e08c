"""The program's own dynamic loader: how a library is opened in its name, and when it must not be disturbed.

dlopen takes the loader's locks and allocates memory. While all threads are held, a lock that one of them has is never
given back, so no thread may be in the loader, in the allocator or in what starts and ends threads. Which code that is
is said here; whether a thread is in it is seen at the stop (`ipbp.host.quiet`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ipbp.formats.coff_process import WindowsProcess
from ipbp.formats.elf_linked import PF_X
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.layout import LateField
from ipbp.pipeline.windows import quiet_of
from ipbp.protocol import Call, Load, Quiet

_NOW = 2  # RTLD_NOW, RTLD_LOCAL (dlfcn.h)
_ENTRIES = ("dlopen", "dlclose", "dlerror", "__errno_location")
_LOCKING = (
    *("malloc", "free", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign"),
    *("valloc", "pvalloc", "malloc_trim", "malloc_info", "malloc_stats", "mallinfo", "mallinfo2", "mallopt"),
    *("pthread_create", "pthread_exit", "pthread_getattr_np", "fork", "vfork", "_Fork", "exit", "quick_exit"),
    *("__cxa_atexit", "__cxa_finalize", "__cxa_thread_atexit_impl", "atexit", "on_exit"),
    *("dlopen", "dlmopen", "dlsym", "dlvsym", "dlclose", "dlerror", "dlinfo", "dladdr", "dladdr1", "dl_iterate_phdr"),
)

_LIMIT = 1 << 31
_LIMIT_OF_PARTS = 1 << 24
"""What two instructions with twelve bits each add (-mtls-size=24, which is what compilers do unless told otherwise)."""

LIBGCC = ("__register_frame_info", "__deregister_frame_info")
LIBUNWIND = ("__unw_add_dynamic_eh_frame_section", "__unw_remove_dynamic_eh_frame_section")
"""What an unwinder is told of a table by: libgcc, and LLVM's (15 and newer)."""


@dataclass(frozen=True, slots=True)
class Loader:
    """Addresses of the loader's functions."""

    open: int
    close: int
    error: int
    errno: int

    def load(self, file: str, name_at: int, flags: int = _NOW, cell: int = 0, late: Sequence[LateField] = ()) -> Load:
        """The step of a plan that opens `file`, whose name the patch has at `name_at`."""
        fields = tuple((row.address, row.width, row.addend, row.bits, row.at, row.shift) for row in late)
        limit = _LIMIT_OF_PARTS if any(row.bits for row in late) else _LIMIT
        return Load(file, name_at, flags, self.open, self.close, self.error, self.errno, cell, limit, fields)


def find_loader(process: LoadedProcess) -> Loader | None:
    """None where the process has none: a static program, or one whose C library keeps dlopen in a library (libdl)
    that it has not loaded."""
    if not process.is_linked:
        return None
    found = [process.lookup(name) for name in _ENTRIES]
    addresses = [row.address for row in found if row is not None and not row.indirect]
    if len(addresses) < len(_ENTRIES):
        return None
    opens, closes, says, errno = addresses
    return Loader(opens, closes, says, errno)


def _quiet(process: LoadedProcess) -> Quiet:
    names = ("__tls_get_addr", "__errno_location", "malloc")
    loader, libc, allocator = (_module_of(process, name) for name in names)
    held: list[tuple[int, int]] = []
    moving: list[tuple[int, int]] = []
    for module in process.modules:
        is_library_of_its_own = module is allocator and module is not libc and module is not process.modules[0]
        # What returns to any of these may hold a lock: the loader itself, and an allocator that is a library.
        if (module is loader and module is not libc) or is_library_of_its_own:
            held += code_ranges(module)
        elif module in (libc, allocator):
            held += _functions(module)
            moving += code_ranges(module)
    return Quiet(tuple(held), tuple(moving))


def code_ranges(module: LoadedModule) -> list[tuple[int, int]]:
    """Load addresses of a module's code."""
    loads = [row for row in module.file.loads() if row.flags & PF_X]
    return [(module.bias + row.address, module.bias + row.address + row.size) for row in loads]


def quiet_for(
    process: LoadedProcess, calls: Sequence[Call], loads: Sequence[Load] = (), runs_more: bool = False
) -> Quiet:
    """When a plan's loads and calls may be made. The unwinder that is told of a table wants a lock of its own, and
    LLVM's (which takes the table alone) may allocate memory for its rows; what chooses an indirect function (its result
    is kept) takes none. `runs_more`: code of the program's (hooks, initialisers), which may allocate memory."""
    if isinstance(process, WindowsProcess):
        return quiet_of(process) if calls else Quiet()
    registering = [call.address for call in calls if call.result_at is None]
    around = dict.fromkeys(row for address in registering for row in code_around(process, address))
    allocates = any(len(call.arguments) == 1 and not call.on_undo for call in calls if call.result_at is None)
    found = _quiet(process) if loads or runs_more or allocates else Quiet()
    return Quiet((*found.held, *around), found.moving)


def code_around(process: LoadedProcess, address: int) -> list[tuple[int, int]]:
    """The code of the library that has a function at this address; nothing for one of the executable."""
    return next((code_ranges(module) for module in process.modules[1:] if _holds(module, address)), [])


def _holds(module: LoadedModule, address: int) -> bool:
    return any(start <= address < end for start, end in code_ranges(module))


def _module_of(process: LoadedProcess, name: str) -> LoadedModule | None:
    found = process.lookup(name)
    if found is None:
        return None
    inside = (
        module for module in process.modules for start, end in code_ranges(module) if start <= found.address < end
    )
    return next(inside, None)


def _functions(module: LoadedModule) -> Iterator[tuple[int, int]]:
    """Where the module's exported functions are that take these locks."""
    symbols = module.dynamic.symbols
    for name in _LOCKING:
        for row in module.dynamic.rows.get(name, ()):
            if symbols.section[row] != 0:
                start = module.bias + int(symbols.value[row])
                yield start, start + max(int(symbols.size[row]), 1)
