"""Going on in the new version of a function at the place that corresponds to where the old one is.

The new code must find everything that it uses from there on: the frame as its own code would have laid it out, each
variable at its place with its type, what the compiler keeps unnamed, and registers. What cannot be shown is refused.

* The frame: the CFA counts from the same register, the same registers are saved at the same places.
* Variables that the new code may read: one of that name and type was at that place in the old code; or at another one,
  and is moved, as long as the old code has given its address to nobody. What the compiler keeps without a name counts
  when the same instructions set it in both versions, or when it is a copy of an argument that stays as it is.
* What has no name and whose address the old code has put into a variable is where that leads: no other code of the new
  version than the old one's own may touch it.
* Registers: none but the frame's own are in use at the place, or what set them are the same instructions just before.
* The place: in code that is as it was, the same instruction. In code that was edited, the beginning of the edit, if
  all that ran of the old one since then can be run again: it has called nothing, and stored only what is set anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ipbp.arch.x86_64_effects import CLOBBERED, RETURNED, Effect, parts_of, wholes_of
from ipbp.errors import Refusal
from ipbp.graph.frames import RBP, RSP, DescribedFunction, UnwindRow, Variable
from ipbp.stages.code_places import Piece, Places, Word, match_places
from ipbp.stages.liveness import LARGEST_FRAME, Flow, bits, extent, flow_of, live_frame, live_registers, reaching

_LOAD = re.compile(r"mov (r\w+), qword ptr \[r[bs]p [+-] \w+\]$")
_STORE = re.compile(r"mov qword ptr \[r[bs]p [+-] \w+\], (r\w+)$")
_ADDRESS = re.compile(r"lea (r\w+), ")
_MOVE = re.compile(r"mov (r\w+|(?:qword ptr )?\[.*\]), (r\w+)$")
_ALWAYS_RIGHT = parts_of(("rsp", "rip"))


@dataclass(frozen=True, slots=True)
class FrameSide:
    """One version of the function. `words`: its instructions with what they refer to, comparable with the other's."""

    function: DescribedFunction
    rows: Sequence[Effect] | None
    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class Remap:
    """`unwind`: how to get at the CFA. `offset`: where the new code goes on. `depth`: the bytes that the stack pointer
    is then below the CFA; `moves_stack`: that is another place than before. `line` of the new source. `copies`:
    variables that have another place there, (old place, new place, bytes)."""

    unwind: UnwindRow
    offset: int
    depth: int
    moves_stack: bool
    line: int
    copies: tuple[tuple[int, int, int], ...] = ()


def plan_remap(old: FrameSide, offset: int, new: FrameSide, returns_to: bool, keeps_callee: bool) -> Remap | Refusal:
    """`offset`: of the old pc. `returns_to`: a call of the function's is under way and that is where it comes back to.
    `keeps_callee`: that call goes on; otherwise it is dropped, and what it was made for begins again. Refusals:
    `frame-not-described`, `frame-layout-changed`, `frame-place-changed`."""
    name = old.function.name
    if old.rows is None or new.rows is None or not old.function.lines or not new.function.lines:
        return _undescribed(name)
    before, after = flow_of(old.function, old.rows), flow_of(new.function, new.rows)
    here = before.at.get(offset)
    if here is None or before.has_unknown or after.has_unknown or (returns_to and here == 0):
        return _undescribed(name)
    places = match_places(old.words, old.function.lines, new.words, new.function.lines)
    if places is None:
        return _undescribed(name)
    frames = _Frames(old.function, new.function, before, after, places)
    found = frames.place(here, returns_to, keeps_callee)
    return found if isinstance(found, Refusal) else frames.checked(here, found, keeps_callee)


@dataclass(frozen=True, slots=True)
class _Place:
    """`there`: index in the new code; `since`: the one in the old code that corresponds to it, from which on it has
    done nothing that cannot be done again."""

    there: int
    since: int


