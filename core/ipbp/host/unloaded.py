"""Patched images that are no longer loaded, and with them everything that was done to them.

A library that the program closes (dlclose(3)) takes its replaced entries along. Opened again it is what its file says,
often at the very place where it was before; or another library is there now. Such a load starts afresh: patches of
the one before it are forgotten for it, nothing of them is written any more, and it can be patched as if for the first
time. The memory that they were linked into stays.
"""

from __future__ import annotations

from typing import Sequence

from ipbp.host.journal import Journal, Patch
from ipbp.host.mapped_head import build_id_in
from ipbp.host.memory import Memory, read_or_none
from ipbp.protocol import PatchedImage, Region

_PT_LOAD, _PT_NOTE = 1, 4
_NAMES_SHOWN = 4


def forget_unloaded(journal: Journal, memory: Memory) -> list[str]:
    """Write down which images of patches in force are gone; a sentence for each."""
    patches = journal.open_patches()
    images = {image.key: image for patch in patches for image in patch.images if not image.is_executable}
    if not images:
        return []
    regions = memory.regions()
    notes = []
    for key, image in images.items():
        if not is_loaded(image, memory, regions):
            what = "was unloaded"
        elif _is_fresh(image, memory, patches):
            what = "was unloaded and loaded again"
        else:
            continue
        names = _names(key, patches)
        journal.forget(key, patches[-1].number)
        notes.append(f"{image.path} {what}: its patches are forgotten{f' ({names})' if names else ''}")
    return notes


def is_loaded(image: PatchedImage, memory: Memory, regions: Sequence[Region]) -> bool:
    """Whether the file of this image is still mapped where it was. That it was mapped anew at the very same place does
    not show here."""
    there = next((region for region in regions if region.start == image.start), None)
    if there is None or there.offset != 0 or there.inode != image.inode:
        return False
    return not image.build_id or _build_id(image.start, memory) == image.build_id


def _is_fresh(image: PatchedImage, memory: Memory, patches: Sequence[Patch]) -> bool:
    """Whether every entry that was rewritten holds its original bytes again, which only a new mapping of the file
    brings about. While a patch is half-way that says nothing."""
    if any(patch.is_unfinished for patch in patches):
        return False
    original: dict[int, bytes] = {}
    for patch in patches:
        for change in patch.changes_of(image.key):
            if image.start <= change.address < image.end:
                original.setdefault(change.address, change.expected)
    found = [read_or_none(memory, address, len(content)) == content for address, content in original.items()]
    return bool(found) and all(found)


def _names(key: str, patches: Sequence[Patch]) -> str:
    names = list(dict.fromkeys(change.name for patch in patches for change in patch.changes_of(key)))
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _build_id(start: int, memory: Memory) -> str:
    """NT_GNU_BUILD_ID of the ELF image at `start` in hex, "" for none (gABI, "Program Header", "Note Section")."""
    header = read_or_none(memory, start, 64) or bytes(64)
    count, size = _number(header, 56, 2), _number(header, 54, 2)
    rows = read_or_none(memory, start + _number(header, 32, 8), count * size) or b""
    segments = [rows[at : at + size] for at in range(0, len(rows), size)] if size >= 56 else []
    lowest = min((_number(row, 16, 8) for row in segments if _number(row, 0, 4) == _PT_LOAD), default=0) & -4096
    for row in segments:
        if _number(row, 0, 4) == _PT_NOTE:
            notes = read_or_none(memory, start - lowest + _number(row, 16, 8), min(_number(row, 32, 8), 65536)) or b""
            found = build_id_in(notes)
            if found:
                return found
    return ""


def _number(content: bytes, at: int, width: int) -> int:
    return int.from_bytes(content[at : at + width], "little")
