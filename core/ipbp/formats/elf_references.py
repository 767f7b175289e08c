"""What place a relocation means, when the file says "section plus addend".

Assemblers replace local names by their section: `counter(%rip)` becomes `.bss + 0x1c - 4`. A linker only adds, but
whoever moves the things in `.bss` apart must know which one is meant. Four rules find it:

* Code counts pc-relative operands from the end of the instruction, so the place is the addend plus the distance
  from the field to that end: 4 bytes and the immediate, if there is one.
* A label in a mergeable section means the element that it stands at.
* A jump table of relative entries holds `target - table`, and the field is not at the table's start, so the
  entry's distance from the start is part of the addend.
* Everything else means what it says.

Only where neighbours could be confused is code decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipbp.arch.fields import PC_RELATIVE, WIDTH
from ipbp.arch.x86_64_code import UNSURE, FieldUse, field_uses, immediate_sizes, is_memory_operand, takes_address
from ipbp.errors import IpbpError
from ipbp.formats.elf_blocks import NOT_PLACED, SECTION_SHIFT, Spans, key, mergeable
from ipbp.formats.elf_file import SHF_MERGE, STT_SECTION, ElfFile, ElfRelocations
from ipbp.formats.translated import TranslatedFile
from ipbp.graph.columns import Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, U8, BlockKind
from ipbp.graph.rows import distinct, is_one_of

_LARGEST_IMMEDIATE = 4
_MAKES_ADDRESS = (EdgeKind.LOW12, EdgeKind.ADDRESS21, EdgeKind.MOVE_G3)
_ACCESS = np.zeros(max(EdgeKind) + 1, dtype=np.int64)
_ACCESS[EdgeKind.LOW12_OF_8 : EdgeKind.LOW12_OF_128 + 1] = (1, 2, 4, 8, 16)
_ACCESS[EdgeKind.LITERAL19] = 4  # at least
_OFFSET_MASK = (1 << SECTION_SHIFT) - 1


@dataclass(frozen=True, slots=True)
class References:
    """One row a relocation that names a section (or a compiler's private label) and not a symbol.

    `row`: of the relocation. `base`: offset of the label in the section `home`. `place`: offset meant, as far as
    known. `unsure`: an immediate may follow, so `place` may be 1 to 4 too low. `address`: the instruction takes the
    address; `plain`: it reads or writes memory right there. `holder`: key of the field. `in_code`: so is the field.
    `by_section`: the relocation names the section itself, no label in it. `width`: bytes that the instruction uses
    there, where the relocation says it, else 0.
    """

    row: I64
    home: I64
    base: I64
    place: I64
    holder: I64
    unsure: npt.NDArray[np.bool_]
    address: npt.NDArray[np.bool_]
    plain: npt.NDArray[np.bool_]
    in_code: npt.NDArray[np.bool_]
    pc_relative: npt.NDArray[np.bool_]
    by_section: npt.NDArray[np.bool_]
    width: I64

    def keys(self, sizes: I64) -> I64:
        """The key of each place, held within its section."""
        return key(self.home, np.clip(self.place, 0, sizes[self.home]))


def references(file: ElfFile, placement: U8, relocations: ElfRelocations, kinds: U8, rows: I64) -> References:
    """How the relocations `rows` (whose symbols are labels of placed sections) refer to their places."""
    symbols = file.symbols
    symbol = relocations.symbol[rows]
    holder, kind = relocations.section[rows], kinds[rows]
    in_code = placement[holder] == BlockKind.CODE
    pc_relative = PC_RELATIVE[kind] == 1
    counted = in_code & pc_relative & (WIDTH[kind] == 4)
    base = symbols.value[symbol]
    place = base + relocations.addend[rows]

    width = _ACCESS[kind]
    if not in_code.any():  # as in debug information
        immediate = np.zeros(len(rows), dtype=np.int64)
        lea = memory = in_code
    elif file.machine == "x86_64":
        octets = file.octets
        field = np.where(counted, file.sections.start[holder] + relocations.offset[rows], 0)
        immediate = np.where(counted, immediate_sizes(octets, field), 0)
        lea = counted & takes_address(octets, field)
        memory = counted & is_memory_operand(octets, field)
        place = place + np.where(counted, 4 + np.maximum(immediate, 0), 0)
    else:
        immediate = np.zeros(len(rows), dtype=np.int64)
        lea, memory = in_code & np.isin(kind, _MAKES_ADDRESS), in_code & (width > 0)
    absolute = ~pc_relative & (placement[holder] != NOT_PLACED)
    unwind = (placement[holder] == NOT_PLACED) & ((file.sections.flags[holder] & np.uint64(2)) != 0)
    return References(
        row=rows,
        home=symbols.section[symbol],
        base=base,
        place=place,
        holder=key(holder, relocations.offset[rows]),
        unsure=immediate == UNSURE,
        address=lea | absolute | unwind,
        plain=memory & ~lea,
        in_code=in_code,
        pc_relative=pc_relative,
        by_section=symbols.type[symbol] == STT_SECTION,
        width=width,
    )


def decoded(file: ElfFile, placement: U8, refs: References, spans: Spans) -> tuple[References, I64]:
    """The references with every doubtful place settled by decoding, and for plain uses of unnamed constants the
    number of bytes used (0 elsewhere). `spans`: the blocks as far as they are known without this.

    Errors: `object-undecodable` when code cannot be read and neighbours could be confused.
    """
    low = refs.keys(file.sections.size)
    high = replace(refs, place=refs.place + np.where(refs.unsure, _LARGEST_IMMEDIATE, 0)).keys(file.sections.size)
    here = spans.find(low)
    ambiguous = refs.unsure & (here != spans.find(high))
    unnamed = refs.plain & is_one_of(placement[refs.home], (BlockKind.RODATA, BlockKind.RELRO))
    unnamed &= ~spans.named[np.maximum(here, 0)] & ~mergeable(file.sections, placement)[refs.home]
    place, access = refs.place.copy(), np.where(unnamed, refs.width, 0)
    # Nothing is cut where every reference into a section is to its start, as with a section for each constant.
    parted = np.zeros(len(file.sections), dtype=np.bool_)
    parted[refs.home[unnamed & ((refs.place != 0) | refs.unsure)]] = True
    plain = unnamed & (refs.width == 0) & ~ambiguous & parted[refs.home]
    last, told = _at_the_last_place(refs, unnamed, plain), np.zeros(len(file.sections), dtype=np.bool_)
    first = np.zeros(len(plain), dtype=np.bool_)
    first[last[np.unique(refs.home[last], return_index=True)[1]]] = True
    others = np.setdiff1d(last, np.flatnonzero(first))
    plain[others] = False
    for index, use in _uses(file, refs, spans, np.flatnonzero(ambiguous | plain)):
        if use is not None:
            place[index] += use.after - 4 if refs.unsure[index] else 0
            access[index] = use.access
        elif ambiguous[index]:
            _undecodable(file, refs, index)
    told[refs.home[first & (access > 0)]] = True
    for index, use in _uses(file, refs, spans, others[~told[refs.home[others]]]):
        access[index] = use.access if use is not None else 0
    return replace(refs, place=place), access


def _at_the_last_place(refs: References, unnamed: Flags, plain: Flags) -> npt.NDArray[np.intp]:
    """Of the `plain` uses those of a section's last place, where all places in it are sure. How many bytes such a one
    uses makes no difference to where the section is cut, only that there is one that uses some."""
    count = int(refs.home.max(initial=-1)) + 1
    last, is_sure = np.full(count, -1, dtype=np.int64), np.ones(count, dtype=np.bool_)
    np.maximum.at(last, refs.home[unnamed], refs.place[unnamed])
    is_sure[refs.home[unnamed & refs.unsure]] = False
    return np.flatnonzero(plain & (refs.place == last[refs.home]) & is_sure[refs.home])


def _uses(
    file: ElfFile, refs: References, spans: Spans, wanted: npt.NDArray[np.intp]
) -> list[tuple[int, FieldUse | None]]:
    """For each wanted reference its use, decoding every function that holds some of them once."""
    found: list[tuple[int, FieldUse | None]] = []
    order = wanted[np.argsort(refs.holder[wanted], kind="stable")]
    function = spans.find(refs.holder[order])
    edges = np.flatnonzero(np.diff(function, prepend=-2, append=-2))
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        start, end = int(spans.start[function[first]]), int(spans.end[function[first]])
        at = int(file.sections.start[start >> SECTION_SHIFT]) + (start & _OFFSET_MASK)
        members = order[first:last].tolist()
        fields = [int(refs.holder[member]) - start for member in members]
        uses = field_uses(bytes(file.content[at : at + end - start]), fields)
        found += [(member, uses.get(field)) for member, field in zip(members, fields, strict=True)]
    return found


def up_to_labels(file: TranslatedFile, placement: U8, refs: References, start: I64, size: I64) -> I64:
    """The sizes of symbols that are only known to end where the next one begins, without what follows them among
    constants and is referred to by its section: LLVM's assembler says that of private labels alone (COFF). GNU's says
    it of static symbols, too, also of a place inside one; so what may be written stays together, and so does what has a
    section of its own."""
    if not file.ends_at_labels or len(start) == 0:
        return size
    sure = refs.by_section & ~refs.unsure & (placement[refs.home] == BlockKind.RODATA) & ~_are_alone(file)[refs.home]
    labels = np.append(distinct(refs.keys(file.sections.size)[sure]), np.iinfo(np.int64).max)
    following = labels[np.searchsorted(labels, start, side="right")]
    return np.minimum(size, following - start)


def _are_alone(file: TranslatedFile) -> Flags:
    """For each section whether it is there for the symbol alone that its name says (`.rdata$limits`)."""
    symbols, sections = file.symbols, file.sections
    begins = np.flatnonzero((symbols.section > 0) & (symbols.value == 0) & symbols.name.are_given())
    home = symbols.section[begins]
    result = np.zeros(len(sections), dtype=np.bool_)
    for row, section in zip(begins.tolist(), home.tolist(), strict=True):
        result[section] |= sections.name[section].partition("$")[2] == symbols.name[row]
    return result


def safe_cuts(file: ElfFile, refs: References, access: I64, spans: Spans, fixups: I64) -> I64:
    """Keys where unnamed constants may be cut because code reads them right there (gcc -O0: doubles and strings
    share `.rodata`). Not cut: what another access reaches across, and what could be the inside of an object whose
    address is taken, which is anything but a finished string or a table of fixups before it.
    """
    rows = np.flatnonzero(access > 0)
    starts = refs.keys(file.sections.size)[rows]
    order = np.argsort(starts, kind="stable")
    starts, sizes = starts[order], access[rows][order]
    reach = np.maximum.accumulate(starts + sizes) if len(rows) else starts
    free = np.ones(len(rows), dtype=np.bool_)
    free[1:] = (starts[1:] >= reach[:-1]) | (starts[1:] == starts[:-1])
    taken = distinct(refs.keys(file.sections.size)[refs.address])
    result: list[int] = []
    for place in distinct(starts[free]).tolist():
        span = int(spans.find(np.array([place]))[0])
        start = int(spans.start[span])
        if result and start < result[-1] < place:
            result.append(place)
        elif start < place:
            address_taken = bool(np.isin(start, taken))
            if not address_taken or _is_finished(file, start, place, fixups):
                result.append(place)
    return np.array(result, dtype=np.int64)


def _is_finished(file: ElfFile, start: int, end: int, fixups: I64) -> bool:
    """Whether [start, end) is a string with fill behind it, or a table of fixups with fill behind it."""
    at = int(file.sections.start[start >> SECTION_SHIFT]) + (start & _OFFSET_MASK)
    content = bytes(file.content[at : at + end - start])
    inside = fixups[np.searchsorted(fixups, start) : np.searchsorted(fixups, end)]
    if len(inside):
        pitch = 8 if len(inside) > 1 and int(inside[1] - inside[0]) == 8 else 4
        table = start + pitch * len(inside)
        is_dense = int(inside[-1]) + pitch == table and end - table < 64
        return is_dense and not any(content[table - start :])
    _text, zero, rest = content.partition(b"\0")
    return bool(zero) and len(rest) < 64 and not any(rest)


def table_places(file: ElfFile, refs: References, spans: Spans) -> References:
    """The references with the entries of relative tables in unnamed data settled: place = addend - (field - start of
    the table). The exception tables of C++ count from the field itself (LSB, DW_EH_PE_pcrel)."""
    holder_section = refs.holder >> SECTION_SHIFT
    table = spans.find(refs.holder)
    relative = refs.pc_relative & ~refs.in_code & (table >= 0)
    if not relative.any():
        return refs
    relative &= ~spans.named[np.maximum(table, 0)]
    relative &= ~file.sections.name.start_with(b".gcc_except_table")[holder_section]
    from_start = refs.place - (refs.holder - spans.start[np.maximum(table, 0)])
    fits = relative & (from_start >= 0) & (from_start <= file.sections.size[refs.home])
    return replace(refs, place=np.where(fits, from_start, refs.place))


def element_places(file: ElfFile, refs: References) -> References:
    """The references to elements of mergeable sections by a label of their own settled: the element is the label's,
    whatever is added. Linkers move elements apart, so assemblers keep the label wherever the sum would mislead them
    (clang's tables of relative string addresses: `.L.str.3 + 12`)."""
    settled = ((file.sections.flags[refs.home] & np.uint64(SHF_MERGE)) != 0) & ~refs.by_section
    return replace(refs, place=np.where(settled, refs.base, refs.place))


def _undecodable(file: ElfFile, refs: References, index: int) -> None:
    section = int(refs.holder[index]) >> SECTION_SHIFT
    offset = int(refs.holder[index]) & _OFFSET_MASK
    raise IpbpError(
        "object-undecodable",
        f"{file.path}: the instruction at {file.sections.name[section]}+{offset:#x} cannot be decoded, so it is "
        "not known which variable it uses",
        "Build with -fdata-sections -ffunction-sections.",
    )