@dataclass(frozen=True, slots=True)
class _Frames:
    """Both versions."""

    old: DescribedFunction
    new: DescribedFunction
    before: Flow
    after: Flow
    places: Places

    def place(self, here: int, returns_to: bool, keeps_callee: bool) -> _Place | Refusal:
        """Where the new code would go on."""
        places = self.places
        if returns_to and keeps_callee:
            return self._after_call(here)
        at = here - 1 if returns_to else here  # the call itself is made again
        piece = places.piece_of(at)
        partner = places.counterpart[piece]
        if partner >= 0 and not returns_to:
            return _Place(places.new[partner].first + at - places.old[piece].first, here)
        return self._begun_again(at)

    def _begun_again(self, at: int) -> _Place | Refusal:
        """The beginning of the line that `at` is in, if nothing has happened since that must not happen twice."""
        places = self.places
        ran = self._same_line(at)
        starts = [index for index in ran if index == 0 or not ran.issuperset(self.before.before[index])]
        piece = places.piece_of(starts[0])
        (low, _), (first, _) = places.gap(piece) if places.counterpart[piece] < 0 else ((piece, 0), (0, 0))
        if len(starts) > 1 or places.old[piece].first != starts[0] or low != piece:
            # Several edited lines, or one that is entered in the middle: from where the edit begins.
            piece = low
            ran = frozenset(range(places.old[low].first, at + 1))
            if any(not ran.issuperset(self.before.before[index]) for index in ran if index != places.old[low].first):
                return self._unplaced("it was edited, and may have been come to in several ways")
        first = places.counterpart[piece] if places.counterpart[piece] >= 0 else first
        if first >= len(places.new):
            return self._unplaced("the end of the new code has nothing that corresponds to it")
        there = places.new[first].first
        if not self._may_run_twice(ran - {at}, there):
            return self._unplaced("the line that it is in was edited, and what it has done already would be done twice")
        return _Place(there, places.old[piece].first)

    def _same_line(self, at: int) -> frozenset[int]:
        """Instructions of the line of `at` from which control comes to it without leaving the line."""
        line = self._line(at)
        found, waiting = {at}, [at]
        while waiting:
            for index in self.before.before[waiting.pop()]:
                if index not in found and self._line(index) == line:
                    found.add(index)
                    waiting.append(index)
        return frozenset(found)

    def _line(self, index: int) -> tuple[str, int]:
        offset = self.before.rows[index].offset
        row = next(row for row in reversed(self.old.lines) if row.offset <= offset)
        return row.file, row.line

    def _may_run_twice(self, ran: Collection[int], there: int) -> bool:
        """Whether these old instructions have called nothing, and stored nothing but bytes of the frame that the new
        code sets anew before it reads them and that nobody else knows."""
        written = 0
        for index in ran:
            row, places = self.before.rows[index], self.before.places[index]
            stored = [(place, access) for place, access in places if access.writes]
            if row.is_call or row.pushed or len(stored) != row.stores or any(access.is_indexed for _, access in stored):
                return False
            for place, access in stored:
                written |= bits(place, access.size)
        return not written & (live_frame(self.after, self.new)[there] | self._known())

    def _after_call(self, here: int) -> _Place | Refusal:
        """Behind the call in the new code that corresponds to the one under way."""
        places, call = self.places, here - 1
        if not self.before.rows[call].is_call:
            return _undescribed(self.old.name)
        piece = places.piece_of(call)
        partner = places.counterpart[piece]
        if partner >= 0:
            return _Place(places.new[partner].first + call - places.old[piece].first + 1, here)
        (low, high), (first, last) = places.gap(piece)
        word = places.old[piece].words[call - places.old[piece].first]
        olds = _calls(self.before, places.old[low:high], word)
        news = _calls(self.after, places.new[first:last], word)
        if len(olds) != 1 or len(news) != 1:
            return self._unplaced(
                "the line with the call that is under way was edited, and no one call corresponds to it"
            )
        return _Place(news[0] + 1, here)

    def checked(self, here: int, place: _Place, keeps_callee: bool) -> Remap | Refusal:
        """The place, if all that the new code uses from there on is there."""
        old, new, there = self.old, self.new, place.there
        if there >= len(self.after.rows):
            return self._unplaced("the end of the new code has nothing that corresponds to it")
        offset, target = self.before.rows[here].offset, self.after.rows[there].offset
        one, other = old.unwind_at(offset), new.unwind_at(target)
        depths = _depth(self.before)[here], _depth(self.after)[there]
        if one is None or other is None or one.base < 0 or one.lost or other.lost:
            return _undescribed(old.name)
        if one.base != other.base or one.saved != other.saved or (one.base == RBP and one.distance != other.distance):
            return _other_frame(old.name, "the compiler laid the frame out in another way")
        if depths[0] is None or depths[1] is None:
            return _undescribed(old.name)
        if keeps_callee and depths[0] != depths[1]:
            fact = f"its frame has {depths[1]} bytes now and had {depths[0]}, and a call inside of it is under way"
            return _other_frame(old.name, fact, "Come back to it with `finish` first, or use")
        if one.base == RSP and (one.distance - 8, other.distance - 8) != depths:
            return _undescribed(old.name)
        copies = self._variables(place)
        if isinstance(copies, Refusal):
            return copies
        wrong = self._registers(here, place, keeps_callee)
        if wrong is not None:
            return wrong
        lines = [row.line for row in new.lines if row.offset <= target - keeps_callee]  # a call is before its return
        line = lines[-1] if lines else 0
        return Remap(one, target, depths[1] + 8, depths[0] != depths[1], line, copies)

    def _variables(self, place: _Place) -> tuple[tuple[int, int, int], ...] | Refusal:
        """What has to be moved so that each byte of the frame that the new code may read is what the old code had."""
        old, new = self.old, self.new
        offset, target = self.before.rows[place.since].offset, self.after.rows[place.there].offset
        live = live_frame(self.after, new)[place.there]
        named, copies = 0, []
        for row in new.variables:
            if row.place is None or not row.is_visible_at(target):
                continue
            whole = bits(row.place, row.size)
            twins = [other for other in old.variables if other.name == row.name and other.is_visible_at(offset)]
            if any(_is_alike(row, twin) for twin in twins):
                named |= whole
            elif live & whole and (twin := self._movable(row, twins)) is not None:
                named |= whole
                copies.append((twin, row.place, row.size))
            elif twins and live & whole:
                return _other_frame(old.name, f"'{row.name}' has another place in its frame, or another type")
            elif live & whole:
                return _other_frame(old.name, f"the new code uses '{row.name}', which has no value in this call")
        held = self._held_bytes(place.since)
        if held and not self._are_set_alike(held):
            return _other_frame(
                old.name, "a variable refers to something in it that has no name, and maybe another place"
            )
        left = live & ~named & ~_saved_bytes(old.unwind_at(offset))
        left &= ~self._begun_later(place, named)
        if left.bit_length() > LARGEST_FRAME:
            return _undescribed(old.name)
        if left and not self._are_set_alike(left):
            kept = [row for row in self._kept_arguments(place) if left & bits(*row[1:])]
            copies += kept
            left &= ~sum(bits(*row[1:]) for row in kept)
        if left and not self._are_set_alike(left):
            return _other_frame(old.name, "the new code uses something that the compiler keeps in it without a name")
        return tuple(copies)

    def _begun_later(self, place: _Place, named: int) -> int:
        """Bytes that hold nothing yet when the new code comes to the place, ever so often: what has no name is of one
        expression where all variables are kept, and all that this code does with them is behind the place, also when it
        comes there for the first time. Expressions that are under way there have to be as they were."""
        if not self.new.keeps_variables:
            return 0
        under_way = _touched(self.new, self.after, _reached(self.after, [0], place.there)) & ~named
        if under_way and not self._are_set_alike(under_way):
            return 0
        # Exceptions come to what nothing else leads to, from where they like.
        handlers = frozenset(range(len(self.after.rows))) - _reached(self.after, [0])
        return ~_touched(self.new, self.after, _reached(self.after, [0, *handlers], place.there))

    def _held_bytes(self, since: int) -> int:
        """What has no name in the old frame, but its address is kept, as C++ and Rust let references prolong the life
        of what an expression made. How long it is nothing says: it may reach up to the next that is known."""
        old, found = self.old, 0
        starts = {place for rows in self.before.places for place, access in rows if access.is_address}
        starts |= {row.place for row in old.variables if row.place is not None}
        saved = old.unwind_at(self.before.rows[since].offset)
        starts |= {-8, *(saved.saved.values() if saved is not None else ())}
        for index in reaching(self.before, since):
            for place, access in self.before.places[index]:
                is_named = any(bits(place, 1) & bits(row.place or 0, row.size) for row in old.variables)
                if (
                    access.is_address
                    and place < -8
                    and not is_named
                    and self._is_kept(index, self.before.rows[since].offset)
                ):
                    found |= bits(place, min(start for start in starts if start > place) - place)
        return found

    def _is_kept(self, index: int, offset: int) -> bool:
        """Whether the address that the instruction takes is stored, and not only in variables that are none any more at
        `offset`."""
        loaded = _ADDRESS.match(self.before.rows[index].text)
        if loaded is None:
            return True
        known = {(target, frozenset({loaded[1]})) for target in self.before.next[index]}
        waiting = list(known)
        while waiting:
            at, registers = waiting.pop()
            row = self.before.rows[at]
            moved = _MOVE.match(row.text)
            held = registers - wholes_of(row.writes) - (wholes_of(CLOBBERED) if row.is_call else frozenset())
            if moved is not None and moved[2] in registers:
                if not moved[1].endswith("]"):
                    held |= {moved[1]}
                elif self._is_stored_for_good(at, offset):
                    return True
            elif not row.is_call and wholes_of(row.reads) & registers - {access.base for access in row.accesses}:
                return True  # another address may be made of it
            more = {(target, frozenset(held)) for target in self.before.next[at]} - known if held else set()
            known |= more
            waiting += more
        return False

    def _is_stored_for_good(self, index: int, offset: int) -> bool:
        places = [place for place, access in self.before.places[index] if access.writes]
        names = [
            row
            for row in self.old.variables
            if row.place is not None
            for place in places
            if row.place <= place < row.place + row.size
        ]
        return not names or any(row.is_visible_at(offset) for row in names)

    def _movable(self, row: Variable, twins: Sequence[Variable]) -> int | None:
        """The old place of a variable that is the same but for its place, and that nobody can know the place of."""
        found = [twin for twin in twins if twin.place is not None and _is_alike(row, replace(twin, place=row.place))]
        if len(found) != 1 or row.is_indirect or found[0].place is None:
            return None
        return None if self._known() & bits(found[0].place, row.size) else found[0].place

    def _kept_arguments(self, place: _Place) -> list[tuple[int, int, int]]:
        """Copies of arguments that the new code makes when it begins, for good, and gives no name, as clang does with
        `this`: what it has copied is still in the old frame when the old code has never set the argument again."""
        found = []
        for index in range(1, min(place.there, _straight(self.after))):
            loaded = _LOAD.match(self.after.rows[index - 1].text)
            stored = _STORE.match(self.after.rows[index].text)
            accesses = [*self.after.places[index - 1], *self.after.places[index]]
            if loaded is None or stored is None or loaded[1] != stored[1] or len(accesses) != 2:
                continue
            argument, kept = (at for at, _ in accesses)
            is_known = any(
                one.is_parameter
                and not one.is_indirect
                and (one.place, one.size) == (argument, 8)
                and one.name == other.name
                for one in self.new.variables
                for other in self.old.variables
                if _is_alike(one, other)
            )
            setters = (
                _setters(self.before, self.old, argument),
                _setters(self.after, self.new, argument),
                _setters(self.after, self.new, kept),
            )
            if (
                is_known
                and not self._known() & bits(kept, 8)
                and all(len(rows) == 1 for rows in setters)
                and setters[0][0] < min(place.since, _straight(self.before))
                and setters[1][0] < index - 1
                and setters[2][0] == index
            ):
                found.append((argument, kept, 8))
        return found

    def _known(self) -> int:
        """Bytes of variables whose address the old code takes."""
        known = 0
        for accesses in self.before.places:
            for place, access in accesses:
                known |= extent(self.old, place, access.size) if access.is_address else 0
        return known

    def _are_set_alike(self, wanted: int) -> bool:
        """Whether the same instructions, in lines that are as they were, set these bytes in both versions."""
        olds, news = (
            {
                index: tuple((place, access) for place, access in accesses if not access.reads)
                for index, accesses in enumerate(flow.places)
                if any(
                    (access.writes or access.is_address) and extent(function, place, access.size) & wanted
                    for place, access in accesses
                )
            }
            for flow, function in ((self.before, self.old), (self.after, self.new))
        )
        return {self._counterpart(index): rows for index, rows in olds.items()} == news

    def _counterpart(self, index: int) -> int:
        """Of an instruction; -1 where its line was edited."""
        piece = self.places.piece_of(index)
        partner = self.places.counterpart[piece]
        return self.places.new[partner].first + index - self.places.old[piece].first if partner >= 0 else -1

    def _registers(self, here: int, place: _Place, keeps_callee: bool) -> Refusal | None:
        """Whether the registers in use at the new place hold what they would. What they are set by is looked for
        backwards, as long as both versions are the same."""
        wanted = live_registers(self.after)[place.there] - _ALWAYS_RIGHT
        unwind = self.old.unwind_at(self.before.rows[here].offset)
        if unwind is not None and unwind.base == RBP:
            wanted -= parts_of(("rbp",))
        if keeps_callee:
            wanted -= RETURNED  # the call that corresponds puts them there
        changed = frozenset().union(*(row.writes for row in self.before.rows[place.since : here]))
        words = [[word for piece in side for word in piece.words] for side in (self.places.old, self.places.new)]
        one, other = place.since, place.there
        if wanted & changed:
            return self._in_registers(wanted & changed)
        while wanted:
            if one in self.before.leads or other in self.after.leads:
                return self._in_registers(wanted)
            one, other = one - 1, other - 1
            if words[0][one] != words[1][other] or self.before.places[one] != self.after.places[other]:
                return self._in_registers(wanted)
            row = self.after.rows[other]
            if row.is_call and wanted & CLOBBERED - RETURNED:
                return self._in_registers(wanted)
            wanted -= RETURNED if row.is_call else row.kills
        return None

    def _in_registers(self, wanted: frozenset[str]) -> Refusal:
        names = ", ".join(sorted(wholes_of(wanted)))
        return Refusal(
            "frame-place-changed",
            f"the new '{self.old.name}' has values in registers ({names}) at the place that corresponds, and "
            "whether they are the same there was not proved",
            "Step to the next line and try again; or use `--frame restart` or `--frame old`. Optimised code keeps most "
            "of its values so: build with -O0 to move running calls.",
            self.old.name,
        )

    def _unplaced(self, why: str) -> Refusal:
        return Refusal(
            "frame-place-changed",
            f"the new '{self.old.name}' has no place that surely corresponds to where this call is: {why}",
            "Step to a line that is as it was and try again; or use `--frame restart` or `--frame old`.",
            self.old.name,
        )


