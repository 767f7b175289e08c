"""The few bytes of the running program that change: the entries of the functions that were replaced.

Each is compared now with what memory really holds, and the plan says what must be there when it is applied. An entry
that an earlier patch rewrote holds that patch's jump, which the journal knows; only the jump is exchanged then, and
the old function's shape does not matter any more.

An entry that has no room for a jump of five bytes gets one of two, to a relay: the five bytes in padding near it
(`stages.padding`). A later patch changes the relay only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ipbp.arch.entry import LANDING_SIZE, OldEntry
from ipbp.arch.machines import EntryCode, machine_of
from ipbp.arch.x86_64_entry import SHORT_JUMP_SIZE, check_entry, jump, jump_place, relay_of, short_jump
from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.protocol import Replacement
from ipbp.stages.arena import REACH
from ipbp.stages.layout import CODE_ALIGNMENT
from ipbp.stages.padding import LONGEST_PADDING, Padding


@dataclass(frozen=True, slots=True)
class Entry:
    """A function to be replaced: its old entry and size (0 where no old block tells), and where its new code is.
    `image`: row of the image that it belongs to. `targets`: offsets in the old code to which something else than its
    own direct branches may jump."""

    name: str
    file: str
    entry: int
    size: int
    target: int
    image: int
    targets: tuple[int, ...] = ()


def rewrite_entries(
    rows: Sequence[Entry], images: Sequence[LoadedImage], read: MemoryReader, entries: Mapping[int, bytes]
) -> tuple[tuple[Replacement, ...], list[Refusal]]:
    """What is written over the entries, and a refusal `entry-*` for each that cannot be rewritten. `images`: those
    that hold them. `entries`: address -> bytes of what earlier patches wrote."""
    found = _Rewriting(images, read, entries)
    far = [row for row in rows if abs(row.target - row.entry) >= REACH]
    found.refusals += map(_out_of_reach, far)
    found.rewrite([_with_size(row, images[row.image]) for row in rows if row not in far])
    order = {row.name: number for number, row in enumerate(rows)}
    return tuple(found.made), sorted(found.refusals, key=lambda refusal: order[refusal.symbol or ""])


@dataclass(slots=True)
class _Rewriting:
    """What is found on one way through the rows."""

    images: Sequence[LoadedImage]
    read: MemoryReader
    entries: Mapping[int, bytes]
    made: list[Replacement] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def rewrite(self, rows: Sequence[Entry]) -> None:
        places = self._rewritten_places(rows)
        again = list(places.items())
        first = [row for row in rows if row not in places]
        # One round trip: earlier jumps where there are some, else the old code with its padding.
        relays = [self._relay_of(row, place) for row, place in again]
        ranges = [(place, len(self.entries[place])) for _row, place in again]
        ranges += [(at, len(self.entries.get(at, b"")) or 1) for at in relays]
        ranges += [(row.entry, row.size + _padding_after(row, self.images[row.image])) for row in first]
        contents = self.read(ranges)
        starts, jumps, codes = contents[: len(again)], contents[len(again) : 2 * len(again)], contents[2 * len(again) :]
        for (row, place), start, relayed in zip(again, starts, jumps, strict=True):
            self._exchange(row, place, start, relayed)
        cramped = [row for row, code in zip(first, codes, strict=True) if not self._write_first(row, code)]
        if cramped:
            self._relay(cramped, dict(zip(first, codes, strict=True)))

    def _rewritten_places(self, rows: Sequence[Entry]) -> dict[Entry, int]:
        """Where earlier patches wrote their jumps over these entries, for those where they did: behind a landing pad,
        if there is one; else what lies that far behind the entry may be the next function's."""
        found = {row: row.entry for row in rows if row.entry in self.entries}
        landed = [row for row in rows if row not in found and row.entry + LANDING_SIZE in self.entries]
        codes = self.read([(row.entry, LANDING_SIZE) for row in landed]) if landed else ()
        for row, code in zip(landed, codes, strict=True):
            place = self._machine(row).place(row.entry, code or b"")
            if place in self.entries:
                found[row] = place
        return found

    def _exchange(self, row: Entry, place: int, start: bytes | None, relayed: bytes | None) -> None:
        """The jump of an earlier patch for another one."""
        at = self._relay_of(row, place)
        if relayed is None or start != self.entries[place] or relayed != self.entries.get(at):
            self.refusals.append(_changed_since(row))
            return
        code = self._machine(row).again(at, row.target, relayed)
        if code is None:
            self.refusals.append(_out_of_reach(row))
        else:
            self.made.append(Replacement(at, relayed, code, row.name, row.image, at != place))

    def _machine(self, row: Entry) -> EntryCode:
        return machine_of(self.images[row.image].machine).entry

    def _relay_of(self, row: Entry, place: int) -> int:
        """Where the jump at `place` leads on the way: `place` itself where there are no relays."""
        return relay_of(place, self.entries[place]) if self._machine(row).relays else place

    def _write_first(self, row: Entry, content: bytes | None) -> bool:
        """The first jump over an entry; False when there is no room for one."""
        if not content:
            self.refusals.append(_unreadable(row))
            return True
        old, machine = _old_entry(row, content), self._machine(row)
        place = machine.place(row.entry, old.code)
        before = content[place - row.entry :]
        code = machine.jump(place, row.target, before)
        refusals = machine.check(old, len(code))
        if refusals and machine.relays:
            return False
        if refusals:
            self.refusals += [replace(refusal, file=row.file) for refusal in refusals]
        else:
            self.made.append(Replacement(place, before[: len(code)], code, row.name, row.image))
        return True

    def _relay(self, rows: Sequence[Entry], contents: Mapping[Entry, bytes | None]) -> None:
        """Short jumps for those without room for more, now that it is known which padding is taken."""
        taken = [(place, len(content)) for place, content in self.entries.items()]
        taken += [(change.address, len(change.expected)) for change in self.made]
        for row in rows:
            old = _old_entry(row, contents[row] or b"")
            relayed = _by_relay(old, row, Padding(self.images[row.image], self.read, taken))
            self.made += relayed
            if not relayed:
                self.refusals += [replace(refusal, file=row.file) for refusal in check_entry(old)]


