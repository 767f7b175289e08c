"""Coroutines of C++ that an edit changed: those that wait go on in new code, if it finds its frame as it was.

A coroutine's frame holds the address of the function that goes on with it, a number that says where, and its
variables. The function's old entry leads to its new code. gcc calls the functions `f.Frame.actor` and `.destroy`, LLVM
`f.resume`, `.destroy` and `.cleanup`.

gcc lays a frame out before it optimises: every variable and every awaiter is a named member of it, whose type the debug
information tells, and the numbers of the places to wait are given in the order of the source. A frame of the same
members is the same frame. LLVM decides afterwards. Without optimisation that are the variables, by their names, and
awaiters and temporary objects, which have none: they are what they were where no more than one stretch of code between
two places to wait differs, for of what writes one and what reads it one is as it was. An optimised frame it does not
describe, or with values that have no name: nothing is certain there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ipbp.arch.machines import machine_of
from ipbp.arch.x86_64_code import instructions
from ipbp.errors import Refusal
from ipbp.graph.layouts import Aggregate, UnitTypes
from ipbp.graph.model import LinkGraph
from ipbp.stages.branches import masked_code, with_local_branches
from ipbp.stages.code_words import CodeWords

_PARTS = (b".actor", b".resume", b".destroy", b".cleanup")
_PART = re.compile(r"(_Z.*?)(?:P[^.]*\.Frame)?\.(?:actor|resume|destroy|cleanup)(?:\.cold)?\Z", re.DOTALL)
_GCC = re.compile(r"(?<=\d)(_Z\w+)\.Frame\.(?:actor|destroy)(?:\.cold)?\Z")
_LLVM = re.compile(r"(_Z.*)\.(?:resume|destroy|cleanup)\Z", re.DOTALL)
_FRAME_OF_LLVM = ".coro_frame_ty"
_FRAME = re.compile(r"\.(?:Frame|coro_frame_ty)(?:::|\Z)")
_INDICES = ("_Coro_resume_index", "__coro_index")
_AWAITER = re.compile(r"(?:Yd|Aw)\d*_")
_NUMBERED = re.compile(r"(?:(?:Yd|Aw|T)\d+|D\.)_")
_TEMPORARY = re.compile(r"\AD\.\d+")  # the number is one of the whole unit
_NAMES = {
    name: names
    for names in (
        *((f"{letter}l", f"{letter}x", f"e{letter}x", f"r{letter}x") for letter in "abcd"),
        *((f"{pair}l", pair, f"e{pair}", f"r{pair}") for pair in ("si", "di", "bp")),
        *((f"r{number}b", f"r{number}w", f"r{number}d", f"r{number}") for number in range(8, 16)),
    )
    for name in names
}
"""Of each register all of its names."""
_ENDS = 2  # the places to wait at the beginning and at the end
_BACK = 24  # instructions
_STORE = re.compile(r"(?:byte|word|dword|qword) ptr \[r\w+ \+ (0x[0-9a-f]+|\d+)\], (.+)\Z")


def is_frame(name: str) -> bool:
    """Whether a type is the frame of a coroutine, or a part of one that LLVM made up."""
    return _FRAME.search(name) is not None


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an edit. `types`: None when they are not described."""

    graph: LinkGraph
    types: UnitTypes | None


def changed_coroutines(old: Side, new: Side, changed: Collection[str], file: str) -> tuple[Refusal, ...]:
    """`coroutine-changed` for each coroutine of which one that waits might not find its way. `changed`: linkage names
    of functions that are not what they were."""
    names = new.graph.symbols.name
    rows = {row for part in _PARTS for row in names.containing(part).tolist()}
    found: dict[str, str] = {}
    for name in sorted(names[row] for row in rows):
        match = _PART.match(name)
        if match and name in changed and _block(old.graph, name) >= 0 and match[1] not in found:
            why = _doubt(old, new, name)
            if why:
                found[match[1]] = why
    return tuple(_changed(owner, why, file) for owner, why in found.items())


