"""The debug information of a file, opened for pyelftools: unpacked, with what belongs to it in other files.

pyelftools reads neither zstd nor the sections of `.dwo` files, so the sections are handed to it one by one.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.elf.elffile import ELFFile

from ipbp.build.abbreviations import read_as_needed
from ipbp.compression import decompressed, decompressed_gnu

_SECTIONS = (
    *("debug_info", "debug_aranges", "debug_abbrev", "debug_str", "debug_loc", "debug_ranges", "debug_line"),
    *("debug_addr", "debug_str_offsets", "debug_line_str", "debug_loclists", "debug_rnglists", "debug_types"),
)
_UNREAD = ("debug_frame", "eh_frame", "debug_pubtypes", "debug_pubnames", "debug_sup", "gnu_debugaltlink")


def has_debug_information(elf: ELFFile, suffix: str = "") -> bool:
    return any(elf.get_section_by_name(f".{name}{suffix}") is not None for name in ("debug_info", "zdebug_info"))


def debug_information(elf: ELFFile, path: Path) -> Any:
    """pyelftools' DWARFInfo of the file at `path`, with the part that several files share (dwz(1)) where that is at
    hand; names that are in there are not known otherwise. Relocations that the linker kept (--emit-relocs) are done
    already. Errors: those of pyelftools, and ValueError."""
    found = sections_of(elf)
    link = elf.get_section_by_name(".gnu_debugaltlink")
    name, _, identity = link.data().partition(b"\0") if link is not None else (b"", b"", b"")
    shared = path.parent / os.fsdecode(name)
    if name and shared.is_file():
        with shared.open("rb") as file:
            other = ELFFile(file)
            if build_id(other) == identity.hex():
                found.supplementary_dwarfinfo = sections_of(other)
    return found


def sections_of(elf: ELFFile, suffix: str = "") -> Any:
    """DWARFInfo of the sections with names that end in `suffix` (".dwo")."""
    sections = {f"{name}_sec": _section(elf, name, suffix) for name in _SECTIONS}
    unread = {f"{name}_sec": None for name in _UNREAD}
    found = DWARFInfo(DwarfConfig(elf.little_endian, elf.get_machine_arch(), 8), **sections, **unread)
    read_as_needed(found)
    return found


def build_id(elf: ELFFile) -> str:
    section = elf.get_section_by_name(".note.gnu.build-id")
    if section is None:
        return ""
    content: bytes = section.data()
    return content[16:].hex()  # behind three sizes and the name "GNU\0" (gABI, "Note Section")


def _section(elf: ELFFile, name: str, suffix: str) -> Any:
    plain, packed = (elf.get_section_by_name(f".{prefix}{name}{suffix}") for prefix in ("", "z"))
    section = plain or packed
    if section is None:
        return None
    section.stream.seek(section["sh_offset"])
    content = section.stream.read(section["sh_size"])
    if plain is None:
        content = decompressed_gnu(content)
    elif section.compressed:
        content = decompressed(content)
    return DebugSectionDescriptor(BytesIO(content), section.name, section["sh_offset"], len(content), 0)
