"""A shared library that holds nothing but initial values of thread-local variables, for the program's own loader.

Only the dynamic loader can give every running thread, and every thread to come, room for a new thread-local variable:
it keeps a surplus of static TLS for libraries that are opened late and ask for it (DF_STATIC_TLS; glibc, "Dynamic
Linking Tunables", rtld.optional_static_tls), copies the initial values into all threads, and knows them for new ones.
This is the smallest library with which it does that: no code, no symbols, no section headers. Its one relocation
makes the loader write down where the block is (R_X86_64_TPOFF64, R_AARCH64_TLS_TPREL64 with no symbol: the block's own
offset).

Sources: gABI chapter 5; "ELF Handling For Thread-Local Storage", section 3. The stack's flags are given because a
file without them makes glibc map all stacks executable.
"""

from __future__ import annotations

import struct
from pathlib import Path

_ET_DYN = 3
_PT_LOAD, _PT_DYNAMIC, _PT_TLS, _PT_GNU_STACK = 1, 2, 7, 0x6474E551
_R, _RW = 4, 6
_MACHINES = {"x86_64": (62, 18, 4096), "aarch64": (183, 1030, 65536)}
"""Number of the machine in the header, of the relocation, and the largest page that a kernel may have."""
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_RELAENT = 4, 5, 6, 7, 8, 9
_DT_STRSZ, _DT_SYMENT, _DT_FLAGS = 10, 11, 30
_FLAGS = 0x18  # DF_BIND_NOW | DF_STATIC_TLS
_HEADERS = 64 + 56 * 5

# Behind the headers, 8-aligned: a hash table of one empty bucket, the null symbol, an empty string, the relocation.
_HASH = struct.pack("<IIII", 1, 1, 0, 0)
_HASH_AT = _HEADERS
_SYMBOL_AT = _HASH_AT + len(_HASH)
_STRING_AT = _SYMBOL_AT + 24
_RELOCATION_AT = _STRING_AT + 8
_VALUES_AT = _RELOCATION_AT + 24


def write_thread_library(path: Path, values: bytes, alignment: int, machine: str) -> int:
    """Write the library; the address in it, counted from where it is loaded, of the 8 bytes in which the loader leaves
    the block's offset from the thread pointer. Errors: OSError."""
    content, cell = thread_library(values, alignment, machine)
    path.write_bytes(content)
    return cell


def thread_library(values: bytes, alignment: int, machine: str) -> tuple[bytes, int]:
    """The file's bytes, and that address. `alignment`: a power of two."""
    number, offset_in_threads, page = _MACHINES[machine]
    start = -(-_VALUES_AT // alignment) * alignment
    end = start + len(values)
    data = -(-end // 8) * 8
    # The second segment is writable: the page of memory after the first, the same place in the file modulo a page.
    address = -(-end // page) * page + data % page
    dynamic = _dynamic()
    cell = address + len(dynamic)
    relocation = struct.pack("<QQq", cell, offset_in_threads, 0)
    body = _HASH + bytes(24) + bytes(8) + relocation
    content = _header(number) + b"".join(
        (
            _segment(_PT_LOAD, _R, 0, 0, end, page),
            _segment(_PT_LOAD, _RW, data, address, len(dynamic) + 8, page),
            _segment(_PT_DYNAMIC, _RW, data, address, len(dynamic), 8),
            _segment(_PT_TLS, _R, start, start, len(values), alignment),
            _segment(_PT_GNU_STACK, _RW, 0, 0, 0, 16),
        )
    )
    content = (content + body).ljust(start, b"\0") + values
    return content.ljust(data, b"\0") + dynamic + bytes(8), cell


def _dynamic() -> bytes:
    rows = (
        (_DT_HASH, _HASH_AT),
        (_DT_SYMTAB, _SYMBOL_AT),
        (_DT_SYMENT, 24),
        (_DT_STRTAB, _STRING_AT),
        (_DT_STRSZ, 1),
        (_DT_RELA, _RELOCATION_AT),
        (_DT_RELASZ, 24),
        (_DT_RELAENT, 24),
        (_DT_FLAGS, _FLAGS),
        (0, 0),
    )
    return b"".join(struct.pack("<QQ", *row) for row in rows)


def _header(machine: int) -> bytes:
    magic = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)  # 64-bit, little-endian, version 1, System V
    return magic + struct.pack("<HHIQQQIHHHHHH", _ET_DYN, machine, 1, 0, 64, 0, 0, 64, 56, 5, 64, 0, 0)


def _segment(kind: int, flags: int, offset: int, address: int, size: int, alignment: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, alignment)