def _straight(flow: Flow) -> int:
    """How many instructions run one after the other, once each, when the function begins."""
    if flow.before[0]:
        return 0
    ends = (index for index, rows in enumerate(flow.next) if rows != (index + 1,) or index + 1 in flow.leads)
    return next(ends, len(flow.rows) - 1) + 1


def _reached(flow: Flow, starts: Collection[int], end: int = -1) -> set[int]:
    """Instructions to which control comes from these without passing by `end`."""
    found, waiting = set[int](), list(starts)
    while waiting:
        index = waiting.pop()
        if index not in found and index != end:
            found.add(index)
            waiting.extend(flow.next[index])
    return found


def _touched(function: DescribedFunction, flow: Flow, rows: Collection[int]) -> int:
    """Bytes of the frame that these instructions read, write or take the address of."""
    found = 0
    for index in rows:
        for place, access in flow.places[index]:
            found |= extent(function, place, max(access.size, 1))
    return found


def _setters(flow: Flow, function: DescribedFunction, place: int) -> list[int]:
    """Instructions that write some of the eight bytes there, or take the address of what they are in."""
    whole = bits(place, 8)
    return [
        index
        for index, accesses in enumerate(flow.places)
        if any(
            (access.writes or access.is_address) and extent(function, at, access.size) & whole
            for at, access in accesses
        )
    ]


