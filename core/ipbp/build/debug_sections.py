"""The debug information of a file, opened for pyelftools: unpacked, with what belongs to it in other files.

pyelftools reads neither zstd nor the sections of `.dwo` files, so the sections are handed to it one by one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.elf.elffile import ELFFile

from ipbp.build.abbreviations import read_as_needed
from ipbp.build.window import Window
from ipbp.compression import decompressed, decompressed_gnu

_SECTIONS = (
    *("debug_info", "debug_aranges", "debug_abbrev", "debug_str", "debug_loc", "debug_ranges", "debug_line"),
    *("debug_addr", "debug_str_offsets", "debug_line_str", "debug_loclists", "debug_rnglists", "debug_types"),
)
_LARGE = 8 << 20
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
    content = _all_of_name if suffix else _whole_or_window
    return sections_from({name: content(elf, f"{name}{suffix}") for name in _SECTIONS}, elf)


def _all_of_name(elf: ELFFile, name: str) -> bytes | None:
    """In a file that is not linked each type unit is a section of its own (DWARF 5, E.2)."""
    found = [section for section in elf.iter_sections() if section.name == f".{name}"]
    return b"".join(section.data() for section in found) if len(found) > 1 else section_content(elf, name)


def _whole_or_window(elf: ELFFile, name: str) -> bytes | Window | None:
    """A large section stays in its file: of most units only the first entry is looked at."""
    section = elf.get_section_by_name(f".{name}")
    is_large = section is not None and section["sh_size"] >= _LARGE and name != "debug_abbrev"
    if not is_large or section.compressed or not hasattr(elf.stream, "fileno"):
        return section_content(elf, name)
    return Window(elf.stream.fileno(), section["sh_offset"], section["sh_size"])


def sections_from(contents: Mapping[str, bytes | Window | None], elf: ELFFile | None = None) -> Any:
    """DWARFInfo of these contents of sections, by name without a dot. `elf`: whose they are, None for x86-64."""
    sections = {f"{name}_sec": _descriptor(name, contents.get(name)) for name in _SECTIONS}
    unread = {f"{name}_sec": None for name in _UNREAD}
    kind = (elf.little_endian, elf.get_machine_arch()) if elf is not None else (True, "x64")
    found = DWARFInfo(DwarfConfig(*kind, 8), **sections, **unread)
    read_as_needed(found)
    return found


def _descriptor(name: str, content: bytes | Window | None) -> Any:
    if content is None:
        return None
    stream = content if isinstance(content, Window) else BytesIO(content)
    return DebugSectionDescriptor(stream, f".{name}", 0, len(content), 0)


def build_id(elf: ELFFile) -> str:
    section = elf.get_section_by_name(".note.gnu.build-id")
    if section is None:
        return ""
    content: bytes = section.data()
    return content[16:].hex()  # behind three sizes and the name "GNU\0" (gABI, "Note Section")


def section_content(elf: ELFFile, name: str, start: int = 0, size: int | None = None) -> bytes | None:
    """A section's bytes, unpacked, or `size` of them from `start`; None when there is no such section. `name`: without
    a dot."""
    plain, packed = (elf.get_section_by_name(f".{prefix}{name}") for prefix in ("", "z"))
    section = plain or packed
    if section is None:
        return None
    end = None if size is None else start + size
    if plain is not None and not section.compressed:
        whole = int(section["sh_size"])
        section.stream.seek(section["sh_offset"] + min(start, whole))
        return bytes(section.stream.read(max(0, min(whole, whole if end is None else end) - start)))
    section.stream.seek(section["sh_offset"])
    content = section.stream.read(section["sh_size"])
    return (decompressed_gnu(content) if plain is None else decompressed(content))[start:end]
