"""Functions that have no symbol: LLVM gives its own ones none (those in which a coroutine waits, for example).

The unwind table of an object describes each of them by where it starts and how long it is (Linux Standard Base Core,
"DWARF Extensions"; DWARF 5, 6.4.1). Without that all such code in a row would be one block.
"""

from __future__ import annotations

import numpy as np

from ipbp.formats.elf_blocks import SECTION_SHIFT
from ipbp.formats.elf_file import ElfFile
from ipbp.formats.elf_references import References
from ipbp.graph.model import I64, U8, BlockKind

_FIELD = 4  # bytes of the distance to a function, and of its length behind it: DW_EH_PE_sdata4


def with_unnamed_functions(file: ElfFile, placement: U8, refs: References, start: I64, size: I64) -> tuple[I64, I64]:
    """Keys and sizes of the functions of `start` and `size`, and of those that only the unwind table describes."""
    rows = file.sections
    holder, offset = refs.holder >> SECTION_SHIFT, refs.holder & ((1 << SECTION_SHIFT) - 1)
    described = rows.name.equal(b".eh_frame")[holder] & (placement[refs.home] == BlockKind.CODE)
    described &= (offset + 2 * _FIELD <= rows.size[holder]) & (refs.place >= 0)
    at = rows.start[holder[described]] + offset[described] + _FIELD
    length = file.octets[at[:, None] + np.arange(_FIELD)].copy().view("<u4")[:, 0].astype(np.int64)
    first = refs.keys(rows.size)[described]
    section = first >> SECTION_SHIFT
    free = (length > 0) & (first + length <= (section << SECTION_SHIFT) + rows.size[section])
    # Not where a symbol has a part of it: hand-written code may have several in one.
    order = np.argsort(start, kind="stable")
    reach = np.append(-1, np.maximum.accumulate((start + np.maximum(size, 1))[order]))
    free &= reach[np.searchsorted(start[order], first + length)] <= first
    return np.concatenate([start, first[free]]), np.concatenate([size, length[free]])
