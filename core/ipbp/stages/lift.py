"""The running image as the old side of a comparison, when no old object fits it any more.

The image has the code but not the relocations. The new object is the guide: most of its functions are in the image
with the same size and, fixups masked, the same bytes, so its fixups are where those of the old object were, and
memory says where they lead. What the linker rewrote is written back. Functions of another size come as bytes with
the references that decoding finds; they have changed anyway, and the references tell which static variable is which.

A variable's old content is what the file has, not what the program made of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.errors import IpbpError
from ipbp.graph.copies import with_copy_number
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import I64, Binding, BlockKind, LinkGraph, SymbolType
from ipbp.stages.attest import UNKNOWN, Attestation
from ipbp.stages.candidates import candidates
from ipbp.stages.compilers import registers_of_results
from ipbp.stages.crate_rows import crate_rows, crate_sources, is_crate, promoted_constants
from ipbp.stages.identity import READ_ONLY
from ipbp.stages.lifted_content import Outline, fill, section_of
from ipbp.stages.lifted_graph import LiftedSymbol
from ipbp.stages.lifted_tables import add_tables
from ipbp.stages.memory import read_pieces
from ipbp.stages.name_numbers import base_name, is_numbered
from ipbp.stages.reading import read_blocks
from ipbp.stages.reshape import reshaped
from ipbp.stages.rust_names import are_rust

_TLS = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)
_PROVED = (BlockKind.CODE, BlockKind.RODATA, BlockKind.RELRO)


def lift(
    new: LinkGraph, image: LoadedImage, read: MemoryReader, sources: Collection[str] = ()
) -> tuple[LinkGraph, Attestation]:
    """The unit that `new` is the next version of, as the image has it, and the addresses of its symbols. `sources`:
    base names that the unit may have had in the image, where it had another one.

    Errors: `unit-ambiguous` when several files of that name are linked in and none of them fits best.
    """
    return _Lifter(new, image, read, sources).run()


class _Lifter:
    """`row_of`: per new symbol its row in the image, UNKNOWN when it has none."""

    def __init__(self, new: LinkGraph, image: LoadedImage, read: MemoryReader, sources: Collection[str]) -> None:
        self.new, self.image, self.read = new, image, read
        self.sources = sources or (crate_sources(new, image) if is_crate(new) else {new.source})
        self.named = candidates(new, image, self.sources)
        self.row_of = np.full(len(new.symbols), UNKNOWN, dtype=np.int64)
        self.outline = Outline(new)
        self.copies: tuple[tuple[int, int], ...] = ()

    def run(self) -> tuple[LinkGraph, Attestation]:
        files = self._files()
        self._choose_rows(files)
        if is_crate(self.new):
            self._choose_rows_of_crate()
        if not self.image.symbols.files:
            self._require_places()
        different = self._code_of_other_bytes()
        self.new = reshaped(self.new, different)
        self.outline = Outline(self.new)
        self._add_guided_blocks(different)
        self._add_copies()
        self._add_other_blocks(files)
        tables = add_tables(self.outline, self.image)
        fill(self.outline, self.image, self.read)
        graph = self.outline.maker.graph(self.image.path, self.new.source, self.new.machine, tables)
        return graph, self._attestation(graph)

    def _files(self) -> frozenset[int]:
        """Which of the image's files are this unit: all of its names for a crate, else the one of its name; of several
        the one to whose static functions and variables the unit's global functions refer."""
        files = self.image.symbols.files
        same = [row for row, name in enumerate(files) if name and name in self.sources]
        if len(same) <= 1 or is_crate(self.new):
            return frozenset(same)
        table = self.image.symbols
        places = self._places_that_globals_use()
        score = {row: int(np.isin(table.address[table.file == row], places).sum()) for row in same}
        best = max(score.values())
        winners = [row for row in same if score[row] == best]
        if len(winners) == 1:
            return frozenset(winners)
        if not np.isin(table.file[self.named.row], same).any():
            return frozenset()  # no name that could be the wrong file's
        groups = "; ".join(self._group_in_words(row) for row in same)
        raise IpbpError(
            "unit-ambiguous",
            f"{self.image.path} has {len(same)} files named {self.new.source}, and it is not clear which of them "
            f"this is: {groups}",
            "Build with debug information (-g), which tells them apart, and start the program once more.",
        )

    def _group_in_words(self, file: int) -> str:
        table = self.image.symbols
        rows = np.flatnonzero((table.file == file) & (table.size > 0)).tolist()
        names = [f"'{table.name[row]}' at {int(table.address[row]):#x}" for row in rows]
        return "one with " + ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")

    def _places_that_globals_use(self) -> I64:
        symbols, table = self.new.symbols, self.image.symbols
        shared = (symbols.binding[self.named.symbol] != Binding.LOCAL) & (
            symbols.type[self.named.symbol] == SymbolType.FUNCTION
        )
        rows = np.unique(self.named.row[shared])
        codes = read_pieces(self.read, table.address[rows], table.size[rows])
        references, results = machine_of(self.new.machine).references, registers_of_results(self.new)
        return np.array(
            [
                reference.place
                for start, code in zip(table.address[rows].tolist(), codes, strict=True)
                for reference in references(code or b"", start, results)
            ],
            dtype=np.int64,
        )

    def _same_size_code(self, symbol: I64, row: I64) -> tuple[I64, I64]:
        block = self.new.symbols.block[symbol].astype(np.int64)
        fits = (block >= 0) & (self.new.symbols.offset[symbol] == 0)
        fits &= self.image.symbols.size[row] == self.new.blocks.size[np.maximum(block, 0)]
        fits &= self.new.blocks.kind[np.maximum(block, 0)] == BlockKind.CODE
        return block[fits], self.image.symbols.address[row[fits]]

    def _choose_rows(self, files: Collection[int]) -> None:
        named, table = self.named, self.image.symbols
        for symbol, row in zip(named.symbol.tolist(), named.row.tolist(), strict=True):
            foreign = table.file[row] >= 0 and int(table.file[row]) not in files
            if not foreign and (self.row_of[symbol] == UNKNOWN or self._size_differs(symbol, self.row_of[symbol])):
                self.row_of[symbol] = row

    def _choose_rows_of_crate(self) -> None:
        found = crate_rows(self.new, self.image, self.sources, self.read)
        self.row_of[are_rust(self.new.symbols.name)] = UNKNOWN
        self.row_of[found.symbol] = found.row
        self.copies = found.others

    def _add_copies(self) -> None:
        """A block for each copy of a function beyond those that the new object has."""
        table, symbols = self.image.symbols, self.new.symbols
        for row, twin in self.copies:
            address, size = int(table.address[row]), int(table.size[row])
            kind = self._kind_at(address, thread_local=False)
            if address in self.outline.block_at or kind is None:
                continue
            guide = int(symbols.block[twin]) if twin != UNKNOWN else UNKNOWN
            section, alignment = section_of(self.outline.new, guide)
            name = with_copy_number(base_name(table.name[row]), row)
            names = [LiftedSymbol(name, 0, 0, size, Binding.LOCAL, int(table.type[row]))]
            block = self.outline.maker.add_block(address, size, kind, section, alignment, names)
            self.outline.block_at[address] = block
            self.outline.guide_of[block] = guide

    def _require_places(self) -> None:
        """A stripped image may have anything without a name for it: what is not found, or found twice, would lose its
        state or go on running unseen."""
        symbols, named = self.new.symbols, self.named
        kind = self.new.blocks.kind[np.maximum(symbols.block, 0)]
        wanted = np.flatnonzero((symbols.block >= 0) & ~np.isin(kind, (*READ_ONLY, BlockKind.INIT)))
        candidates_of = np.bincount(named.symbol, minlength=len(symbols))
        doubtful = [
            symbols.name[row]
            for row in wanted[candidates_of[wanted] != 1].tolist()
            if symbols.name[row] and not symbols.name[row].startswith(".")
        ]
        if doubtful:
            raise IpbpError(
                "no-symbols",
                f"{self.image.path} has no symbol table, and no object of the build is what runs, so the places of "
                f"{', '.join(doubtful[:3])}{' and more' if len(doubtful) > 3 else ''} are not known",
                "Do not strip the program, install its debug file, or keep the objects that it was linked from.",
            )

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

    def _add_guided_blocks(self, different: Collection[int]) -> None:
        """A block for everything that both sides have by name. Several functions of the same code may be at one place
        (identical code folding): then one that did not change is the guide. `different`: new blocks of other code."""
        symbols, table = self.new.symbols, self.image.symbols
        members: dict[int, list[int]] = {}
        for symbol in np.flatnonzero(self.row_of != UNKNOWN).tolist():
            block = int(symbols.block[symbol])
            if block >= 0:
                members.setdefault(block, []).append(symbol)
            else:  # a tentative definition
                self._add_named(int(self.row_of[symbol]), [symbol], guide=UNKNOWN)
        for block, inside in sorted(members.items(), key=lambda item: item[0] in different):
            anchor = int(self.new.blocks.anchor[block])
            first = anchor if self.row_of[anchor] != UNKNOWN else inside[0]
            if symbols.offset[first] != 0:
                continue  # the block's start has no name in the image
            row = int(self.row_of[first])
            known = self.outline.block_at.get(int(table.address[row]))
            others = [symbol for symbol in inside if symbol != first]
            if known is None:
                self._add_named(row, [first, *others], guide=block)
            elif self.new.blocks.kind[block] == BlockKind.CODE:
                self.outline.maker.add_names(known, self._lifted([first], int(table.address[row])))

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
        if kind in READ_ONLY and is_numbered(symbols.name[names[0]]) and symbols.binding[names[0]] == Binding.LOCAL:
            guide = UNKNOWN  # two constants of one number need not be the same one: their uses will tell
        section, alignment = section_of(self.outline.new, guide)
        block = self.outline.maker.add_block(address, size, kind, section, alignment, self._lifted(names, address))
        self.outline.block_at[address] = block
        self.outline.guide_of[block] = guide

    def _lifted(self, names: Sequence[int], start: int) -> list[LiftedSymbol]:
        """New symbols as the image has them, in a block at `start`."""
        table, symbols = self.image.symbols, self.new.symbols
        return [
            LiftedSymbol(
                symbols.name[name],
                0,
                int(table.address[self.row_of[name]]) - start,
                int(table.size[self.row_of[name]]),
                int(symbols.binding[name]),
                int(symbols.type[name]),
                int(symbols.visibility[name]),
            )
            for name in names
        ]

    def _add_other_blocks(self, files: Collection[int]) -> None:
        """Static functions and variables of these files that the new object does not have by name."""
        table = self.image.symbols
        rows = np.flatnonzero(np.isin(table.file, list(files)) & (table.size > 0)).tolist()
        rows += promoted_constants(self.image).tolist() if is_crate(self.new) else []
        for row in rows:
            address = int(table.address[row])
            kind = self._kind_at(address, bool(table.type[row] == SymbolType.TLS))
            if address in self.outline.block_at or kind is None or not table.name[row]:
                continue
            symbol = LiftedSymbol(
                table.name[row], 0, 0, int(table.size[row]), int(table.binding[row]), int(table.type[row])
            )
            block = self.outline.maker.add_block(address, int(table.size[row]), kind, "", 1, [symbol])
            self.outline.block_at[address] = block
            self.outline.guide_of[block] = UNKNOWN

    def _kind_at(self, address: int, thread_local: bool) -> BlockKind | None:
        for part in self.image.parts:
            if part.start <= address < part.end and (part.kind in _TLS) == thread_local:
                return part.kind
        return None

    def _attestation(self, graph: LinkGraph) -> Attestation:
        base = np.array([*self.outline.maker.address, UNKNOWN], dtype=np.int64)
        home = np.where(graph.symbols.block >= 0, graph.symbols.block, len(self.outline.maker.address))
        address = np.where(base[home] == UNKNOWN, UNKNOWN, base[home] + graph.symbols.offset)
        for symbol, places in self.outline.maker.outside_at.items():
            (place, *more) = places
            if not more and self.image.start <= place < self.image.end and place not in self.image.stubs:
                address[symbol] = place
        proved = np.isin(graph.blocks.kind, _PROVED) & (base[:-1] != UNKNOWN)
        proved[self._rewritten(graph)] = False
        return Attestation(address, proved, (), ())

    def _rewritten(self, graph: LinkGraph) -> list[int]:
        """Blocks of code whose memory is not what the file has: another file than the one that runs, or something
        else writes to code. The first bytes may hold the jump of an earlier patch of another unit."""
        code = np.flatnonzero(graph.blocks.kind == BlockKind.CODE).tolist()
        ranges = [(self.outline.maker.address[block], self.outline.maker.sizes[block]) for block in code]
        memory, jump = self.read(ranges), machine_of(graph.machine).entry.size
        return [
            block
            for block, (address, size), content in zip(code, ranges, memory, strict=True)
            if content is None or content[jump:] != (self.image.original(address, size) or b"")[jump:]
        ]
