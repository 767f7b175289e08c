"""Which function a linker-made stub jumps to.

A call to another image goes to an entry in `.plt`, `.plt.sec` (behind endbr64, for CET) or `.plt.got`. Each is an
indirect jump through a pointer cell (`jmp *cell(%rip)`), and the relocation of that cell names the function. The jump
has the same encoding in position-independent and in fixed executables of every linker, so it is looked for instead of
counting entries.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ipbp.formats.elf_linked import LinkedFile

_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_BND = 0xF2
_MOV_R11D = b"\x41\xbb"  # mov $imm32, %r11d
_BTI_C = 0xD503245F
_NAMES = (".plt", ".iplt")


def plt_ranges(file: LinkedFile) -> list[tuple[int, int]]:
    """Link addresses [start, end) of the sections that hold such stubs."""
    return [(row.address, row.end) for row in file.sections if row.name.startswith(_NAMES)]


def plt_entries(file: LinkedFile, cells: Mapping[int, str]) -> dict[int, str]:
    """Link address of each stub -> name of the function, given the names of the pointer cells."""
    found: dict[int, str] = {}
    for section in file.sections:
        if not section.name.startswith(_NAMES):
            continue
        content = bytes(file.section_content(section))
        if file.machine == "aarch64":
            found.update(_aarch64_entries(section.address, content, cells))
            continue
        octets = np.frombuffer(content, np.uint8)
        if len(octets) < 6:
            continue
        jumps = np.flatnonzero((octets[:-5] == 0xFF) & (octets[1:-4] == 0x25))  # jmp *disp32(%rip)
        for at in jumps.tolist():
            cell = section.address + at + 6 + int.from_bytes(content[at + 2 : at + 6], "little", signed=True)
            if cell in cells:
                found[section.address + _entry(content, at)] = cells[cell]
    return found


def _aarch64_entries(address: int, content: bytes, cells: Mapping[int, str]) -> dict[int, str]:
    """`adrp x16, page; ldr x17, [x16, #low]; add x16, x16, #low; br x17`, behind `bti c` where the processor wants it
    (AAELF64, "Sample PLT sequences")."""
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4").astype(np.int64)
    place = address + 4 * np.arange(len(words))
    page = (words >> 29 & 3) | (words >> 5 & 0x7FFFF) << 2
    page = ((page ^ 1 << 20) - (1 << 20) << 12) + (place & -4096)
    starts = np.flatnonzero((words[:-1] & 0x9F00001F == 0x90000010) & (words[1:] & 0xFFC003FF == 0xF9400211))
    found = {}
    for at in starts.tolist():
        name = cells.get(int(page[at]) + (int(words[at + 1]) >> 10 & 0xFFF) * 8)
        if name is not None:
            found[int(place[at]) - (4 if at and words[at - 1] == _BTI_C else 0)] = name
    return found


def _entry(content: bytes, jump: int) -> int:
    start = jump - 1 if jump and content[jump - 1] == _BND else jump
    if content[max(0, start - 6) : start][:2] == _MOV_R11D:  # mold puts the number for the lazy binding first
        start -= 6
    return start - 4 if content[max(0, start - 4) : start] == _ENDBR64 else start
