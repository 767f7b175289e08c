"""Whether a file is the one that is mapped, told by its first page in memory.

That page has the ELF header, the program headers and, as a rule, the build id. GNU ld puts code into it, too, for
AArch64 and with `-z noseparate-code`, and patches change code. So where the pages differ the headers and the build id
decide; a file without one is then not believed.
"""

from __future__ import annotations

import struct

_MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr: type, flags, offset, address, physical, file size, size, alignment
_PT_NOTE, _NT_GNU_BUILD_ID = 4, 3


def is_head_of(file: bytes, memory: bytes) -> bool:
    """Whether a file that begins with `file` is mapped where memory holds `memory`, its first page."""
    if memory[:4] != _MAGIC:
        return False
    if file.ljust(len(memory), b"\0") == memory:
        return True
    end = _end_of_headers(memory)
    build_id = _build_id(memory)
    return end <= len(memory) and file[:end] == memory[:end] and bool(build_id) and _build_id(file) == build_id


def _end_of_headers(head: bytes) -> int:
    # e_phoff and e_phnum of Elf64_Ehdr (gABI, "ELF Header").
    return int.from_bytes(head[32:40], "little") + _HEADER.size * int.from_bytes(head[56:58], "little")


def _build_id(head: bytes) -> str:
    """In hex; "" where there is none in this page."""
    for at in range(int.from_bytes(head[32:40], "little"), min(_end_of_headers(head), len(head)), _HEADER.size):
        if at + _HEADER.size > len(head):
            break
        kind, _, offset, _, _, size, _, _ = _HEADER.unpack_from(head, at)
        found = build_id_in(head[offset : offset + size]) if kind == _PT_NOTE and offset + size <= len(head) else ""
        if found:
            return found
    return ""


def build_id_in(notes: bytes) -> str:
    """NT_GNU_BUILD_ID of a part with notes, in hex, or ""."""
    # Elf64_Nhdr: name size, descriptor size, type; both parts padded to 4 bytes.
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        content_at = name_at + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + 4] == b"GNU\0":
            return notes[content_at : content_at + size].hex()
        at = content_at + (size + 3 & ~3)
    return ""
