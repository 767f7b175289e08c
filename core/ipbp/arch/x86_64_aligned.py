"""Instructions that fault on memory at an address that is no multiple of 16 (Intel SDM vol. 1, 4.1.1 and 10.4.4): those
of SSE with a memory operand of 16 bytes, but for the moves that say they do not care; of AVX only the moves that do.
"""

from __future__ import annotations

import re

from ipbp.arch.x86_64_code import instructions

_UNALIGNED = ("movups", "movupd", "movdqu", "lddqu")
_ALIGNED_VEX = re.compile(r"vmov(aps|apd|dqa|ntps|ntpd|ntdq)")
_WIDE = re.compile(r"(?:xmm|ymm|zmm)word ptr (?:[a-z]s:)?\[(\w+)")
_FRAME = ("rsp", "rbp")


def aligned_operands(code: bytes) -> list[tuple[int, int, bool]]:
    """Start, end and whether it names its place itself (`[rip + ...]`), for each such instruction. Memory of the frame
    is left out."""
    found = []
    for row in instructions(code):
        wide = _WIDE.search(row.operands)
        if wide is None or wide[1] in _FRAME or row.mnemonic in _UNALIGNED:
            continue
        if not row.mnemonic.startswith("v") or _ALIGNED_VEX.match(row.mnemonic):
            found.append((row.offset, row.offset + row.size, wide[1] == "rip"))
    return found
