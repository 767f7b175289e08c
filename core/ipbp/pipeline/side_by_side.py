"""What a patch changes, for people: machine code of both versions of each function, and both texts of its source."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import MemoryReader
from ipbp.graph.sides import Row, beside, near_changes
from ipbp.host.journal import Journal
from ipbp.pipeline.process import process_of
from ipbp.pipeline.readable import readable_name
from ipbp.pipeline.request import Request
from ipbp.pipeline.texts import kept_text
from ipbp.protocol import FunctionChange, PatchPlan

_CONTEXT = 3  # lines of source around a change
_MOST_LINES = 2000  # of one function
_LONGEST = 64  # bytes of a stub, or of a text that is shown
_JUMP = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25(.{4})", re.DOTALL)  # [endbr64] [bnd] jmp [rip + cell]
_TEXT = re.compile(rb"([\t\n\x20-\x7e]{1,63})\0")


@dataclass(frozen=True, slots=True)
class Sides:
    """Of a function its code; of a file its text around the changes, `name` then says where the old one is from."""

    name: str
    file: str
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "file": self.file, "rows": [list(row) for row in self.rows]}


def sides_for(request: Request, plan: PatchPlan, read: MemoryReader) -> dict[str, list[dict[str, object]]]:
    """What a plan that is not applied yet would change: `code` and `source`."""
    earlier = [patch.plan for patch in Journal(request.folder).patches()]
    places = Places(process_of(request, read), [*earlier, plan], read)
    return {
        "code": [row.to_json() for row in sides_of(plan, earlier, places, read)],
        "source": [row.to_json() for row in sources_of(plan, request.folder)],
    }


class Places:
    """Names of addresses: of the process's symbols, and of what patches brought. What has none is told by what is
    there: each version of a function has stubs and constants of its own."""

    def __init__(self, process: LoadedProcess, plans: Sequence[PatchPlan], read: MemoryReader) -> None:
        tables = [image.symbols for image in process.images()]
        self._stubs = {at: name for image in process.images() for at, name in image.stubs.items()}
        self._plans = plans
        self._read = read
        self.machine = process.executable_image().machine
        self._starts = [table.address for table in tables]
        self._tables = tables
        rows = {row.address: row for plan in plans for row in plan.functions if row.address}
        self._patched = sorted(rows)
        self._rows = rows

    def name(self, address: int, size: int = 0) -> str:
        """`size`: bytes that are read there, 0 for a place that is meant itself."""
        at = bisect.bisect_right(self._patched, address) - 1
        if at >= 0 and address < self._patched[at] + self._rows[self._patched[at]].size:
            return _with_offset(self._rows[self._patched[at]].name, address - self._patched[at])
        for starts, table in zip(self._starts, self._tables, strict=True):
            row = int(np.searchsorted(starts, address, side="right")) - 1
            if row >= 0 and address < int(table.address[row]) + max(int(table.size[row]), 1):
                return _with_offset(readable_name(table.name[row]), address - int(table.address[row]))
        return self._by_content(address, size)

    def _by_content(self, address: int, size: int) -> str:
        name = self._stubs.get(address)
        if name is not None:
            return readable_name(name)
        content = self._content(address, size or _LONGEST)
        if size:
            return f"constant {int.from_bytes(content, 'little'):#x}" if len(content) == size else f"{address:#x}"
        jump = _JUMP.match(content)
        if jump is not None:
            cell = self._content(address + jump.end() + int.from_bytes(jump[1], "little", signed=True), 8)
            target = int.from_bytes(cell, "little")
            return self.name(target) if cell and target != address else f"{address:#x}"
        text = _TEXT.match(content)
        return repr(text[1].decode()) if text is not None else f"{address:#x}"

    def _content(self, address: int, size: int) -> bytes:
        """What is there, or will be when the newest plan is applied; b"" for nothing that can be read."""
        for plan in reversed(self._plans):
            for part in plan.segments:
                if part.address <= address < part.address + part.size:
                    with Path(plan.files[part.file]).open("rb") as file:
                        file.seek(part.file_offset + address - part.address)
                        return file.read(min(size, part.address + part.size - address))
        return self._read([(address, size)])[0] or b""


def _with_offset(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name


def sides_of(plan: PatchPlan, plans: Sequence[PatchPlan], places: Places, read: MemoryReader) -> Iterator[Sides]:
    """Both versions of each function that `plan` changes. `plans`: those in force before it, oldest first."""
    for row in plan.functions:
        if row.status == "removed" or not row.size:
            continue
        new, listing = _of_file(plan, row), machine_of(places.machine).listing
        old, address = _old_version(row, plan, plans, read)
        left = [f"{at:4x}  {text}" for at, text in listing(old, address, places.name)]
        right = [f"{at:4x}  {text}" for at, text in listing(new, row.address, places.name)]
        yield Sides(row.name, row.file, tuple(_by_text(left[:_MOST_LINES], right[:_MOST_LINES])))


def _by_text(left: Sequence[str], right: Sequence[str]) -> Iterator[Row]:
    # Paired by the instructions alone: every later offset moves when one is longer.
    texts = [line[6:] for line in left], [line[6:] for line in right]
    olds, news = iter(left), iter(right)
    for mark, _old, _new in beside(*texts):
        yield mark, next(olds) if mark != ">" else "", next(news) if mark != "<" else ""


def _old_version(
    row: FunctionChange, plan: PatchPlan, plans: Sequence[PatchPlan], read: MemoryReader
) -> tuple[bytes, int]:
    """The code that this one replaces, and where it is; b"" for a new function and for what cannot be read."""
    for earlier in reversed(plans):
        for before in earlier.functions:
            if before.entry == row.entry and row.entry and before.address and before.size:
                return _of_file(earlier, before), before.address
    if row.status == "new" or not row.old_size:
        return b"", row.entry
    content = read([(row.entry, row.old_size)])[0]
    if content is None:
        return b"", row.entry
    code = bytearray(content)
    for change in [*plan.replacements, *(change for earlier in plans for change in earlier.replacements)]:
        at = change.address - row.entry
        if 0 <= at < len(code) and code[at : at + 1] == change.replacement[:1]:
            code[at : at + len(change.expected)] = change.expected
    return bytes(code[: row.old_size]), row.entry


def _of_file(plan: PatchPlan, row: FunctionChange) -> bytes:
    for segment in plan.segments:
        if segment.address <= row.address < segment.address + segment.size:
            with Path(plan.files[segment.file]).open("rb") as file:
                file.seek(segment.file_offset + row.address - segment.address)
                return file.read(row.size)
    return b""


def sources_of(plan: PatchPlan, folder: Path) -> Iterator[Sides]:
    """Both texts of each source that has changed functions, around the changes. `folder`: of the journal."""
    files = {row.file for row in plan.functions}
    for row in plan.texts:
        old, new = kept_text(row.before, folder), kept_text(row.after, folder)
        if row.path not in files or old is None or new is None:
            continue
        rows = near_changes(beside(old.splitlines(), new.splitlines()), _CONTEXT)
        if any(part[0] not in " …" for part in rows):
            yield Sides(row.said or "as it was compiled last", row.path, tuple(rows))
