"""The running image as the old side of a comparison, when no old object fits it any more.

The image has the code but not the relocations. The new object is the guide: most of its functions are in the image
with the same size and, fixups masked, the same bytes, so its fixups are where those of the old object were, and
memory says where they lead. What the linker rewrote is written back. Functions of another size come as bytes with
the references that decoding finds; they have changed anyway, and the references tell which static variable is which.

A variable's old content is what the file has, not what the program made of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ipbp.arch.x86_64 import PC_RELATIVE, WIDTH
from ipbp.arch.x86_64_references import code_references
from ipbp.errors import IpbpError
from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import ABSOLUTE, I64, Binding, BlockKind, LinkGraph, SymbolType
from ipbp.stages.attest import UNKNOWN, Attestation
from ipbp.stages.candidates import candidates
from ipbp.stages.lifted_graph import GraphMaker, LiftedEdge, LiftedSymbol
from ipbp.stages.memory import read_pieces
from ipbp.stages.reading import Reading, read_blocks
from ipbp.stages.reshape import reshaped

_CONSTANT = (BlockKind.CODE, BlockKind.RODATA, BlockKind.RELRO)
_ZEROED = (BlockKind.BSS, BlockKind.TLS_BSS)
_TEXT = re.compile(rb"[\t-\r\x1b -~\x80-\xff]{2,}\0+", re.DOTALL)


def lift(new: LinkGraph, image: LoadedImage, read: MemoryReader) -> tuple[LinkGraph, Attestation]:
    """The unit that `new` is the next version of, as the image has it, and the addresses of its symbols.

    Errors: `unit-ambiguous` when several files of that name are linked in and none of them fits best.
    """
    return _Lifter(new, image, read).run()


class _Lifter:
    """`row_of`: per new symbol its row in the image, UNKNOWN when it has none. `place_of`: per new block its load
    address. `block_at`: old blocks by load address, named ones; `unnamed`: by address and size; `own`: the
    symbols of named old blocks; `guide_of`: per old block the new one that tells where its fixups are, or UNKNOWN."""

    def __init__(self, new: LinkGraph, image: LoadedImage, read: MemoryReader) -> None:
        self.new, self.image, self.read = new, image, read
        self.row_of = np.full(len(new.symbols), UNKNOWN, dtype=np.int64)
        self.place_of = np.full(len(new.blocks), UNKNOWN, dtype=np.int64)
        self.maker = GraphMaker()
        self.block_at: dict[int, int] = {}
        self.guide_of: dict[int, int] = {}
        self.own: dict[str, int] = {}
        self.unnamed: dict[tuple[int, int], int] = {}
        self.cell_name = {cell: name for name, cells in image.slots.items() for cell in cells}
        self.starts = np.array([part.start for part in image.parts], dtype=np.int64)

    def run(self) -> tuple[LinkGraph, Attestation]:
        unit = self._unit()
        self._choose_rows(unit)
        self.new = reshaped(self.new, self._code_of_other_bytes())
        self._add_guided_blocks()
        self._add_other_blocks(unit)
        for row, symbol in enumerate(self.maker.symbols):
            self.own.setdefault(symbol.name, row)
        self._fill_constant_blocks()
        self._fill_variables()
        graph = self.maker.graph(self.image.path, self.new.source, self.new.machine)
        return graph, self._attestation(graph)

    def _unit(self) -> int:
        """Which of the image's files is this unit: the one of its name; of several the one whose static functions
        are most like the new ones. UNKNOWN when the image does not say."""
        named = candidates(self.new, self.image)
        local = self.new.symbols.binding[named.symbol] == Binding.LOCAL
        file = self.image.symbols.file[named.row]
        instances = np.unique(file[local & (file >= 0)]).tolist()
        if len(instances) <= 1:
            return int(instances[0]) if instances else UNKNOWN
        score = {}
        for instance in instances:
            rows = np.flatnonzero(local & (file == instance))
            block, address = self._same_size_code(named.symbol[rows], named.row[rows])
            matches = read_blocks(self.new, block, address, self.image, self.read).matches()
            score[instance] = (int(matches.sum()), len(rows))
        best = max(score.values())
        winners = [instance for instance in instances if score[instance] == best]
        if len(winners) > 1:
            raise IpbpError(
                "unit-ambiguous",
                f"{self.image.path} has {len(instances)} files named {self.new.source}, and it is not clear which of "
                "them this is",
                "Build and start the program once more, so that the old object is there to tell them apart.",
            )
        return int(winners[0])

    def _same_size_code(self, symbol: I64, row: I64) -> tuple[I64, I64]:
        block = self.new.symbols.block[symbol].astype(np.int64)
        fits = (block >= 0) & (self.new.symbols.offset[symbol] == 0)
        fits &= self.image.symbols.size[row] == self.new.blocks.size[np.maximum(block, 0)]
        fits &= self.new.blocks.kind[np.maximum(block, 0)] == BlockKind.CODE
        return block[fits], self.image.symbols.address[row[fits]]

    def _choose_rows(self, unit: int) -> None:
        named = candidates(self.new, self.image)
        table = self.image.symbols
        for symbol, row in zip(named.symbol.tolist(), named.row.tolist(), strict=True):
            foreign = table.file[row] >= 0 and table.file[row] != unit
            if not foreign and (self.row_of[symbol] == UNKNOWN or self._size_differs(symbol, self.row_of[symbol])):
                self.row_of[symbol] = row

    def _code_of_other_bytes(self) -> dict[int, bytes]:
        """Memory of the functions that both sides have by name and that differ there, by new block."""
        symbol = self.new.blocks.anchor[np.flatnonzero(self.new.blocks.kind == BlockKind.CODE)].astype(np.int64)
        symbol = symbol[self.row_of[symbol] != UNKNOWN]
        row, block = self.row_of[symbol], self.new.symbols.block[symbol].astype(np.int64)
        equal, address = self._same_size_code(symbol, row)
        reading = read_blocks(self.new, equal, address, self.image, self.read)
        different = ~np.isin(block, equal[reading.matches()])
        row, block = row[different], block[different]
        memory = read_pieces(self.read, self.image.symbols.address[row], self.image.symbols.size[row])
        return {b: content for b, content in zip(block.tolist(), memory, strict=True) if content}

    def _size_differs(self, symbol: int, row: int) -> bool:
        return bool(self.image.symbols.size[row] != self.new.symbols.size[symbol])

    def _add_guided_blocks(self) -> None:
        """A block for everything that both sides have by name."""
        symbols, table = self.new.symbols, self.image.symbols
        members: dict[int, list[int]] = {}
        for symbol in np.flatnonzero(self.row_of != UNKNOWN).tolist():
            block = int(symbols.block[symbol])
            if block >= 0:
                members.setdefault(block, []).append(symbol)
            else:  # a tentative definition
                self._add_named(int(self.row_of[symbol]), [symbol], guide=UNKNOWN)
        for block, inside in members.items():
            anchor = int(self.new.blocks.anchor[block])
            first = anchor if self.row_of[anchor] != UNKNOWN else inside[0]
            if symbols.offset[first] != 0:
                continue  # the block's start has no name in the image
            row = int(self.row_of[first])
            if int(table.address[row]) in self.block_at:
                continue  # one place for two functions of the same code (identical code folding)
            self.place_of[block] = table.address[row]
            others = [symbol for symbol in inside if symbol != first]
            self._add_named(row, [first, *others], guide=block)

    def _add_named(self, row: int, names: Sequence[int], guide: int) -> None:
        table, symbols = self.image.symbols, self.new.symbols
        address, size = int(table.address[row]), int(table.size[row])
        if guide != UNKNOWN:
            size = size or int(self.new.blocks.size[guide])
            if all(int(symbols.size[name]) == int(table.size[self.row_of[name]]) for name in names):
                size = int(self.new.blocks.size[guide])  # symbols that overlap or a tail without a name
        kind = self._kind_at(address, bool(table.type[row] == SymbolType.TLS))
        if kind is None:
            return
        rows = [
            LiftedSymbol(
                symbols.name[name],
                0,
                int(table.address[self.row_of[name]]) - address,
                int(table.size[self.row_of[name]]),
                int(symbols.binding[name]),
                int(symbols.type[name]),
                int(symbols.visibility[name]),
            )
            for name in names
        ]
        section, alignment = self._section_of(guide)
        block = self.maker.add_block(address, size, kind, section, alignment, rows)
        self.block_at[address] = block
        self.guide_of[block] = guide

    def _add_other_blocks(self, unit: int) -> None:
        """Static functions and variables of this file that the new object does not have by name."""
        table = self.image.symbols
        if unit == UNKNOWN:
            return
        for row in np.flatnonzero((table.file == unit) & (table.size > 0)).tolist():
            address = int(table.address[row])
            kind = self._kind_at(address, bool(table.type[row] == SymbolType.TLS))
            if address in self.block_at or kind is None or not table.name[row]:
                continue
            symbol = LiftedSymbol(
                table.name[row], 0, 0, int(table.size[row]), int(table.binding[row]), int(table.type[row])
            )
            block = self.maker.add_block(address, int(table.size[row]), kind, "", 1, [symbol])
            self.block_at[address] = block
            self.guide_of[block] = UNKNOWN

    def _section_of(self, guide: int) -> tuple[str, int]:
        if guide == UNKNOWN:
            return "", 1
        section = self.new.sections[int(self.new.blocks.section[guide])]
        return section.name, int(self.new.blocks.alignment[guide])

    def _kind_at(self, address: int, thread_local: bool) -> BlockKind | None:
        tls = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)
        for part in self.image.parts:
            if part.start <= address < part.end and (part.kind in tls) == thread_local:
                return part.kind
        return None

    def _fill_constant_blocks(self) -> None:
        """Code and constants, from memory. Guided ones lead to unnamed constants, which are filled the same way."""
        waiting = [b for b in self.guide_of if self.maker.kinds[b] in _CONSTANT]
        while waiting:
            known = len(self.maker.kinds)
            guided = [b for b in waiting if self._is_guided(b)]
            guide = np.array([self.guide_of[b] for b in guided], dtype=np.int64)
            address = np.array([self.maker.address[b] for b in guided], dtype=np.int64)
            reading = read_blocks(self.new, guide, address, self.image, self.read)
            matched = reading.matches().tolist()
            edges = self._guided_edges(reading)
            for index, block in enumerate(guided):
                if matched[index]:
                    content = bytes(self.new.content(self.guide_of[block]))
                    self.maker.fill(block, content, edges[index])
                else:
                    self._fill_from_memory(block, reading.memory[index])
            rest = [b for b in waiting if not self._is_guided(b)]
            places = np.array([self.maker.address[b] for b in rest], dtype=np.int64)
            sizes = np.array([self.maker.sizes[b] for b in rest], dtype=np.int64)
            for block, memory in zip(rest, read_pieces(self.read, places, sizes), strict=True):
                self._fill_from_memory(block, memory)
            waiting = list(range(known, len(self.maker.kinds)))

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
                target, moved = self._target(hint, means, cell, inside)
                found[owner].append(LiftedEdge(offset, kind, target, addend + moved))
        return found

    def _insides(self, edge: I64) -> I64:
        """How far into its target each new edge leads: a label in a function whose old code is laid out another way
        may seem to count from a place outside of it."""
        edges = self.new.edges
        kind, addend = edges.kind[edge], edges.addend[edge]
        in_code = self.new.blocks.kind[edges.block[edge]] == BlockKind.CODE
        # An instruction counts from its end, an entry of a table from the table.
        relative = np.where(in_code, addend + WIDTH[kind], addend - edges.offset[edge])
        result: I64 = np.where(PC_RELATIVE[kind] == 1, relative, addend)
        return result

    def _target(self, hint: int, means: int, cell: int, inside: int) -> tuple[int, int]:
        """The old symbol that stands for the load address `means`, and what to add to the addend for it. `hint`:
        the new object's target. Where the fixup does not tell (UNKNOWN), the hint is believed: all else was equal."""
        name, home = self.new.symbols.name[hint], int(self.new.symbols.block[hint])
        if cell in self.cell_name:
            name = name if cell in self.image.slots.get(name, ()) else self.cell_name[cell]
            return self._by_name(name), 0
        if means == UNKNOWN or home == ABSOLUTE:
            return self._by_name(name) if name else self._unnamed_place(hint, home, means), 0
        if home >= 0 and not self.new.symbols.name[int(self.new.blocks.anchor[home])]:
            return self._unnamed_place(hint, home, means), 0
        if home >= 0 and self.new.blocks.mergeable[home]:
            return self._unnamed_place(hint, home, means), 0
        if means in self.image.stubs:
            stub = self.image.stubs[means]
            return self._by_name(stub if not self._is_at(name, self._first(stub)) else name), 0
        if self._is_at(name, means):
            return self._by_name(name), 0
        found = self._at_address(means)
        if home >= 0 and self.new.blocks.kind[home] == BlockKind.CODE:
            label = self._at_address(means + inside)
            found = (label[0], label[1] - inside) if label else found
        return found or (self.maker.undefined(f"{means:#x}"), 0)

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
            section, alignment = self._section_of(home)
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

    def _fill_from_memory(self, block: int, memory: bytes | None) -> None:
        """Bytes as they are in memory. Code gets the references that decoding finds."""
        content = memory if memory is not None else bytes(self.maker.sizes[block])
        guide = self.guide_of[block]
        named = bool(self.maker.symbols[self.maker.anchors[block]].name)
        if guide != UNKNOWN and not named and _same_text(content, bytes(self.new.content(guide))):
            content = bytes(self.new.content(guide))
        is_code = self.maker.kinds[block] == BlockKind.CODE
        self.maker.fill(block, content, self._decoded_edges(block, content) if is_code else ())

    def _decoded_edges(self, block: int, code: bytes) -> list[LiftedEdge]:
        start = self.maker.address[block]
        found = []
        for reference in code_references(code):
            place, after = start + reference.place, reference.after
            if place in self.cell_name:
                target = self._by_name(self.cell_name[place])
                found.append(LiftedEdge(reference.field, EdgeKind.GOT_PCREL32, target, -after))
                continue
            if place in self.image.stubs:
                target = self._by_name(self.image.stubs[place])
                found.append(LiftedEdge(reference.field, reference.kind, target, -after))
                continue
            at = self._at_address(place)
            if at is not None:
                found.append(LiftedEdge(reference.field, reference.kind, at[0], at[1] - after))
        return found

    def _fill_variables(self) -> None:
        """Initial values, from the file. Pointers in a variable of the same size are taken to be the new ones: the
        file does not tell them apart from numbers."""
        for block, guide in list(self.guide_of.items()):
            if self.maker.kinds[block] in _CONSTANT:
                continue
            size = self.maker.sizes[block]
            content = self.image.original(self.maker.address[block], size) or bytes(size)
            if not self._is_guided(block):
                self.maker.fill(block, content, ())
                continue
            wanted = bytes(self.new.content(guide)).ljust(size, b"\0")
            edges = []
            octets = bytearray(content)
            rows = self.new.edges_of(guide)
            for row in range(rows.start, rows.stop):
                offset, kind = int(self.new.edges.offset[row]), EdgeKind(int(self.new.edges.kind[row]))
                width = int(WIDTH[kind])
                octets[offset : offset + width] = wanted[offset : offset + width]
                hint = int(self.new.edges.target[row])
                target = self._believed(hint)
                edges.append(LiftedEdge(offset, kind, target, int(self.new.edges.addend[row])))
            self.maker.fill(block, bytes(octets), edges)

    def _believed(self, hint: int) -> int:
        """The old symbol for a pointer that is taken to be as the new one."""
        name, home = self.new.symbols.name[hint], int(self.new.symbols.block[hint])
        if name:
            return self._by_name(name)
        for (_address, _size), block in self.unnamed.items():
            if self.guide_of[block] == home:
                return self.maker.anchors[block]
        section, alignment = self._section_of(home)
        size, kind = int(self.new.blocks.size[home]), BlockKind(int(self.new.blocks.kind[home]))
        block = self.maker.add_block(UNKNOWN, size, kind, section, alignment, ())
        self.maker.mergeable[block] = bool(self.new.blocks.mergeable[home])
        self.unnamed[(UNKNOWN, len(self.unnamed))] = block
        self.guide_of[block] = home
        content, rows = bytes(self.new.content(home)), self.new.edges_of(home)
        inner = [
            LiftedEdge(
                int(self.new.edges.offset[row]),
                EdgeKind(int(self.new.edges.kind[row])),
                self._believed(int(self.new.edges.target[row])),
                int(self.new.edges.addend[row]),
            )
            for row in range(rows.start, rows.stop)
        ]
        self.maker.fill(block, content, inner)
        return self.maker.anchors[block]

    def _attestation(self, graph: LinkGraph) -> Attestation:
        base = np.array([*self.maker.address, UNKNOWN], dtype=np.int64)
        home = np.where(graph.symbols.block >= 0, graph.symbols.block, len(self.maker.address))
        address = np.where(base[home] == UNKNOWN, UNKNOWN, base[home] + graph.symbols.offset)
        proved = np.isin(graph.blocks.kind, _CONSTANT) & (base[:-1] != UNKNOWN)
        return Attestation(address, proved, (), ())


def _same_text(memory: bytes, wanted: bytes) -> bool:
    """Whether a string in a shared `.rodata` is the same one; how much fill follows it depends on its neighbours."""
    if not _TEXT.fullmatch(wanted):
        return False
    text = wanted.rstrip(b"\0") + b"\0"
    return memory.startswith(text)
