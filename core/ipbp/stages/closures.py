"""Lambda expressions of C++ that an edit made others: what was made of the old ones goes on in its old code.

A closure's type has no name that other code could use, and compilers number them within a function, older clangs within
the whole unit. One more lambda expression, and a name means another one. So where a function has other
closures than before, all functions that were made for its closures are new ones beside the old, whatever their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ipbp.graph.layouts import UnitTypes
from ipbp.graph.model import LinkGraph
from ipbp.graph.names import Names
from ipbp.stages.exchanged_closures import exchanged_closures

_MARKS = (b"Ul", b"$_")  # <closure-type-name> (Itanium C++ ABI, 5.1.8), and clang's for those that no other unit sees
_MARK = r"E(?:N[KOR]*)?(?:Ul|\d+\$_)"
_PLAIN = re.compile(r"[A-Za-z_]\w*\Z")
_OTHERS = "closures that '{}' made before go on with their old code: what they capture, or their number, is another"
_EXCHANGED = (
    "closures that '{}' made before go on with their old code: several that take the same changed, and the edit may "
    "have exchanged them"
)


def renewed_closures(
    old: UnitTypes, new: UnitTypes, before: LinkGraph, after: LinkGraph
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Names of new functions that belong to closures which are others now, and the notes for the user. `before`,
    `after`: the code."""
    owners = [owner for owner, rows in new.closures.items() if _are_others(old, new, owner)]
    ways = [re.compile(_way(owner) + _MARK) for owner in owners]
    found = {name for name in _of_closures(after.symbols.name) if any(way.search(name) for way in ways)} if ways else ()
    notes = [_OTHERS.format(owner) for owner in owners] if found else []
    several = {owner: _way(owner) for owner, rows in new.closures.items() if len(rows) > 1 and owner not in owners}
    exchanged = exchanged_closures(before, after, several) if several else {}
    notes += [_EXCHANGED.format(owner) for owner in exchanged]
    return frozenset(found).union(*exchanged.values()), tuple(notes)


def _are_others(old: UnitTypes, new: UnitTypes, owner: str) -> bool:
    before, after = old.closures.get(owner, ()), new.closures[owner]
    if not before:
        return False
    if [(row.captures, row.takes) for row in before] != [(row.captures, row.takes) for row in after]:
        return True
    pairs = zip(before, after, strict=True)
    return any(one.linkage and other.linkage and one.linkage != other.linkage for one, other in pairs)


def _way(owner: str) -> str:
    """How the names of its closures' functions are spelled: an operator, say, is spelled in its own way, and then every
    closure's is meant."""
    last = re.sub(r"<.*", "", owner).rpartition("::")[2]
    return rf"{len(last)}{re.escape(last)}.*?" if _PLAIN.match(last) else ""


def _of_closures(names: Names) -> Iterator[str]:
    rows = {row for mark in _MARKS for row in names.containing(mark).tolist()}
    yield from (names[row] for row in sorted(rows))