def _old_entry(row: Entry, content: bytes) -> OldEntry:
    return OldEntry(row.name, row.entry, content[: row.size], content[row.size :], row.targets)


def _by_relay(old: OldEntry, row: Entry, padding: Padding) -> list[Replacement]:
    """The short jump and its relay; nothing where two bytes or padding cannot be had either."""
    if check_entry(old, SHORT_JUMP_SIZE):
        return []
    place = jump_place(row.entry, old.code)
    relay = padding.take(place)
    if relay is None:
        return []
    at = place - row.entry
    expected = (old.code + old.after)[at : at + SHORT_JUMP_SIZE]
    return [
        Replacement(relay.address, relay.content, jump(relay.address, row.target), row.name, row.image, True),
        Replacement(place, expected, short_jump(place, relay.address), row.name, row.image),
    ]


def _with_size(row: Entry, loaded: LoadedImage) -> Entry:
    # A function without an old block (it is an alias, say): the image knows its size.
    if row.size:
        return row
    symbols = loaded.symbols
    same = slice(*np.searchsorted(symbols.address, [row.entry, row.entry + 1]).tolist())
    return replace(row, size=int(symbols.size[same].max(initial=0)))


def _padding_after(row: Entry, loaded: LoadedImage) -> int:
    # Bytes between the function's end and whatever comes next: a symbol, or the end of the section.
    end = row.entry + row.size
    if not loaded.start <= row.entry < loaded.end:
        return -end % CODE_ALIGNMENT  # the function is in the arena
    section_end = next((stop for _name, start, stop in loaded.sections if start <= row.entry < stop), end)
    following = int(np.searchsorted(loaded.symbols.address, end))
    next_symbol = int(loaded.symbols.address[following]) if following < len(loaded.symbols.address) else section_end
    gap = min(section_end, next_symbol) - end
    return gap if 0 < gap <= LONGEST_PADDING else 0


def _unreadable(row: Entry) -> Refusal:
    return Refusal(
        "entry-unreadable",
        f"the code of '{row.name}' at {row.entry:#x} cannot be read",
        "The library that holds it was unloaded, or the program is ending: start it again.",
        row.name,
        row.file,
    )


def _changed_since(row: Entry) -> Refusal:
    return Refusal(
        "entry-changed",
        f"the entry of '{row.name}' at {row.entry:#x} does not hold the jump that the last patch wrote there",
        "Something else writes to the program's code; undo the patches, or restart the program.",
        row.name,
        row.file,
    )


def _out_of_reach(row: Entry) -> Refusal:
    return Refusal(
        "entry-out-of-reach",
        f"the new code of '{row.name}' lies 2 GiB or more from its entry at {row.entry:#x}",
        "Undo earlier patches, so that memory nearer to the program is free.",
        row.name,
        row.file,
    )