def _block(graph: LinkGraph, name: str) -> int:
    row = int(graph.symbols.name.rows_of([name])[0])
    return int(graph.symbols.block[row]) if row >= 0 else -1


@dataclass(frozen=True, slots=True)
class _Made:
    """What a compiler made of a coroutine: the names of its frame, at its end, and of the function that goes on."""

    frame: str
    code: str
    is_by_gcc: bool

    @classmethod
    def of(cls, part: str) -> _Made | None:
        """`part`: one of its functions."""
        of_gcc, of_llvm = _GCC.search(part), _LLVM.match(part)
        if of_gcc is not None:
            return cls(f"{of_gcc[1]}.Frame", f"{part[: of_gcc.end(1)]}.Frame.actor", True)
        if of_llvm is not None:
            return cls(f"{of_llvm[1]}{_FRAME_OF_LLVM}", f"{of_llvm[1]}.resume", False)
        return None


def _doubt(old: Side, new: Side, name: str) -> str:
    """Why the frame may be another one; "" when it is the same, and the places to wait are."""
    machine = machine_of(new.graph.machine)
    if not machine.follows_flow:
        return f"where one waits is not known on {machine.title}"
    made = _Made.of(name)
    if made is None:
        return "its compiler does not say what it keeps where"
    if old.types is None or new.types is None:
        return "there is no debug information that tells whether the two are the same"
    before, after = (_frame(side.types, made.frame) for side in (old, new) if side.types is not None)
    if before is None or after is None:
        return "the debug information does not describe the frame"
    if _members(before) != _members(after) or before.size != after.size:
        return f"the frame is another one ({_difference(before, after)})"
    if not made.is_by_gcc:
        return _unnamed(before) or _exchanged(old.graph, new.graph, made.code, before)
    counts = [_count(side.graph, made.code) for side in (old, new)]
    if counts[0] == 0 or counts[0] != counts[1]:
        return "it waits in another number of places"
    return _exchanged(old.graph, new.graph, made.code, before) if _are_interchangeable(before, counts[0]) else ""


def _exchanged(old: LinkGraph, new: LinkGraph, name: str, frame: Aggregate) -> str:
    """Why the places to wait in this function may not be what they were."""
    one, other = (_Body.of(graph, name, frame) for graph in (old, new))
    if one is None or other is None or not one.places or not one.differs_in_one_part(other):
        return "several of its places to wait are alike, and the edit may have exchanged them"
    return ""


def _unnamed(frame: Aggregate) -> str:
    """What of LLVM's frame could be taken for something else: a value without a name, and variables of one name."""
    names = Counter(member.name for member in frame.members)
    for member in frame.members:
        kind = member.type.shown.rpartition(" ")[2].rpartition("::")[2]
        is_object = f"{_FRAME_OF_LLVM}::" in member.type.shown
        if not is_object and re.fullmatch(rf"{re.escape(kind)}_\d+", member.name):
            return "it keeps a value that has no name"
        if names[member.name] > 1:
            return f"it has several variables '{member.name}'"
    return ""


def _frame(types: UnitTypes, frame: str) -> Aggregate | None:
    rows = [row for name, found in types.aggregates.items() if name.endswith(frame) for row in found]
    return rows[0] if len(rows) == 1 else None


def _members(frame: Aggregate) -> list[tuple[str, int, int, str]]:
    return [(_plain(member.name), member.bit, member.width, member.type.meaning) for member in frame.members]


def _plain(name: str) -> str:
    return _TEMPORARY.sub("D.", name)


def _difference(before: Aggregate, after: Aggregate) -> str:
    sides = [_members(frame) for frame in (before, after)]
    names = [Counter(row[0] for row in side) for side in sides]
    found = [(name, "is gone") for name in names[0] - names[1]] + [(name, "is new") for name in names[1] - names[0]]
    for name, words in sorted(found, key=lambda row: row[0].startswith("D.")):
        return f"member '{name}' {words}"
    moved = [row[0] for row in sides[1] if row not in sides[0]]
    return f"member '{moved[0]}' is another" if moved else f"it had {before.size} bytes and has {after.size}"


