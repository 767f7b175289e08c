"""Tables of virtual functions, which every object of a class leads to (Itanium C++ ABI, 2.5).

An override that is new, or gone, is another function in a slot that the table has. The running table gets it in its
place, so that objects that exist call it as well. A table with more or fewer entries, or with other distances to bases,
is another layout of the class, and objects of the old one exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.graph.unit import Slot

_TABLES = ("_ZTV", "_ZTC")  # of a class, and of a base while an object is made
_OF_CLASSES = (*_TABLES, "_ZTI")  # what also changes with a class: what it is derived from
_WORD = 8


def is_virtual_table(name: str) -> bool:
    return name.startswith(_TABLES)


def has_same_slots(old: LinkGraph, before: int, new: LinkGraph, after: int) -> bool:
    """Whether two tables differ in nothing but the functions in their slots."""
    if old.blocks.size[before] != new.blocks.size[after]:
        return False
    one, other = old.edges_of(before), new.edges_of(after)
    plain_one, plain_other = (_without_slots(*pair) for pair in ((old, before), (new, after)))
    return np.array_equal(old.edges.offset[one], new.edges.offset[other]) and plain_one == plain_other


def _without_slots(graph: LinkGraph, block: int) -> bytes:
    content = np.frombuffer(bytes(graph.content(block)), np.uint8).copy()
    for offset in graph.edges.offset[graph.edges_of(block)].tolist():
        content[offset : offset + _WORD] = 0
    return content.tobytes()


def changed_slots(old: LinkGraph, table: int, new: LinkGraph, block: int, address: int) -> Iterator[Slot]:
    """The slots of the table at load address `address` that hold another function now."""
    one, other = old.edges_of(table), new.edges_of(block)
    for before, after in zip(range(one.start, one.stop), range(other.start, other.stop), strict=True):
        target, symbol = int(old.edges.target[before]), int(new.edges.target[after])
        if old.symbols.name[target] != new.symbols.name[symbol]:
            yield Slot(
                address=address + int(new.edges.offset[after]),
                symbol=symbol,
                addend=int(new.edges.addend[after]),
                table=new.block_name(block),
            )


def local_targets(new: LinkGraph, slots: Iterable[Slot]) -> Iterator[int]:
    """Blocks of functions of this unit that come into a slot."""
    for slot in slots:
        home = int(new.symbols.block[slot.symbol])
        if home >= 0 and new.blocks.kind[home] == BlockKind.CODE:
            yield home


def class_of(name: str) -> str:
    """The class of a table or of a typeinfo, as far as its name is plain (Itanium C++ ABI, 5.1.4): "" for other names
    and for instances of templates."""
    if not name.startswith(_OF_CLASSES):
        return ""
    rest, parts = name[4:], []
    nested = rest.startswith("N")
    rest = rest[1:] if nested else rest
    while rest[:1].isdigit():
        digits = len(rest) - len(rest.lstrip("0123456789"))
        length = int(rest[:digits])
        parts.append(rest[digits : digits + length])
        rest = rest[digits + length :]
    return "::".join(parts) if rest == ("E" if nested else "") else ""


def table_changed(name: str, file: str) -> Refusal | None:
    """The refusal for a table, or a typeinfo, that is another one; None for other constants."""
    if not name.startswith(_OF_CLASSES):
        return None
    owner = class_of(name) or name
    return Refusal(
        "layout-changed",
        f"class {owner}: its virtual functions or its bases are others, and the program may hold objects of the class",
        f"Restart the program; or, when no such object is alive, `hotpatch --allow-layout '{owner}'`.",
        owner,
        file,
    )
