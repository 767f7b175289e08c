"""Whether memory is what a plan takes it for: every question is asked before the first byte is written."""

from __future__ import annotations

from typing import Optional, Sequence

from ipbp.errors import IpbpError, Refusal
from ipbp.host.inferior import Inferior
from ipbp.host.unloaded import is_loaded
from ipbp.protocol import Allocation, PatchedImage, PatchPlan, Region, Replacement, Segment

PAGE = 4096


def verify_plan(inferior: Inferior, plan: PatchPlan, regions: Sequence[Region]) -> list[Refusal]:
    """Everything that keeps this plan from being applied; [] when nothing does. `regions`: as they are now."""
    expected = [change.expected for change in plan.replacements]
    refusals = [*_overlaps(plan.replacements), *verify_replacements(inferior, plan.replacements, expected)]
    refusals += [
        _unloaded(image) for image in plan.images if not (image.is_executable or is_loaded(image, inferior, regions))
    ]
    for block in plan.allocations:
        refusals += _verify_allocation(block, regions)
    for segment in plan.segments:
        refusals += _verify_segment(inferior, segment, plan.allocations, regions)
    return refusals


def verify_replacements(inferior: Inferior, changes: Sequence[Replacement], wanted: Sequence[bytes]) -> list[Refusal]:
    """A refusal for each place whose bytes are not the `wanted` ones (one for each of `changes`)."""
    refusals = []
    found_bytes = read_replaced(inferior, changes)
    for change, found, content in zip(changes, found_bytes, wanted):
        if found is None:
            refusals.append(_unreadable(change.name, change.address, len(content)))
        elif found != content:
            refusals.append(_changed(change, found, content))
    return refusals


def read_replaced(inferior: Inferior, changes: Sequence[Replacement]) -> list[Optional[bytes]]:
    """The bytes at each place, None where they cannot be read. Places close together are read at once."""
    found: dict[int, Optional[bytes]] = {}
    for group in _neighbours(changes):
        start, end = group[0].address, max(change.address + len(change.expected) for change in group)
        content = _read(inferior, start, end - start) if len(group) > 1 else None
        for change in group:
            size = len(change.expected)
            if content is None:  # alone, or there is a hole in between
                found[change.address] = _read(inferior, change.address, size)
            else:
                found[change.address] = content[change.address - start : change.address - start + size]
    return [found[change.address] for change in changes]


def _neighbours(changes: Sequence[Replacement]) -> list[list[Replacement]]:
    groups: list[list[Replacement]] = []
    for change in sorted(changes, key=lambda change: change.address):
        if groups and change.address - groups[-1][-1].address < PAGE and len(groups[-1]) < 64:
            groups[-1].append(change)
        else:
            groups.append([change])
    return groups


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
    content = _read(inferior, start, segment.size)
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
    inside = [r for r in regions if r.start < end and start < r.end]
    mapped = sum(min(r.end, end) - max(r.start, start) for r in inside)
    return {r.protection for r in inside} if mapped == end - start else set()


def _read(inferior: Inferior, address: int, size: int) -> Optional[bytes]:
    try:
        return inferior.read(address, size)
    except IpbpError as error:
        if error.code == "inferior-memory":
            return None
        raise


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