@dataclass(frozen=True, slots=True)
class _Body:
    """The code that goes on with a coroutine. `places`: the number that it stores before it waits, at each place;
    `parts`: the code before, between and after these stores, as words."""

    places: tuple[int, ...]
    parts: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, graph: LinkGraph, name: str, frame: Aggregate) -> _Body | None:
        """None where a number is not told."""
        block = _block(graph, name)
        index = next((member.bit // 8 for member in frame.members if member.name in _INDICES), None)
        if block < 0 or index is None:
            return None
        graph = with_local_branches(graph, [block])
        stores = dict(_stores(graph, block, index))
        if None in stores.values():
            return None
        parts: list[list[str]] = [[]]
        for offset, word in CodeWords(graph, {}).of_block(block):
            if offset in stores:
                parts.append([])
            else:
                parts[-1].append(word)
        return cls(tuple(value or 0 for value in stores.values()), tuple(map(tuple, parts)))

    def differs_in_one_part(self, other: _Body) -> bool:
        pairs = zip(self.parts, other.parts, strict=True)
        return self.places == other.places and sum(one != twin for one, twin in pairs) <= 1


def _stores(graph: LinkGraph, block: int, index: int) -> Iterator[tuple[int, int | None]]:
    """(offset in the code, value) of what is stored to the number in the frame; None where it is not told."""
    before: list[tuple[str, str]] = []
    for row in instructions(masked_code(graph, block)):
        match = _STORE.match(row.operands) if row.mnemonic.startswith("mov") else None
        if match is not None and int(match[1], 0) == index:
            value = match[2] if match[2][0].isdigit() else _held(before, match[2])
            if value != "0":  # before it begins, and after its end
                yield row.offset, int(value, 0) & 0xFFFF if value else None
        before.append((row.mnemonic, row.operands))


def _held(before: list[tuple[str, str]], register: str) -> str:
    """The number that a register was last given, as it stands in the code; "" when that is no number."""
    names = _NAMES.get(register, ())
    for mnemonic, operands in reversed(before[-_BACK:]):
        first, _, second = operands.partition(", ")
        if mnemonic == "call":
            return ""
        if first in names:
            if mnemonic == "xor" and first == second:
                return "0"
            return second if mnemonic == "mov" and second[:1].isdigit() else ""
    return ""


def _count(graph: LinkGraph, name: str) -> int:
    """How many places to wait there are: the function begins with a choice between twice as many numbers, even to go
    on and odd ones to end. 0 where that is not understood."""
    block = _block(graph, name)
    rows = instructions(masked_code(graph, block))[:_BACK] if block >= 0 else []
    bounds = [row.operands.rpartition(", ")[2] for row in rows if row.mnemonic == "cmp" and " ptr " not in row.operands]
    numbers = [int(bound, 0) for bound in bounds if bound[:1].isdigit()]
    return max(numbers, default=0) // 2


def _are_interchangeable(frame: Aggregate, count: int) -> bool:
    """Whether two places to wait, or two values that are kept over one, could be taken for each other. The first place
    and the last are what they are; an awaiter that is a variable of the program is no member of its own."""
    awaiters = [member for member in frame.members if _AWAITER.match(member.name)]
    kinds = Counter(member.type.meaning for member in frame.members if _NUMBERED.match(_plain(member.name)))
    return max(kinds.values(), default=0) > 1 or count != len(awaiters) + _ENDS


def _changed(name: str, why: str, file: str) -> Refusal:
    return Refusal(
        "coroutine-changed",
        f"the coroutine '{name}' changed, and one that waits would go on in its new code with the frame of the old: "
        f"{why}",
        "Restart the program; or, when none waits, `hotpatch --allow-layout all`.",
        name,
        file,
    )
