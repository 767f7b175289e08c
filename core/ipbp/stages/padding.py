"""Padding between functions that is proved to be padding, handed out in pieces of five bytes.

Compilers align functions and fill the gaps with nops. Such a gap is free when it lies between the end of a function
whose size is known and the next symbol, or the end of the section; when all of it is fill, as the program's file has
it; and when the function before it does not run on into it. Nops before an entry that the user asked for
(`-fpatchable-function-entry=N,M`) are for somebody else to write to: a table tells where they are. A symbol without a
size may be followed by code without a name: what comes after one is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ipbp.arch.x86_64_code import instructions, is_padding
from ipbp.arch.x86_64_entry import JUMP_SIZE, RELAY_REACH
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import I64, SymbolType

LONGEST_PADDING = 64
"""No compiler aligns code further than a cache line. A longer gap holds something that has no symbol."""
_PATCHABLE = "__patchable_function_entries"  # GCC manual, "Instrumentation Options"
_ENDS = ("ret", "retq", "repz ret", "jmp", "notrack jmp", "bnd jmp", "ud2", "hlt", "int3")
"""Instructions after which nothing runs on. Not a call: whether it returns is not written in it."""


@dataclass(frozen=True, slots=True)
class Piece:
    address: int
    content: bytes


@dataclass(slots=True)
class Padding:
    """`taken`: (address, size) of what is in use, also by what earlier patches wrote. Grows with what is handed out."""

    loaded: LoadedImage
    read: MemoryReader
    taken: list[tuple[int, int]]
    _gaps: dict[int, bool] = field(default_factory=dict)
    _reserved: list[I64] = field(default_factory=list)

    def take(self, place: int) -> Piece | None:
        """Five bytes that a short jump at `place` reaches, nearest first, or None."""
        lowest, highest = place + RELAY_REACH.start, place + RELAY_REACH.stop - 1
        candidates = [
            at
            for start, end in self._gaps_near(lowest, highest)
            for at in range(max(start, lowest), min(end - JUMP_SIZE, highest) + 1)
        ]
        for at in sorted(candidates, key=lambda at: abs(at - place)):
            if not any(start < at + JUMP_SIZE and at < start + size for start, size in self.taken):
                content = self.read([(at, JUMP_SIZE)])[0]
                if content is not None:
                    self.taken.append((at, JUMP_SIZE))
                    return Piece(at, content)
        return None

    def _gaps_near(self, lowest: int, highest: int) -> list[tuple[int, int]]:
        place = lowest - RELAY_REACH.start
        section = next(((low, high) for _name, low, high in self.loaded.sections if low <= place < high), None)
        if section is None:
            return []
        starts, ends, rows = self._between_functions(*section)
        near = np.flatnonzero((starts <= highest) & (ends >= lowest + JUMP_SIZE))
        starts, ends, rows = starts[near], self._before_reserved(starts[near], ends[near]), rows[near]
        gaps = zip(starts.tolist(), ends.tolist(), rows.tolist(), strict=True)
        return [(start, end) for start, end, row in gaps if self._is_free(start, end, row)]

    def _before_reserved(self, starts: I64, ends: I64) -> I64:
        """The ends of these gaps, without the nops that belong to the entry behind each."""
        if not self._reserved:
            tables = (row[1:] for row in self.loaded.sections if row[0] == _PATCHABLE)
            contents = [self.loaded.original(start, (end - start) // 8 * 8) or b"" for start, end in tables]
            self._reserved.append(np.sort(np.frombuffer(b"".join(contents), "<i8")))
        places = np.append(self._reserved[0], np.iinfo(np.int64).max)
        result: I64 = np.minimum(ends, places[np.searchsorted(places, starts)])
        return result

    def _between_functions(self, low: int, high: int) -> tuple[I64, I64, I64]:
        """Gaps of a section: where each starts, where it ends, and the symbol whose function is before it."""
        table = self.loaded.symbols
        inside = np.flatnonzero((table.address >= low) & (table.address < high) & (table.type != SymbolType.TLS))
        if len(inside) == 0:
            return inside, inside, inside
        address, size = table.address[inside], table.size[inside]
        following = np.append(address[1:], high)
        covered = np.maximum.accumulate(np.where(size == 0, 0, address + size))
        # Whatever follows a symbol without a size may belong to it, unless it is a label inside a function.
        end = np.where(size > 0, address + size, np.where(address < covered, address, following))
        reach = np.maximum.accumulate(end)
        last = np.maximum.accumulate(np.where(end == reach, np.arange(len(end)), 0))
        gap = np.flatnonzero((following > reach) & (following - reach <= LONGEST_PADDING))
        return reach[gap], following[gap], inside[last[gap]]

    def _is_free(self, start: int, end: int, row: int) -> bool:
        if start not in self._gaps:
            self._gaps[start] = end - start >= JUMP_SIZE and self._is_fill(start, end - start) and self._ends(row)
        return self._gaps[start]

    def _is_fill(self, start: int, size: int) -> bool:
        """By the program's file; memory must agree where no patch wrote."""
        memory = self.read([(start, size)])[0]
        if memory is None:
            return False
        filed = self.loaded.original(start, size) or memory
        changed = (start + at for at in range(size) if filed[at] != memory[at])
        return is_padding(filed) and all(map(self._is_taken, changed))

    def _is_taken(self, address: int) -> bool:
        return any(start <= address < start + size for start, size in self.taken)

    def _ends(self, row: int) -> bool:
        """Whether the last instruction of a function leaves it."""
        table = self.loaded.symbols
        start, size = int(table.address[row]), int(table.size[row])
        code = self.loaded.original(start, size) or self.read([(start, size)])[0]
        if not code or table.type[row] != SymbolType.FUNCTION:
            return False
        last = instructions(code)[-1]
        return last.mnemonic in _ENDS and last.offset + last.size == size
