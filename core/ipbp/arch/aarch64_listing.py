"""A64 code as lines that two versions of a function can be compared by, as `x86_64_listing` does for x86-64."""

from __future__ import annotations

import re
from collections.abc import Callable

from ipbp.arch.aarch64_code import detailed_reader

_PLACE = re.compile(r"#0x([0-9a-f]+)\Z")
_TO_PLACES = ("b", "bl", "cbz", "cbnz", "tbz", "tbnz", "adr", "adrp")


def listing(code: bytes, address: int, name: Callable[[int, int], str]) -> list[tuple[int, str]]:
    """Offset and text of each instruction of a function that lies at `address`; what cannot be decoded as `.byte`."""
    rows: list[tuple[int, str]] = []
    reached = 0
    for row in detailed_reader().disasm(code, address):
        operands, place = str(row.op_str), _PLACE.search(str(row.op_str))
        if place and (row.mnemonic in _TO_PLACES or row.mnemonic.startswith("b.")):
            target = int(place[1], 16)
            inside = address <= target < address + len(code) and row.mnemonic != "adrp"
            said = f"+{target - address:#x}" if inside else name(target, 0)
            operands = operands[: place.start()] + said
        rows.append((row.address - address, f"{row.mnemonic} {operands}".rstrip()))
        reached = row.address - address + row.size
    rows += [(at, f".byte {code[at]:#04x}") for at in range(reached, len(code))]
    return rows
