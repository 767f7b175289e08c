"""Where each thread has the thread-local variables of an image: what the dynamic loader decided, read from its memory.

An executable's are at a place that the ABI fixes. For a library glibc writes the answer into its link map, and says for
debuggers where in that structure (the `_thread_db_*` variables of libpthread, which libthread_db reads as well: size in
bits, count, offset). Elsewhere a cell of the library tells that the loader has filled for it (R_X86_64_TPOFF64,
R_X86_64_DTPMOD64; "ELF Handling For Thread-Local Storage", section 4.4). On x86-64 all blocks lie below the thread
pointer (variant II there), on AArch64 above it (variant I).
"""

from __future__ import annotations

import numpy as np

from ipbp.arch.machines import X86_64
from ipbp.formats.elf_dynamic import DynamicTables
from ipbp.formats.elf_link_map import namespaces
from ipbp.formats.elf_linked import PT_TLS
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.threads import ThreadBlock, executable_block

_DTPMOD64, _TPOFF64, _TLSDESC = 16, 18, 36
_MODULE, _OFFSET = "_thread_db_link_map_l_tls_modid", "_thread_db_link_map_l_tls_offset"
_FARTHEST = 1 << 31


def thread_block(process: LoadedProcess, module: LoadedModule) -> ThreadBlock | None:
    """The module's variables; None when it has none. Its `offset` is None where the loader has not settled one for all
    threads, its `module` 0 where it is not known."""
    if module.is_executable:
        return executable_block(module.image)
    segment = module.file.segment(PT_TLS)
    if segment is None:
        return None
    start = module.bias + segment.address
    if not process.is_linked:
        return ThreadBlock(start, segment.size, None, alignment=segment.align)
    described = _described(process, module)
    number, offset = _from_cells(module, process) if described is None else described
    return ThreadBlock(start, segment.size, offset, number, segment.align)


def descriptors(module: LoadedModule) -> tuple[dict[str, int], dict[int, int]]:
    """Load addresses of the module's descriptors (R_X86_64_TLSDESC): by the name of the variable, and for the module's
    own ones by their offset in its block. Code that asks by descriptor may use any that is about its variable."""
    dynamic = module.dynamic
    relocations, symbols = dynamic.relocations, dynamic.symbols
    own = set(_own_rows(dynamic, _TLSDESC))
    by_name: dict[str, int] = {}
    by_place: dict[int, int] = {}
    for row in np.flatnonzero(relocations.type == _TLSDESC).tolist():
        symbol, addend = int(relocations.symbol[row]), int(relocations.addend[row])
        address = module.bias + int(relocations.offset[row])
        if symbol and addend == 0:
            by_name[symbols.name[symbol]] = address
        if row in own:
            by_place[addend + (int(symbols.value[symbol]) if symbol else 0)] = address
    return by_name, by_place


def _described(process: LoadedProcess, module: LoadedModule) -> tuple[int, int | None] | None:
    """Module id and offset by the link map; None when the C library does not describe it."""
    fields = [_descriptor(process, name) for name in (_MODULE, _OFFSET)]
    main = process.modules[0]
    maps = [row for chain in namespaces(main.file, main.bias, process.read) for row in chain]
    link_map = next((row for row in maps if module.mapped.holds(row.dynamic)), None)
    if link_map is None or None in fields:
        return None
    contents = process.read([(link_map.address + field, 8) for field in fields if field is not None])
    if None in contents:
        return None
    number, distance = (int.from_bytes(content or b"", "little") for content in contents)
    # 0 and the highest numbers say that there is none (NO_TLS_OFFSET, FORCED_DYNAMIC_TLS_OFFSET).
    return number, _direction(module) * distance if 0 < distance < _FARTHEST else None


def _descriptor(process: LoadedProcess, name: str) -> int | None:
    """Offset in the link map of the eight bytes that this variable of glibc's describes."""
    for module in process.modules:
        row = module.dynamic.definition(name)
        if row is not None:
            content = process.read([(module.bias + int(module.dynamic.symbols.value[row]), 12)])[0] or b""
            bits, _count, offset = (int.from_bytes(content[at : at + 4], "little") for at in (0, 4, 8))
            return offset if bits == 64 else None
    return None


def _from_cells(module: LoadedModule, process: LoadedProcess) -> tuple[int, int | None]:
    """Module id and offset by cells that are about the library's own variables."""
    dynamic = module.dynamic
    number = offset = 0
    for row in _own_rows(dynamic, _DTPMOD64):
        number = _word(process, module.bias + int(dynamic.relocations.offset[row]))
    for row in _own_rows(dynamic, _TPOFF64):
        symbol = int(dynamic.relocations.symbol[row])
        place = int(dynamic.relocations.addend[row]) + (int(dynamic.symbols.value[symbol]) if symbol else 0)
        offset = _word(process, module.bias + int(dynamic.relocations.offset[row])) - place
    return number, offset if 0 < _direction(module) * offset < _FARTHEST else None


def _direction(module: LoadedModule) -> int:
    """From the thread pointer to the blocks of libraries."""
    return -1 if module.file.machine == X86_64 else 1


def _own_rows(dynamic: DynamicTables, kind: int) -> list[int]:
    """Relocations of this kind without a symbol, or with one that no other library can take the place of."""
    relocations, symbols = dynamic.relocations, dynamic.symbols
    rows = np.flatnonzero(relocations.type == kind).tolist()
    return [row for row in rows if relocations.symbol[row] == 0 or symbols.visibility[relocations.symbol[row]] != 0]


def _word(process: LoadedProcess, address: int) -> int:
    return int.from_bytes(process.read([(address, 8)])[0] or b"", "little", signed=True)
