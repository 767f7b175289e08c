"""A crate's objects as a list of names and digests: the objects themselves are in the store, each of them once.

A crate of fifty thousand lines has two hundred codegen units, of which an edit changes one or two. So what is kept for
a crate is this list, and what differs between two of them is known before any object is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

MAGIC = b"!<ipbp-members>\n"


def packed_list(rows: Iterable[tuple[str, str]]) -> bytes:
    """The list of these names and digests; equal members make equal lists."""
    lines = sorted(f"{digest} {name}\n" for name, digest in rows)
    return MAGIC + "".join(lines).encode("utf-8", "surrogateescape")


def listed(content: bytes) -> dict[str, str] | None:
    """Name -> digest, or None for what is no such list."""
    if content[: len(MAGIC)] != MAGIC:
        return None
    lines = content[len(MAGIC) :].decode("utf-8", "surrogateescape").splitlines()
    return {name: digest for digest, _, name in (line.partition(" ") for line in lines)}


def differing(old: Mapping[str, str], new: Mapping[str, str], also: Collection[str] = ()) -> frozenset[str]:
    """Names of what the two do not have alike, and `also`. One that is alike is among them where otherwise one side
    would have none at all."""
    found = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} | set(also)
    common = sorted(old.keys() & new.keys())
    if common and (found.isdisjoint(old) or found.isdisjoint(new)):
        found.add(common[0])
    return frozenset(found)
