"""Which addresses a function of A64 code makes, and what it does with each: followed from instruction to instruction.

An address stands in two instructions, its page and its low twelve bits, which the compiler may put far apart, into
different blocks, and several low parts behind one page. gcc goes further: without -fdata-sections it makes one address
of a section (a section anchor) and counts from it to all variables there (GCC manual, -fsection-anchors). So what an
instruction means is told by the values that its registers have when it runs, whichever way it was come to: a forward
analysis to a fixed point. Where another way leads to another value, nothing is said of a use.

Code that only a jump through a table leads to begins with what every such jump has in its registers, and a handler of
exceptions with what every call has in those that are given back to it. A register keeps its value across calls: no
compiler uses one that a call may have changed (and one that this call does not change it does use, -fipa-ra). But for
what a call may give back, and what was put into the frame: that is another value only where the source made it one, and
is followed, but `unsure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from ipbp.arch.aarch64_code import WORD
from ipbp.arch.aarch64_effects import SAVED, STACK, Effect, effects, targets_inside
from ipbp.arch.fields import PAGE
from ipbp.arch.instructions import Told

_SLOTS = 1 << 40
"""In a state: what is in the frame at an offset from the stack pointer that the function began with."""

_ORPHANS = -1
"""Stands for all blocks that no direct branch leads to, and nothing runs on into."""


class _Kind(Enum):
    PAGE = 0
    PLACE = 1
    FRAME = 2  # counted from the stack pointer that the function began with
    MIXED = 3  # one of several, by the way that led here


class _Value(NamedTuple):
    """`makers`: offsets of the instructions that made it."""

    kind: _Kind
    number: int
    makers: frozenset[int] = frozenset()
    unsure: bool = False


_State = dict[int, _Value]
"""Per register and place of the frame what it has, where that is known."""


@dataclass(slots=True)
class Address:
    """One that the instruction at `offset` makes. `base`: the address that it was counted from (`is_unsure`), or None
    for one that was made of its page at `pages` (or is near). `used`: (offset, place) of loads, stores and sums that
    count from it, `unsure`: of those that may count from another. `goes_on`: it is used itself: stored, or counted on
    by a number that varies; `is_compared`: with another one.
    """

    offset: int
    place: int
    base: int | None
    pages: frozenset[int]
    used: set[tuple[int, int]] = field(default_factory=set)
    unsure: set[tuple[int, int]] = field(default_factory=set)
    goes_on: bool = False
    is_compared: bool = False
    is_unsure: bool = False

    @property
    def is_base(self) -> bool:
        """Whether it is only there to count from. Whether a call is given what is in a register is not written in the
        code: an address from which something was counted is taken to be left there."""
        return bool(self.used) and not self.goes_on

    @property
    def may_be_end(self) -> bool:
        """Whether all that is seen of it is that it is compared with others, as the end of an array is."""
        return self.is_compared and not (self.used or self.unsure or self.goes_on)


@dataclass(frozen=True, slots=True)
class Addresses:
    """`made`: by the offset of their instruction. `direct`: loads and stores that have the low part in themselves, by
    offset: the place, and the offsets of its pages. `apart`: (offset, address) of pages without a low part."""

    made: Mapping[int, Address]
    direct: Mapping[int, tuple[int, frozenset[int]]]
    apart: tuple[tuple[int, int], ...]

    def reached(self, base: Address) -> tuple[int, ...]:
        """Places that are used by way of an address that is only there to count from; none for another."""
        found, seen, waiting = set[int](), {base.offset}, [base] if base.is_base else []
        while waiting:
            for offset, place in waiting.pop().used:
                other = self.made.get(offset)
                if other is None or not (other.is_base or other.may_be_end):
                    found.add(place)
                elif other.is_base and offset not in seen:
                    seen.add(offset)
                    waiting.append(other)
        return tuple(sorted(found))


def addresses(code: bytes, start: int, results: int, told: Told) -> Addresses:
    """The addresses that a function makes. `start`: its own. `results`: how many registers a call may give results
    in."""
    return _Follower(code, start, results, told).run()


class _Follower:
    """`first`: indexes of the instructions that begin a block; `orphans`: those that no direct branch leads to, and
    nothing runs on into."""

    def __init__(self, code: bytes, start: int, results: int, told: Told) -> None:
        self.start, self.results, self.told = start, results, told
        self.rows = effects(code)
        self.targets = targets_inside(code)
        goes_to = {0, *self.targets.values()}
        behind = {index + 1 for index, row in enumerate(self.rows) if row.ends or index in self.targets}
        self.first = {index for index in goes_to | behind if index < len(self.rows)}
        runs_on = {index for index in self.first if index and not self.rows[index - 1].ends}
        self.orphans = sorted(self.first - goes_to - runs_on)
        self.made: dict[int, Address] = {}
        self.direct: dict[int, tuple[int, frozenset[int]]] = {}
        self.pages: dict[int, int] = {}
        self.paired: set[int] = set()

    def run(self) -> Addresses:
        into = self._settled() if self.rows else {}
        for _round in range(2):  # what makes an address may lie behind what uses it
            for leader in sorted(into):
                self._through(leader, dict(into[leader]), is_noted=True)
        return Addresses(self.made, self.direct, self._apart())

    def _apart(self) -> tuple[tuple[int, int], ...]:
        """Where a jump through a table leads into the midst of code that is run on into, only the other way there is
        followed: it has the same page in the same register then."""
        is_known = {(self.rows[offset // WORD].target, self.pages[offset]) for offset in self.paired}
        return tuple(
            (offset, page)
            for offset, page in sorted(self.pages.items())
            if (self.rows[offset // WORD].target, page) not in is_known
        )

    def _settled(self) -> dict[int, _State]:
        """What each block begins with."""
        into: dict[int, _State] = {0: {STACK: _Value(_Kind.FRAME, 0)}}
        waiting = [0]
        while waiting:
            leader = waiting.pop()
            for target, state in self._through(leader, dict(into[leader]), is_noted=False):
                known = into.get(target)
                merged = state if known is None else _merged(known, state)
                if merged != known:
                    into[target] = merged
                    for place in self.orphans if target == _ORPHANS else (target,):
                        into[place] = merged
                        waiting.append(place)
        into.pop(_ORPHANS, None)
        return into | {leader: {} for leader in self.orphans if leader not in into}

    def _through(self, leader: int, state: _State, is_noted: bool) -> Iterable[tuple[int, _State]]:
        """Where it goes on behind the block at `leader`, and with what. `is_noted`: what is made and used is written
        down."""
        out: list[tuple[int, _State]] = []
        for index in range(leader, len(self.rows)):
            row = self.rows[index]
            if index in self.first and index != leader:
                return [*out, (index, state)]
            if is_noted:
                self._note(index, row, state)
            if row.calls and self.orphans:
                out.append((_ORPHANS, _in_handler(state)))
            if row.jumps and self.orphans:
                out.append((_ORPHANS, dict(state)))
            self._step(index, row, state)
            if index in self.targets:
                out.append((self.targets[index], dict(state)))
            if row.ends:
                break
        return out

    def _step(self, index: int, row: Effect, state: _State) -> None:
        """Change `state` to what it is behind the instruction."""
        made = self._made(index, row, state)
        base = state.get(row.base) if row.base is not None else None
        moved = self._moved(row, base, state) if base is not None and base.kind is _Kind.FRAME else {}
        for register in row.writes:
            state.pop(register, None)
        if row.calls:
            for register in range(1, self.results):
                if register in state:
                    state[register] = state[register]._replace(unsure=True)
        state.update(moved)
        if base is not None and row.grows and row.base is not None:
            in_frame = base.kind is _Kind.FRAME
            state[row.base] = base._replace(number=base.number + row.grows) if in_frame else _counted_on(base)
        if made is not None:
            state[row.target] = made

    def _moved(self, row: Effect, base: _Value, state: _State) -> _State:
        """What a load from the frame gives to its registers. A store changes `state`."""
        place = _SLOTS + base.number + row.distance
        if not row.is_store:
            found = {register: state.get(place + 8 * n) for n, register in enumerate(row.moves)}
            return {register: value for register, value in found.items() if value is not None}
        for octet in range(place - place % 8, place + row.size, 8):
            state.pop(octet, None)
        for n, register in enumerate(row.moves):
            value = state.get(register)
            if value is not None and value.kind in (_Kind.PAGE, _Kind.PLACE):
                # A page is no value of the source, so that only the compiler reads or writes it there.
                state[place + 8 * n] = value._replace(unsure=value.kind is _Kind.PLACE)
        return {}

    def _made(self, index: int, row: Effect, state: _State) -> _Value | None:
        """The address that the instruction puts into its target."""
        offset = index * WORD
        if row.summands:
            known = [state[register] for register in row.summands if register in state]
            return _counted_on(known[0]) if len(known) == 1 else None
        if row.page is not None:
            place = self.told.get(offset, (self.start + offset & -PAGE) + row.page)
            return None if place is None else _Value(_Kind.PAGE, place & -PAGE, frozenset((offset,)))
        if row.near is not None:
            place = self.told.get(offset, self.start + offset + row.near)
            return None if place is None else _Value(_Kind.PLACE, place, frozenset((offset,)))
        if row.summand is not None and offset in self.told:
            place = self.told[offset]
            return None if place is None else _Value(_Kind.PLACE, place, frozenset((offset,)))
        base = state.get(row.summand) if row.summand is not None else None
        if base is None or base.kind is _Kind.MIXED:
            return None
        if base.kind is _Kind.FRAME:
            return base._replace(number=base.number + row.distance)
        return _Value(_Kind.PLACE, base.number + row.distance, frozenset((offset,)), base.unsure)

    def _note(self, index: int, row: Effect, state: _State) -> None:
        """Write down what the instruction makes and uses."""
        offset = index * WORD
        made = self._made(index, row, state)
        if made is not None and made.kind is _Kind.PAGE:
            self.pages[offset] = made.number
        base = state.get(row.summand) if row.summand is not None else None
        if made is not None and made.kind is _Kind.PLACE and not row.summands:
            self._note_made(offset, made.number, base)
        else:
            for value in (state[register] for register in row.reads if register in state):
                for maker in value.makers & self.made.keys():
                    self.made[maker].is_compared |= row.compares
                    self.made[maker].goes_on |= not row.compares
        base = state.get(row.base) if row.base is not None else None
        if base is not None:
            self._note_access(offset, row, base)

    def _note_made(self, offset: int, place: int, base: _Value | None) -> None:
        is_counted = base is not None and base.kind is _Kind.PLACE
        # Where two ways meet, one of them may have added the low part already: what made that is no page.
        makers = base.makers if base is not None and not is_counted else frozenset[int]()
        pages = frozenset(maker for maker in makers if self.rows[maker // WORD].page is not None)
        self.paired |= pages
        known = self.made.setdefault(offset, Address(offset, place, None, pages))
        if base is not None and is_counted:
            known.base, known.is_unsure = base.number, base.unsure
            self._use(base, offset, place)

    def _note_access(self, offset: int, row: Effect, base: _Value) -> None:
        if base.kind is _Kind.MIXED or (base.kind is _Kind.PLACE and row.grows):
            for maker in base.makers & self.made.keys():
                self.made[maker].goes_on = True
        elif base.kind is _Kind.PAGE:
            place = self.told.get(offset, base.number + row.distance)
            if place is not None:
                self.paired |= base.makers
                self.direct[offset] = place, base.makers
        elif base.kind is _Kind.PLACE and offset not in self.told:
            for n in range(max(len(row.moves), row.things)):
                self._use(base, offset, base.number + row.distance + n * row.size // row.things)

    def _use(self, value: _Value, offset: int, place: int) -> None:
        for maker in value.makers & self.made.keys():
            (self.made[maker].unsure if value.unsure else self.made[maker].used).add((offset, place))


def _in_handler(state: _State) -> _State:
    return {place: value for place, value in state.items() if place in SAVED or place >= _SLOTS}


def _mixed(value: _Value) -> _Value:
    return _Value(_Kind.MIXED, 0, value.makers)


def _counted_on(value: _Value) -> _Value:
    """The value and a number that is not known: of an array, or of an anchor that a distance is added to afterwards."""
    return value._replace(unsure=True) if value.kind is _Kind.PLACE else _mixed(value)


def _merged(one: _State, other: _State) -> _State:
    result = {}
    for place in one.keys() | other.keys():
        left, right = one.get(place), other.get(place)
        if left is None or right is None:
            known = left or right
            assert known is not None
            result[place] = _mixed(known)
        elif left[:2] == right[:2]:
            result[place] = left._replace(makers=left.makers | right.makers, unsure=left.unsure or right.unsure)
        else:
            result[place] = _Value(_Kind.MIXED, 0, left.makers | right.makers)
    return result
