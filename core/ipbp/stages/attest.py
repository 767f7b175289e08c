"""Proof that memory holds the code of an object, and where everything of that object is.

Run-pre matching, as Ksplice did it: start from the functions whose place the symbol table tells, compare their bytes
with memory, read from the linker's fixups where the rest is (static variables, unnamed constants, functions whose
name is not unique), compare that too, and so on until nothing new is found. In the end every place that a fixup
names must agree with every other and with the symbol table; a block of whose fixups one does not is not the block
that runs.

Linkers move input sections as a whole, so one place settles a section; only elements of mergeable sections move
alone. Contents of variables are not compared: the program has changed them. Time stamps prove nothing and are not
looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch.machines import machine_of
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import ABSOLUTE, COMMON, I64, UNDEFINED, Binding, BlockKind, LinkGraph, SymbolType
from ipbp.graph.rows import is_one_of
from ipbp.stages.by_content import code_of, places_by_content
from ipbp.stages.candidates import candidates
from ipbp.stages.got_base import GOT_NAME, image_base
from ipbp.stages.reading import UNREADABLE, Reading, read_blocks
from ipbp.stages.wrapped import possible_names

UNKNOWN = -1
_TELLING = 32  # bytes of a function that no other function is likely to have
_COMPARED = (BlockKind.CODE, BlockKind.RODATA, BlockKind.RELRO)


@dataclass(frozen=True, slots=True)
class Attestation:
    """`address`: load address of each old symbol, or -1 (thread-local variables: of their initial value; what other
    objects define: where the fixups say it, else it is `resolve`'s business). `proved`: per block, memory holds exactly
    its bytes and its fixups agree. `mismatched`: (block, reason) for blocks that are not what runs. `missing`: named
    blocks that the image does not have (dropped by the linker, inlined everywhere, or weak and taken from elsewhere).
    """

    address: I64
    proved: npt.NDArray[np.bool_]
    mismatched: tuple[tuple[int, str], ...]
    missing: tuple[int, ...]


def attest(old: LinkGraph, image: LoadedImage, read: MemoryReader) -> Attestation:
    """What memory says of the object `old`; `read` gives the program's own bytes, without a debugger's traps."""
    return _Attestor(old, image, read).run()


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What a linker moves as a whole: a section, or one element of a mergeable section. Per block its piece and its
    offset in that."""

    of_block: I64
    offset: I64
    count: int


class _Attestor:
    """The search. `base`: per piece its load address as far as known; `readings`: what was compared so far."""

    def __init__(self, old: LinkGraph, image: LoadedImage, read: MemoryReader) -> None:
        self.old, self.image, self.read = old, image, read
        self.pieces = _pieces(old)
        self.named = candidates(old, image)
        self.base = np.full(self.pieces.count, UNKNOWN, dtype=np.int64)
        self.tied: dict[int, list[int]] = {}
        self.readings: list[Reading] = []
        self.reasons: dict[int, str] = {}

    def run(self) -> Attestation:
        self._place_by_name()
        self._spread()
        while self._settle_ties():
            self._spread()
        if not self.image.symbols.files:
            self._place_by_content()
        address = self._addresses()
        self._check_agreement(address)
        self._add_outside(address)
        return self._result(address)

    def _place_by_name(self) -> None:
        """Each piece goes where most of its names are; a weak name counts less, for it may be another object's."""
        named, symbols = self.named, self.old.symbols
        rows = np.flatnonzero(symbols.block[named.symbol] >= 0)
        symbol = named.symbol[rows]
        block = symbols.block[symbol]
        piece = self.pieces.of_block[block]
        base = named.address[rows] - self.pieces.offset[block] - symbols.offset[symbol]
        weight = np.where(symbols.binding[symbol] == Binding.WEAK, 1, 1 << 20)
        if len(rows) == 0:
            return
        order = np.lexsort((base, piece))
        piece, base = piece[order], base[order]
        places = np.flatnonzero(np.diff(piece, prepend=-1) | np.diff(base, prepend=0))
        votes = np.add.reduceat(weight[order], places)
        piece, base = piece[places], base[places]
        first = np.flatnonzero(np.diff(piece, prepend=-1))
        most = np.repeat(np.maximum.reduceat(votes, first), np.diff(first, append=len(piece)))
        piece, base = piece[votes == most], base[votes == most]
        single = np.bincount(piece)[piece] == 1
        self.base[piece[single]] = base[single]
        for p, b in zip(piece[~single].tolist(), base[~single].tolist(), strict=True):
            self.tied.setdefault(p, []).append(b)

    def _spread(self) -> None:
        """Compare what has a place and was not compared yet; give places to what its fixups lead to; repeat."""
        done = np.zeros(self.pieces.count, dtype=np.bool_)
        for reading in self.readings:
            done[self.pieces.of_block[reading.block]] = True
        compared = is_one_of(self.old.blocks.kind, _COMPARED)
        while True:
            ready = compared & (self.base != UNKNOWN)[self.pieces.of_block] & ~done[self.pieces.of_block]
            block = np.flatnonzero(ready)
            if len(block) == 0:
                return
            address = self.base[self.pieces.of_block[block]] + self.pieces.offset[block]
            reading = read_blocks(self.old, block, address, self.image, self.read)
            self.readings.append(reading)
            done[self.pieces.of_block[block]] = True
            self._place_by_fixups(reading)

    def _place_by_fixups(self, reading: Reading) -> None:
        target, means, _owner = self._definite(reading)
        block = self.old.symbols.block[target]
        piece = self.pieces.of_block[block]
        base = means - self.pieces.offset[block] - self.old.symbols.offset[target]
        open_ = self.base[piece] == UNKNOWN
        if not open_.any():
            return
        pairs, count = np.unique(np.stack([piece[open_], base[open_]], axis=1), axis=0, return_counts=True)
        for p, b in pairs[np.argsort(count, kind="stable")].tolist():  # the most frequent one is written last
            if p not in self.tied or b in self.tied[p]:
                self.base[p] = b
        for p in np.unique(piece[open_]).tolist():
            if self.base[p] != UNKNOWN:
                self.tied.pop(p, None)

    def _definite(self, reading: Reading) -> tuple[I64, I64, I64]:
        """(symbol of this object, load address, owner's row) for fixups that tell where that symbol is. A call may
        go to a linker's stub, and a weak symbol may be another object's."""
        target = self.old.edges.target[reading.edge].astype(np.int64)
        symbols = self.old.symbols
        useful = reading.known & (symbols.block[target] >= 0) & (symbols.binding[target] != Binding.WEAK)
        useful &= (reading.means >= self.image.start) & (reading.means < self.image.end)
        if self.image.stubs:
            useful &= ~np.isin(reading.means, np.array(list(self.image.stubs), dtype=np.int64))
        useful &= symbols.type[target] != SymbolType.IFUNC
        return target[useful], reading.means[useful], reading.owner[useful]

    def _settle_ties(self) -> bool:
        """Of several places with the same names the one whose bytes and fixups fit, if it is one. Whether any piece
        got its place."""
        settled = False
        for piece, bases in list(self.tied.items()):
            block = np.flatnonzero(self.pieces.of_block == piece)
            if self.old.blocks.kind[block[0]] not in _COMPARED:
                continue
            fits = [base for base in bases if self._fits(block, base)]
            if len(fits) == 1:
                self.base[piece] = fits[0]
                settled = True
            if len(fits) <= 1:
                del self.tied[piece]
            if not fits:
                for row in block.tolist():
                    self.reasons[row] = f"none of the {len(bases)} places with this name has these bytes"
        return settled

    def _fits(self, block: I64, base: int) -> bool:
        reading = read_blocks(self.old, block, base + self.pieces.offset[block], self.image, self.read)
        if not reading.matches().all():
            return False
        target, means, _owner = self._definite(reading)
        home = self.old.symbols.block[target]
        piece = self.pieces.of_block[home]
        known = self.base[piece] != UNKNOWN
        there = self.base[piece] + self.pieces.offset[home] + self.old.symbols.offset[target]
        in_tie = np.isin(piece, np.array(list(self.tied), dtype=np.int64)) & ~known
        pairs = zip(piece.tolist(), (means - (there - self.base[piece])).tolist(), strict=True)
        possible = np.array([place in self.tied.get(number, ()) for number, place in pairs], dtype=np.bool_)
        return bool((~known | (there == means)).all() and (~in_tie | possible).all())

    def _place_by_content(self) -> None:
        """In an image without names of static functions: what nothing has led to is looked for by its bytes."""
        running = code_of(self.image)
        code = np.flatnonzero((self.old.blocks.kind == BlockKind.CODE) & (self.old.blocks.size >= _TELLING))
        for block in code[np.argsort(-self.old.blocks.size[code], kind="stable")].tolist():
            piece = int(self.pieces.of_block[block])
            if self.base[piece] != UNKNOWN or piece in self.tied:
                continue
            whole = np.flatnonzero(self.pieces.of_block == piece)
            offset = int(self.pieces.offset[block])
            bases = [place - offset for place in places_by_content(self.old, block, running)]
            fits = [base for base in bases if self._fits(whole, base)]
            if len(fits) == 1:
                self.base[piece] = fits[0]
                self._spread()

    def _addresses(self) -> I64:
        """Of each symbol that the object defines: what the symbol table says of a global name, else its place."""
        symbols = self.old.symbols
        address = np.full(len(symbols), UNKNOWN, dtype=np.int64)
        placed = np.flatnonzero(symbols.block >= 0)
        block = symbols.block[placed]
        base = self.base[self.pieces.of_block[block]]
        there = base + self.pieces.offset[block] + symbols.offset[placed]
        address[placed] = np.where(base == UNKNOWN, UNKNOWN, there)
        named = self.named
        shared = (symbols.binding[named.symbol] != Binding.LOCAL) & (symbols.type[named.symbol] != SymbolType.IFUNC)
        single = np.bincount(named.symbol, minlength=len(symbols))[named.symbol] == 1
        rows = np.flatnonzero(single & (shared | (symbols.block[named.symbol] == COMMON)))
        address[named.symbol[rows]] = named.address[rows]
        return address

    def _check_agreement(self, address: I64) -> None:
        """Every block whose bytes differ, whose name is elsewhere, or of whose fixups one leads to another thing."""
        symbols = self.old.symbols
        for reading in self.readings:
            for row in np.flatnonzero(~reading.matches()).tolist():
                if self._is_fill(int(reading.block[row])):
                    continue
                self.reasons.setdefault(int(reading.block[row]), _difference(int(reading.difference[row])))
            target = self.old.edges.target[reading.edge].astype(np.int64)
            wanted = np.where(symbols.block[target] == ABSOLUTE, symbols.offset[target], address[target])
            unsure = reading.known & (reading.means != wanted)
            unsure &= (wanted != UNKNOWN) | (symbols.block[target] == UNDEFINED)
            rows = np.flatnonzero(unsure)
            seen: dict[tuple[int, int, int], bool] = {}
            for row in rows.tolist():
                what = (int(target[row]), int(reading.means[row]), int(reading.cell[row]))
                if what not in seen:
                    seen[what] = self._may_be(*what, address)
                if not seen[what] and not self._is_imported(reading, row):
                    block = int(reading.block[reading.owner[row]])
                    self.reasons.setdefault(block, f"it refers to another thing than '{self._say(what[0])}'")
        self._check_places(address)

    def _is_fill(self, block: int) -> bool:
        """Whether it is nops that no name stands for (-fpatchable-function-entry=N,M): an earlier patch may have
        written into them, or the program itself."""
        kind, anchor = self.old.blocks.kind[block], int(self.old.blocks.anchor[block])
        is_code = kind == BlockKind.CODE and not self.old.symbols.name[anchor]
        return bool(is_code) and machine_of(self.old.machine).is_padding(bytes(self.old.content(block)))

    def _add_outside(self, address: I64) -> None:
        """What fixups that lead straight to it say of a name that another object of the image defines: that is what the
        linker bound it to, whatever the symbol tables make of such a name."""
        symbols, found = self.old.symbols, dict[int, set[int]]()
        for reading in self.readings:
            target = self.old.edges.target[reading.edge].astype(np.int64)
            told = reading.known & (reading.cell == 0) & (symbols.block[target] == UNDEFINED)
            told &= ~np.isin(reading.block[reading.owner], list(self.reasons)) & (
                symbols.type[target] != SymbolType.TLS
            )
            told &= (reading.means >= self.image.start) & (reading.means < self.image.end)
            for symbol, means in zip(target[told].tolist(), reading.means[told].tolist(), strict=True):
                found.setdefault(symbol, set()).add(means)
        for symbol, places in found.items():
            if len(places) == 1 and not places & self.image.stubs.keys():
                address[symbol] = places.pop()

    def _check_places(self, address: I64) -> None:
        symbols = self.old.symbols
        placed = np.flatnonzero((symbols.block >= 0) & (address != UNKNOWN))
        block = symbols.block[placed]
        base = self.base[self.pieces.of_block[block]]
        there = base + self.pieces.offset[block] + symbols.offset[placed]
        for row in np.flatnonzero((base != UNKNOWN) & (there != address[placed])).tolist():
            name = symbols.name[int(placed[row])]
            self.reasons.setdefault(int(block[row]), f"'{name}' is at another place than the rest of its section")

    def _may_be(self, symbol: int, means: int, cell: int, address: I64) -> bool:
        """Whether a fixup for `symbol` may hold `means`: a stub or a cell of that name, an alias, or nothing that
        the image's tables could tell."""
        name, image = self.old.symbols.name[symbol], self.image
        if name == GOT_NAME:
            return means == image_base(image)
        if means == 0:
            return bool(self.old.symbols.binding[symbol] == Binding.WEAK)
        if self._is_named(name, symbol, means, cell, address):
            return True
        if self.old.symbols.block[symbol] == UNDEFINED:
            others = possible_names(name)[1:]
            if any(self._is_named(other, symbol, means, cell, address) for other in others):
                return True
        if self.old.symbols.type[symbol] == SymbolType.IFUNC:
            return image.start <= means < image.end
        is_known = name in image.symbols.by_name or address[symbol] != UNKNOWN or means in image.stubs
        return not is_known and name not in image.slots

    def _is_imported(self, reading: Reading, row: int) -> bool:
        """Whether the loader fills this very field with what another image has under the name."""
        edge, owner = int(reading.edge[row]), int(reading.owner[row])
        name = self.old.symbols.name[int(self.old.edges.target[edge])]
        found = self.image.imported(int(reading.address[owner] + self.old.edges.offset[edge]))
        return any(found in self.image.in_any_version(known) for known in possible_names(name)) if found else False

    def _is_named(self, name: str, symbol: int, means: int, cell: int, address: I64) -> bool:
        """Whether the image's tables call `means`, or the cell that it was read from, by this name."""
        image = self.image
        if cell and any(cell in image.slots.get(known, ()) for known in image.in_any_version(name)):
            return True
        places = {int(image.symbols.address[row]) for row in image.symbols.by_name.get(name, ())}
        if address[symbol] != UNKNOWN:
            places.add(int(address[symbol]))
        if means in image.stubs:
            stub = image.stubs[means]
            aliases = {int(image.symbols.address[row]) for row in image.symbols.by_name.get(stub, ())}
            return stub in image.in_any_version(name) or not aliases.isdisjoint(places)
        return means in places or image.copied.get(name) == means

    def _say(self, symbol: int) -> str:
        name, block = self.old.symbols.name[symbol], int(self.old.symbols.block[symbol])
        return name or (self.old.block_name(block) if block >= 0 else "a number")

    def _result(self, address: I64) -> Attestation:
        blocks, symbols = self.old.blocks, self.old.symbols
        proved = np.zeros(len(blocks), dtype=np.bool_)
        for reading in self.readings:
            proved[reading.block[reading.matches()]] = True
        proved[list(self.reasons)] = False
        anchor = blocks.anchor
        weak = symbols.binding[anchor] == Binding.WEAK
        named = symbols.name.are_given()[anchor]
        absent = (self.base[self.pieces.of_block] == UNKNOWN) & (address[anchor] == UNKNOWN)
        absent &= (named & ~blocks.mergeable) | (blocks.kind == BlockKind.CODE)
        elsewhere = weak & ~proved & np.isin(np.arange(len(blocks)), list(self.reasons))
        absent[list(self.reasons)] = False
        missing = np.flatnonzero((absent | elsewhere) & (blocks.kind != BlockKind.INIT) & (blocks.size > 0))
        mismatched = [(block, reason) for block, reason in sorted(self.reasons.items()) if not elsewhere[block]]
        return Attestation(address, proved, tuple(mismatched), tuple(missing.tolist()))


def _pieces(graph: LinkGraph) -> _Pieces:
    blocks = graph.blocks
    sections = len(graph.sections)
    of_block = blocks.section.astype(np.int64)
    offset = blocks.offset.copy()
    alone = np.flatnonzero(blocks.mergeable)
    of_block[alone] = sections + np.arange(len(alone))
    offset[alone] = 0
    return _Pieces(of_block, offset, sections + len(alone))


def _difference(offset: int) -> str:
    return "its memory cannot be read" if offset == UNREADABLE else f"the bytes differ at +{offset:#x}"
