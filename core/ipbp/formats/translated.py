"""An object of another format in the terms of ELF's tables.

What is cut into blocks, and what a fixup means that names a section and a place in it, does not depend on the file
format: sections, symbols, relocations with an addend. So the readers of Mach-O and COFF make the tables that the ELF
reader makes, and what follows is one for all (`elf_object.graph_of`). Three things differ: relocations already are
edge kinds, symbols have no size and reach to the next one, and a private label may keep bytes together (an atom).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.formats.elf_blocks import key
from ipbp.formats.elf_file import ElfFile, ElfRelocations, ElfSections, ElfSymbols, RelocationTables, malformed
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.image import ImageSymbols
from ipbp.graph.model import LinkGraph
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, distinct, ragged, words_at


@dataclass(frozen=True, slots=True)
class TranslatedFile(ElfFile):
    """`every`: all relocations; `type` is an `EdgeKind`, and the addend counts as that kind's equation has it. Row 0 of
    sections and symbols stands for nothing, as in ELF. `source`: of the translation unit. `atoms`: keys and sizes of
    what private labels keep together. `ends_at_labels`: what follows a private label in data is not its neighbour's."""

    machine_name: str
    every: ElfRelocations
    source: str
    atoms: tuple[I64, I64]
    ends_at_labels: bool

    @property
    def machine(self) -> str:
        return self.machine_name

    def relocations_of(self, holders: Flags) -> ElfRelocations:
        rows = np.flatnonzero(holders[self.every.section])
        every = self.every
        return ElfRelocations(
            every.section[rows], every.offset[rows], every.type[rows], every.symbol[rows], every.addend[rows]
        )

    def edge_kinds(self, types: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> U8:
        return types.astype(np.uint8)


def translated(
    path: str,
    content: memoryview,
    octets: U8,
    machine: str,
    tables: tuple[ElfSections, ElfSymbols, ElfRelocations],
    source: str,
    atoms: tuple[I64, I64],
    ends_at_labels: bool,
) -> TranslatedFile:
    """The file of these tables, whose indices must be right."""
    sections, symbols, every = tables
    refers = np.zeros(len(symbols), dtype=np.bool_)
    refers[every.symbol] = True
    holder = distinct(every.section)
    count = np.bincount(every.section, minlength=len(sections))[holder]
    columns = RelocationTables(holder, np.zeros_like(holder), count, refers, distinct(every.type.astype(np.int64)))
    return TranslatedFile(
        path, content, octets, sections, symbols, columns, machine, every, source, atoms, ends_at_labels
    )


def sizes_to_next(section: I64, value: I64, starts: Flags, limit: I64) -> I64:
    """How far each symbol reaches: to the next place at which one of `starts` begins, or to its section's end."""
    place = key(section, value)
    ends = key(np.arange(len(limit)), limit)
    points = distinct(np.concatenate([place[starts & (section > 0)], ends]))
    following = points[np.minimum(np.searchsorted(points, place, side="right"), len(points) - 1)]
    size = np.clip(np.minimum(following, ends[np.maximum(section, 0)]) - place, 0, None)
    return np.where(section > 0, size, 0)


def signed_fields(octets: U8, at: I64, width: I64) -> I64:
    """The little-endian number of `width` bytes at each place in the file, sign-extended."""
    shift = 64 - 8 * np.maximum(width, 1)
    result: I64 = words_at(octets, at).view(np.int64) << shift >> shift
    return result


def check_inside(path: str, start: I64, size: I64, length: int) -> None:
    """Error `object-malformed` where a stretch does not lie in the file."""
    if ((start < 0) | (size < 0) | (start > length) | (size > length - np.minimum(start, length))).any():
        malformed(path, "a section is not inside the file")


def no_names(octets: U8, count: int) -> Names:
    return Names(ByteRows(octets, np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)))


def rows_of_tables(start: I64, count: I64, size: int, holder: I64) -> tuple[I64, I64]:
    """For tables of `count` records of `size` bytes: the place of each record in the file, and its table's holder."""
    owner, within = ragged(count)
    return start[owner] + within * size, holder[owner]


def refuse_types(path: str, found: list[tuple[str, str]]) -> None:
    """Raise one `relocation-unsupported` for each (section, name of a relocation), if there are any."""
    if found:
        raise Refused(
            Refusal(
                "relocation-unsupported",
                f"{section} needs a relocation of the type {name}",
                "Build this file without the option that causes it.",
                file=path,
            )
            for section, name in dict.fromkeys(found)
        )


def block_at(graph: LinkGraph, place: I64) -> I64:
    """The block that has each byte of the file; -1 where none has."""
    blocks, held = graph.blocks, graph.sections.content
    filled = np.flatnonzero((held.length[blocks.section] > 0) & (blocks.size > 0))
    start = held.start[blocks.section[filled]] + blocks.offset[filled]
    order = np.argsort(start, kind="stable")
    filled, start = filled[order], start[order]
    if len(filled) == 0:
        return np.full(len(place), -1, dtype=np.int64)
    row = np.maximum(np.searchsorted(start, place, side="right") - 1, 0)
    inside = (start[row] <= place) & (place < start[row] + blocks.size[filled[row]])
    return np.where(inside, filled[row], -1)


def described(file: TranslatedFile, graph: LinkGraph, holders: Flags, size: int, function: int, table: int) -> I64:
    """Rows of a block of code and the block that describes it. `holders`: sections of records of `size` bytes, with
    pointers to both at the offsets `function` and `table`."""
    rows = file.relocations_of(holders)
    home = file.symbols.section[rows.symbol]
    place = file.sections.start[np.maximum(home, 0)] + file.symbols.value[rows.symbol] + rows.addend
    block = np.where(home > 0, block_at(graph, place), -1)
    record = key(rows.section, rows.offset // size)
    found = []
    for field in (function, table):
        chosen = np.flatnonzero((rows.offset % size == field) & (block >= 0))
        found.append(chosen[np.argsort(record[chosen], kind="stable")])
    one, other = found
    both, first, second = np.intersect1d(record[one], record[other], return_indices=True)
    del both
    return np.stack([block[one[first]], block[other[second]]], axis=1)


def text(name: str | bytes) -> str:
    """A name as lief gives it: bytes where it is no UTF-8."""
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


@contextmanager
def image_errors() -> Iterator[None]:
    """What is wrong with a file, said of an image."""
    try:
        yield
    except IpbpError as error:
        code = error.code.replace("object-", "image-")
        raise IpbpError(code, error.fact, error.advice) from error


def image_symbols(name: Names, address: I64, size: I64, binding: I64, type_: I64, rows: I64) -> ImageSymbols:
    """The chosen rows, by address."""
    rows = rows[np.argsort(address[rows], kind="stable")]
    names = name.take(rows)
    return ImageSymbols(
        name=names,
        address=address[rows],
        size=size[rows],
        binding=binding[rows].astype(np.uint8),
        type=type_[rows].astype(np.uint8),
        file=np.full(len(rows), -1, dtype=np.int64),
        files=(),
        by_name=NameIndex(names),
    )