def _calls(flow: Flow, rows: Sequence[Piece], word: str) -> list[int]:
    """Indices of the calls that are written so."""
    return [
        row.first + at
        for row in rows
        for at, one in enumerate(row.words)
        if one == word and flow.rows[row.first + at].is_call
    ]


def _depth(flow: Flow) -> list[int | None]:
    """Before each instruction the bytes pushed since the entry; None where that is not one number."""
    found: dict[int, int | None] = {}
    waiting: list[tuple[int, int | None]] = [(0, 0)]
    while waiting:
        index, depth = waiting.pop()
        if index in found:
            if found[index] == depth or found[index] is None:
                continue
            depth = None
        found[index] = depth
        row = flow.rows[index]
        if depth is not None and "rsp" in row.writes and not row.is_call:
            depth = depth + row.pushed if row.pushed else None
        waiting += [(target, depth) for target in flow.next[index]]
    return [found.get(index) for index in range(len(flow.rows))]


def _is_alike(one: Variable, other: Variable) -> bool:
    return (one.place, one.type, one.size, one.is_indirect) == (other.place, other.type, other.size, other.is_indirect)


def _saved_bytes(row: UnwindRow | None) -> int:
    found = bits(-8, 8)
    for place in row.saved.values() if row is not None else ():
        found |= bits(place, 8)
    return found


def _other_frame(name: str, why: str, advice: str = "Use") -> Refusal:
    return Refusal(
        "frame-layout-changed",
        f"this call of '{name}' cannot go on in the new code: {why}",
        f"{advice} `--frame restart` or `--frame old`.",
        name,
    )


def _undescribed(name: str) -> Refusal:
    return Refusal(
        "frame-not-described",
        f"the frame of '{name}' is not described well enough to go on in the new code: no lines, no unwind row, or a "
        "stack pointer that moves by a number that only running tells",
        "Build with -g; or use `--frame old`.",
        name,
    )
