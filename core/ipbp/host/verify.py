"""Whether memory is what a plan takes it for: every question is asked before the first byte is written."""

from __future__ import annotations

from typing import Optional, Sequence

from ipbp.errors import Refusal
from ipbp.host.inferior import Inferior
from ipbp.host.memory import mappings_of, read_or_none
from ipbp.host.unloaded import is_loaded
from ipbp.protocol import Allocation, PatchedImage, PatchPlan, Region, Replacement, Segment

PAGE = 4096
_AT_ONCE = 64  # places


class Places:
    """Places that are replaced together, `changes`; those that are close together are read at once. To be made while
    the program still runs."""

    def __init__(self, changes: Sequence[Replacement]) -> None:
        self.changes = tuple(changes)
        self.expected = [change.expected for change in changes]
        self.replacements = [change.replacement for change in changes]
        self.refusals = _overlaps(changes)
        """What is wrong whatever the memory is."""
        self._groups = _neighbours(changes)

    def read(self, inferior: Inferior) -> list[Optional[bytes]]:
        """The bytes at each place, None where they cannot be read."""
        found: list[Optional[bytes]] = [None] * len(self.changes)
        for start, end, rows in self._groups:
            content = read_or_none(inferior, start, end - start)
            for index, low, high in rows:
                # With a hole between two of them each is read alone.
                found[index] = read_or_none(inferior, start + low, high - low) if content is None else content[low:high]
        return found

    def verify(self, inferior: Inferior, wanted: Sequence[bytes]) -> list[Refusal]:
        """A refusal for each place whose bytes are not the `wanted` ones."""
        found = self.read(inferior)
        if found == wanted:
            return []
        refusals = []
        for change, memory, content in zip(self.changes, found, wanted):
            if memory is None:
                refusals.append(_unreadable(change.name, change.address, len(content)))
            elif memory != content:
                refusals.append(_changed(change, memory, content))
        return refusals


def verify_plan(
    inferior: Inferior, plan: PatchPlan, regions: Sequence[Region], places: Optional[Places] = None
) -> list[Refusal]:
    """Everything that keeps this plan from being applied; [] when nothing does. `regions`: as they are now. `places`:
    of its replacements."""
    places = places or Places(plan.replacements)
    refusals = [*places.refusals, *places.verify(inferior, places.expected)]
    refusals += [
        _unloaded(image) for image in plan.images if not (image.is_executable or is_loaded(image, inferior, regions))
    ]
    for block in plan.allocations:
        refusals += _verify_allocation(block, regions)
    for segment in plan.segments:
        refusals += _verify_segment(inferior, segment, plan.allocations, regions)
    return refusals


_Group = tuple[int, int, list[tuple[int, int, int]]]  # start, end; number of a place, its start and end from there


def _neighbours(changes: Sequence[Replacement]) -> list[_Group]:
    groups: list[list[int]] = []
    for index in sorted(range(len(changes)), key=lambda row: changes[row].address):
        if groups and changes[index].address - changes[groups[-1][-1]].address < PAGE and len(groups[-1]) < _AT_ONCE:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [_group(changes, rows) for rows in groups]


def _group(changes: Sequence[Replacement], rows: Sequence[int]) -> _Group:
    places = [(index, changes[index].address, changes[index].address + len(changes[index].expected)) for index in rows]
    start, end = places[0][1], max(high for _, _, high in places)
    return start, end, [(index, low - start, high - start) for index, low, high in places]


def is_one_of_both(memory: bytes, change: Replacement) -> bool:
    """Whether each byte is the old or the new one: a write that was cut off leaves a mixture."""
    return all(byte in pair for byte, *pair in zip(memory, change.expected, change.replacement))


def _overlaps(changes: Sequence[Replacement]) -> list[Refusal]:
    rows = sorted(changes, key=lambda change: change.address)
    refusals = [
        _malformed(f"'{row.name}' is to be replaced by {len(row.replacement)} bytes instead of {len(row.expected)}")
        for row in rows
        if len(row.expected) != len(row.replacement)
    ]
    for one, next_one in zip(rows, rows[1:]):
        if next_one.address < one.address + len(one.expected):
            refusals.append(_malformed(f"'{one.name}' and '{next_one.name}' are to be replaced at the same place"))
    return refusals


def _verify_allocation(block: Allocation, regions: Sequence[Region]) -> list[Refusal]:
    if block.address % PAGE or block.size % PAGE or block.size <= 0:
        return [_malformed(f"{block.size} bytes at {block.address:#x} are not whole pages")]
    if any(r.start < block.address + block.size and block.address < r.end for r in regions):
        return [
            Refusal(
                "address-taken",
                f"{block.size} bytes at {block.address:#x} were free and are not any more",
                "Try again: another place is chosen.",
            )
        ]
    return []


def _verify_segment(
    inferior: Inferior, segment: Segment, allocations: Sequence[Allocation], regions: Sequence[Region]
) -> list[Refusal]:
    start, end = segment.address, segment.address + segment.size
    own = next((a for a in allocations if a.address <= start and end <= a.address + a.size), None)
    protections = {own.protection} if own else _protections(start, end, regions)
    if protections != {segment.protection}:
        found = " and ".join(sorted(protections)) or "not mapped"
        return [_malformed(f"the memory at {start:#x} is {found} and would have to be {segment.protection}")]
    if own:
        return []
    content = read_or_none(inferior, start, segment.size)
    if content is None:
        return [_unreadable("the patch", start, segment.size)]
    if content.count(0) != len(content):
        return [
            Refusal(
                "memory-not-empty",
                f"{segment.size} bytes at {start:#x}, where the patch would go, are in use",
                "Try again; report it as a bug when it does not go away.",
            )
        ]
    return []


def _protections(start: int, end: int, regions: Sequence[Region]) -> set[str]:
    # Of all mappings that the range touches; the empty set when it is not mapped throughout.
    return {row.protection for row in mappings_of(start, end, regions)}


def _changed(change: Replacement, found: bytes, wanted: bytes) -> Refusal:
    return Refusal(
        "memory-changed",
        f"the code of '{change.name}' at {change.address:#x} is {found.hex(' ')}, not {wanted.hex(' ')}",
        "Something else changed it; take that away (another tracer, a probe) and try again.",
        symbol=change.name,
    )


def _unreadable(name: str, address: int, size: int) -> Refusal:
    return Refusal(
        "memory-unreadable",
        f"{size} bytes at {address:#x} ('{name}') cannot be read",
        "The memory was unmapped; restart the program if it should be there.",
    )


def _unloaded(image: PatchedImage) -> Refusal:
    return Refusal(
        "image-unloaded",
        f"{image.path} was unloaded while the patch was made",
        "Try again: what is loaded then is patched.",
    )


def _malformed(fact: str) -> Refusal:
    return Refusal("plan-malformed", fact, "This is a bug in ipbp: please report it.")
