"""The bytes and fixups of a lifted image's blocks, with the new object as the guide.

A block that equals its new counterpart but for the fixups is written down as the compiler wrote it: the new block's
bytes, and its fixups leading to what the image's fixups lead to. Unnamed constants are found that way, and become
blocks themselves; of constants that the compiler numbers (`names.0`) the counterpart is found that way. Everything
else is bytes; code gets the references that decoding finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ipbp.arch.fields import PC_RELATIVE
from ipbp.arch.instructions import CodeReference
from ipbp.arch.machines import machine_of
from ipbp.errors import IpbpError
from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import ABSOLUTE, I64, UNDEFINED, Binding, BlockKind, LinkGraph
from ipbp.stages.attest import UNKNOWN
from ipbp.stages.compilers import registers_of_results
from ipbp.stages.discriminators import without_discriminator
from ipbp.stages.identity import READ_ONLY, has_content_identity
from ipbp.stages.lifted_graph import EMPTY_KINDS, GraphMaker, LiftedEdge, LiftedSymbol
from ipbp.stages.meant import meant
from ipbp.stages.memory import read_pieces
from ipbp.stages.name_numbers import are_numbered, base_name, is_numbered
from ipbp.stages.panic_locations import POSITION, panic_locations
from ipbp.stages.reading import Reading, read_blocks
from ipbp.stages.wrapped import possible_names

_ASKING = "__tls_get_addr"
_NEAR = 4096
"""A page, of which only the start may be known; and more than the fields that a distance leads over."""
_TEXT = re.compile(rb"[\t-\r\x1b -~\x80-\xff]{2,}\0+", re.DOTALL)


@dataclass(slots=True)
class Outline:
    """The named blocks of a lifted image, not filled yet. `new`: the guide. Per old block in `guide_of` the new block
    that tells where its fixups are, or UNKNOWN; `block_at`: old blocks by load address."""

    new: LinkGraph
    maker: GraphMaker = field(default_factory=GraphMaker)
    guide_of: dict[int, int] = field(default_factory=dict)
    block_at: dict[int, int] = field(default_factory=dict)


def fill(outline: Outline, image: LoadedImage, read: MemoryReader) -> None:
    """Give every block of `outline.maker` its content. Code is read from memory, data from the file: what the
    program made of a variable is not its initial value."""
    _Filler(outline, image, read).run()


def section_of(graph: LinkGraph, block: int) -> tuple[str, int]:
    """Name of the section and alignment that a block of this guide has; nothing for UNKNOWN."""
    if block == UNKNOWN:
        return "", 1
    return graph.sections[int(graph.blocks.section[block])].name, int(graph.blocks.alignment[block])


class _Filler:
    """`unnamed`: blocks for unnamed constants by load address and size; `own`: symbols of named blocks; `cell_name`:
    whose address each pointer cell holds; `unsure`: (place, block, offset in it) of references that may mean a place
    near that one."""

    def __init__(self, outline: Outline, image: LoadedImage, read: MemoryReader) -> None:
        self.new, self.maker, self.image, self.read = outline.new, outline.maker, image, read
        self.guide_of, self.block_at = outline.guide_of, outline.block_at
        self.unnamed: dict[tuple[int, int], int] = {}
        self.own: dict[str, int] = {}
        for row, symbol in enumerate(self.maker.symbols):
            self.own.setdefault(symbol.name, row)
        self.cell_name = {cell: name for name, cells in image.slots.items() for cell in cells}
        self.unsure: list[tuple[int, int, int]] = []
        self.locations = panic_locations(self.new)
        self.by_content = has_content_identity(self.new, are_numbered(self.new.symbols.name))

    def run(self) -> None:
        waiting = list(self.guide_of)
        while waiting:
            known = len(self.maker.kinds)
            # Zeroed variables have neither bytes nor fixups, and may be larger than memory.
            waiting = [block for block in waiting if self.maker.kinds[block] not in EMPTY_KINDS]
            code = [block for block in waiting if self.maker.kinds[block] == BlockKind.CODE]
            self._fill_from(code, self.read)
            # What nothing guides yet may be guided by a use in the others.
            rest = [block for block in waiting if self.maker.kinds[block] != BlockKind.CODE]
            unguided = [block for block in rest if self.guide_of[block] == UNKNOWN]
            self._fill_from([block for block in rest if self.guide_of[block] != UNKNOWN], self._read_original)
            self._fill_from(unguided, self._read_original)
            waiting = list(range(known, len(self.maker.kinds)))
        if self.unsure:
            self._require_told()

    def _require_told(self) -> None:
        """Which variable a reference leads to that is not surely known matters for those that are known by who refers
        to them alone."""
        places = []
        for symbol in self._in_groups():
            if self.maker.kinds[symbol.block] not in READ_ONLY:
                start = self.maker.address[symbol.block] + symbol.offset
                places.append((start - _NEAR, start + symbol.size + _NEAR))
        for place, block, offset in self.unsure:
            if any(start <= place < end for start, end in places):
                raise self._not_lifted(block, offset)

    def _in_groups(self) -> Iterator[LiftedSymbol]:
        """Symbols of the image of which a compiler numbers several, and which the new object has, too."""
        names = {base_name(name) for name in self.new.symbols.name}
        both = (*self.new.symbols.name, *(symbol.name for symbol in self.maker.symbols))
        several = {stem for name in both if name.startswith("_ZZ") and (stem := without_discriminator(name)) != name}
        for symbol in self.maker.symbols:
            is_numbered_one = is_numbered(symbol.name) and base_name(symbol.name) in names
            is_discriminated = symbol.name.startswith("_ZZ") and without_discriminator(symbol.name) in several
            if symbol.block >= 0 and (is_numbered_one or is_discriminated):
                yield symbol

    def _read_original(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [self.image.original(address, size) for address, size in ranges]

    def _fill_from(self, blocks: Sequence[int], source: MemoryReader) -> None:
        guided = [block for block in blocks if self._is_guided(block)]
        guide = np.array([self.guide_of[block] for block in guided], dtype=np.int64)
        address = np.array([self.maker.address[block] for block in guided], dtype=np.int64)
        reading = read_blocks(self.new, guide, address, self.image, source, self.locations)
        edges, located = self._guided_edges(reading), set(self.locations.tolist())
        for index, matches in enumerate(reading.matches().tolist()):
            if matches:
                content = bytes(self.new.content(self.guide_of[guided[index]]))
                if self.guide_of[guided[index]] in located and (memory := reading.memory[index]):
                    content = content[: POSITION.start] + memory[POSITION]
                self.maker.fill(guided[index], content, edges[index])
            else:
                self._fill_with(guided[index], reading.memory[index])
        rest = [block for block in blocks if not self._is_guided(block)]
        places = np.array([self.maker.address[block] for block in rest], dtype=np.int64)
        sizes = np.array([self.maker.sizes[block] for block in rest], dtype=np.int64)
        for block, found in zip(rest, read_pieces(source, places, sizes), strict=True):
            self._fill_with(block, found)

    def _is_guided(self, block: int) -> bool:
        guide = self.guide_of[block]
        return guide != UNKNOWN and int(self.new.blocks.size[guide]) == self.maker.sizes[block]

    def _guided_edges(self, reading: Reading) -> list[list[LiftedEdge]]:
        """For each block of the reading the new block's edges, leading to what memory says."""
        edges, edge = self.new.edges, reading.edge
        columns = (
            reading.owner,
            edges.offset[edge],
            edges.kind[edge],
            edges.target[edge],
            edges.addend[edge],
            np.where(reading.known & (reading.means != UNKNOWN), reading.means, UNKNOWN),
            reading.cell,
            self._insides(edge),
        )
        found: list[list[LiftedEdge]] = [[] for _ in reading.memory]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        matches = reading.matches().tolist()
        for owner, offset, kind, hint, addend, means, cell, inside in rows:
            if matches[owner]:
                imported = self.image.imported(int(reading.address[owner]) + offset) if means == UNKNOWN else ""
                target, moved = (
                    self._target(hint, means, cell, inside)
                    if not imported
                    else (
                        self._imported(hint, imported),
                        0,
                    )
                )
                if cell == 0 and self.maker.symbols[target].name == self.new.symbols.name[hint]:
                    self.maker.note_place(target, means)
                found[owner].append(LiftedEdge(offset, kind, target, addend + moved))
        return found

    def _imported(self, hint: int, name: str) -> int:
        """The symbol whose address the loader writes into a pointer of the image's data. `name`: as it asks for it."""
        wanted = self.new.symbols.name[hint]
        is_same = name in (known for other in possible_names(wanted) for known in self.image.imported_as(other))
        return self._by_name(wanted if is_same else name)

    def _insides(self, edge: I64) -> I64:
        """How far into its target each new edge leads: a label in a function whose old code is laid out another way
        may seem to count from a place outside of it."""
        edges = self.new.edges
        kind, addend = edges.kind[edge], edges.addend[edge]
        in_code = self.new.blocks.kind[edges.block[edge]] == BlockKind.CODE
        # An instruction of x86-64 counts from its end, an entry of a table from the table.
        from_end = machine_of(self.new.machine).from_end
        relative = np.where(in_code, addend + from_end[kind], addend - edges.offset[edge])
        result: I64 = np.where(PC_RELATIVE[kind] == 1, relative, addend)
        return result

    def _target(self, hint: int, means: int, cell: int, inside: int) -> tuple[int, int]:
        """The old symbol that stands for the load address `means`, and what to add to the addend for it. `hint`:
        the new object's target. Where the fixup does not tell (UNKNOWN), the hint is believed: all else was equal."""
        name, home = self.new.symbols.name[hint], int(self.new.symbols.block[hint])
        if cell in self.cell_name:
            names = possible_names(name) if home == UNDEFINED else (name,)
            imports = (known for other in names for known in self.image.imported_as(other))
            is_same = any(cell in self.image.slots.get(known, ()) for known in imports)
            return self._by_name(name if is_same else self.cell_name[cell]), 0
        if means == UNKNOWN or home == ABSOLUTE:
            return self._by_name(name) if name else self._unnamed_place(hint, home, means), 0
        if means == 0 and self.new.symbols.binding[hint] == Binding.WEAK:
            return self._by_name(name), 0  # nobody defines it
        if home >= 0 and not self.new.symbols.name[int(self.new.blocks.anchor[home])]:
            return self._unnamed_place(hint, home, means), 0
        if home >= 0 and self.new.blocks.mergeable[home]:
            return self._unnamed_place(hint, home, means), 0
        if home >= 0 and self.by_content[home]:
            self._guide(means - int(self.new.symbols.offset[hint]), home)
        if means in self.image.stubs:
            stub = self.image.stubs[means]
            imports = (known for other in possible_names(name) for known in self.image.imported_as(other))
            is_same = self._is_at(name, self._first(stub)) or (home == UNDEFINED and stub in imports)
            return self._by_name(name if is_same else stub), 0
        if self._is_at(name, means):
            # Of several copies of a function the very one.
            several = len(self.image.symbols.by_name.get(name, ())) > 1 and means in self.block_at
            return self.maker.anchors[self.block_at[means]] if several else self._by_name(name), 0
        if home == UNDEFINED and any(self._is_at(other, means) for other in possible_names(name)):
            return self._by_name(name), 0
        found = self._at_address(means)
        if home >= 0 and self.new.blocks.kind[home] == BlockKind.CODE:
            label = self._at_address(means + inside)
            found = (label[0], label[1] - inside) if label else found
        return found or (self.maker.undefined(f"{means:#x}"), 0)

    def _guide(self, address: int, home: int) -> None:
        """The numbered constant at this address is what the new one is at the same use, whatever its number."""
        block = self.block_at.get(address)
        if block is not None and self.guide_of[block] == UNKNOWN and self.maker.kinds[block] in READ_ONLY:
            self.guide_of[block] = home

    def _first(self, name: str) -> int:
        rows = self.image.symbols.by_name.get(name, ())
        return int(self.image.symbols.address[rows[0]]) if rows else UNKNOWN

    def _is_at(self, name: str, address: int) -> bool:
        rows = self.image.symbols.by_name.get(name, ())
        return any(int(self.image.symbols.address[row]) == address for row in rows)

    def _by_name(self, name: str) -> int:
        """The old symbol of that name, made when it is another object's."""
        own = self.own.get(name)
        return self.maker.undefined(name) if own is None else own

    def _unnamed_place(self, hint: int, home: int, means: int) -> int:
        """The anchor of the unnamed old block that the new unnamed block `home` corresponds to at this use."""
        if means == UNKNOWN:
            return self.maker.undefined("unknown")
        address = means - int(self.new.symbols.offset[hint])
        size = int(self.new.blocks.size[home])
        block = self.unnamed.get((address, size))
        if block is None:
            section, alignment = section_of(self.new, home)
            kind = BlockKind(int(self.new.blocks.kind[home]))
            block = self.maker.add_block(address, size, kind, section, alignment, ())
            self.maker.mergeable[block] = bool(self.new.blocks.mergeable[home])
            self.unnamed[(address, size)] = block
            self.guide_of[block] = home
        return self.maker.anchors[block]

    def _at_address(self, address: int) -> tuple[int, int] | None:
        """The symbol at or around a load address, and the distance from its start."""
        table = self.image.symbols
        end = int(np.searchsorted(table.address, address, side="right"))
        for row in range(end - 1, max(-1, end - 9), -1):
            start, size = int(table.address[row]), int(table.size[row])
            if address == start or start <= address < start + size:
                if start in self.block_at:
                    return self.maker.anchors[self.block_at[start]], address - start
                return self.maker.undefined(table.name[row]), address - start
        return None

    def _fill_with(self, block: int, memory: bytes | None) -> None:
        """Bytes as they are. Code gets the references that decoding finds."""
        content = memory if memory is not None else bytes(self.maker.sizes[block])
        guide = self.guide_of[block]
        named = bool(self.maker.symbols[self.maker.anchors[block]].name)
        if guide != UNKNOWN and not named and _same_text(content, bytes(self.new.content(guide))):
            content = bytes(self.new.content(guide))
        is_code = self.maker.kinds[block] == BlockKind.CODE
        self.maker.fill(block, content, self._decoded_edges(block, content) if is_code else ())

    def _decoded_edges(self, block: int, code: bytes) -> list[LiftedEdge]:
        found = []
        for reference in self._references(block, code):
            place, after = reference.place, reference.after
            if place in self.cell_name:
                target = self._by_name(self.cell_name[place])
                found.append(LiftedEdge(reference.field, reference.cell_kind, target, -after))
                continue
            if place in self.image.stubs:
                target = self._by_name(self.image.stubs[place])
                found.append(LiftedEdge(reference.field, reference.kind, target, -after))
                continue
            at = self._at_address(place)
            if at is not None:
                found.append(LiftedEdge(reference.field, reference.kind, at[0], at[1] - after))
        asks = any(self.maker.symbols[edge.target].name == _ASKING for edge in found)
        if asks or machine_of(self.new.machine).reaches_threads(code):
            # With one to itself in front, which the next version does not have there: it is not to be taken for a
            # list of what is used, in that order.
            targets = [self.maker.anchors[block], *self._thread_variables] if self._thread_variables else []
            found += [LiftedEdge(0, EdgeKind.TPOFF64, target, 0) for target in targets]
        return found

    @cached_property
    def _thread_variables(self) -> list[int]:
        """Anchors of the thread-local ones that only their users tell apart. Which of them code uses is a number in it
        that may come from anywhere: it may use all."""
        kinds = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)
        blocks = {symbol.block: None for symbol in self._in_groups() if self.maker.kinds[symbol.block] in kinds}
        return [self.maker.anchors[block] for block in blocks]

    def _references(self, block: int, code: bytes) -> list[CodeReference]:
        """Those of a function that are meant, and surely."""
        start, results = self.maker.address[block], registers_of_results(self.new)
        references = meant(machine_of(self.new.machine).references(code, start, results), self._thing)
        self.unsure += [(row.place, block, row.field) for row in references if row.is_unsure]
        return [row for row in references if not row.is_unsure]

    def _thing(self, place: int) -> int | None:
        at = self._at_address(place)
        return None if at is None else at[0]

    def _not_lifted(self, block: int, offset: int) -> IpbpError:
        name = self.maker.symbols[self.maker.anchors[block]].name
        return IpbpError(
            "image-not-lifted",
            f"the object that {self.new.source or self.new.path} was linked from is not there, or is not the one that "
            f"runs, and what '{name}' of {self.image.path} refers to at +{offset:#x} is not told by its code",
            "Keep the build tree as the program was built, or do not change that function.",
        )


def _same_text(memory: bytes, wanted: bytes) -> bool:
    """Whether a string in a shared `.rodata` is the same one; how much fill follows it depends on its neighbours."""
    if not _TEXT.fullmatch(wanted):
        return False
    text = wanted.rstrip(b"\0") + b"\0"
    return memory.startswith(text)
