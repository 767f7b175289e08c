"""In which images the dynamic loader looks for a name: the search list of each image that was opened by itself.

A name is looked for in the global scope, which is the search list of the namespace's first image (the program with
what it needs, and what dlopen added with RTLD_GLOBAL), then in the lists of those dlopen calls that brought the image
in (dlopen(3), "RTLD_LOCAL"); with RTLD_DEEPBIND the other way round. glibc keeps each list in the private part of its
link map. Where, differs from version to version, but `_rtld_global` begins with the first namespace's map, count and
pointer to the program's list ("must remain the first element. Forever", sysdeps/generic/ldsodefs.h), and the
program's list is a member of its map: that gives the member's place in every map. Which lists an image is searched
by, and in which order, says a member further on, `l_scope`; it stands before one that points to the map's own list
(`l_local_scope`, include/link.h). What is read is checked in every particular; where it does not hold (musl, a loader
of its own) the lists are made from what each image needs, and nothing counts as opened with RTLD_GLOBAL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from ipbp.formats.elf_link_map import LinkMap
from ipbp.graph.image import MemoryReader

SearchLists = Mapping[int, tuple[int, ...]]
"""Address of a link map -> those of the maps in its list, itself first."""
SearchOrder = Mapping[int, tuple[int, ...]]
"""Address of a link map -> those of the maps that are searched from inside it, in order."""
_MOST_SCOPES = 64
_MEMBERS = 1024  # bytes behind the place of the list; `l_scope` is among them
_MAP_SIZE = 8192  # more than any glibc's link map


def kept_lists(namespaces: Sequence[Sequence[LinkMap]], rtld_global: int, read: MemoryReader) -> SearchLists | None:
    """The lists that the loader keeps; maps that were never opened by themselves have none. None when memory does not
    look like glibc's. `rtld_global`: load address of that variable."""
    known = {row.address for row in chain(*namespaces)}
    main = namespaces[0][0].address
    head = read([(rtld_global, 24)])[0] or bytes(24)
    offset = _word(head, 16) - main
    if _word(head, 0) != main or not 40 <= offset < _MAP_SIZE:
        return None
    lists: dict[int, tuple[int, ...]] = {}
    maps = list(known)
    for address, content in zip(maps, read([(address + offset, 12) for address in maps]), strict=True):
        place, count = _word(content or b"", 0), int.from_bytes((content or b"")[8:12], "little")
        if place == 0 or not 0 < count <= len(known):
            continue
        row = read([(place, 8 * count)])[0] or b""
        members = tuple(_word(row, at) for at in range(0, len(row), 8))
        # An old list of an image that is just being closed may name what is gone.
        if members and members[0] == address and known.issuperset(members):
            lists[address] = members
    heads = [row[0].address for row in namespaces]
    return lists if all(address in lists for address in heads) else None


def kept_order(lists: SearchLists, maps: Sequence[int], rtld_global: int, read: MemoryReader) -> SearchOrder:
    """What the loader searches from inside each map that says so. `lists`: what `kept_lists` found; `maps`: addresses
    of all link maps, the program's first."""
    offset = _word(read([(rtld_global, 24)])[0] or bytes(24), 16) - maps[0]
    members = dict(zip(maps, read([(row + offset, _MEMBERS) for row in maps]), strict=True))
    own = members[maps[0]] or b""
    for place in range(24, len(own), 8):
        if _word(own, place) != maps[0] + offset:
            continue
        if _searched(_word(own, place - 8), maps[0], offset, lists, read) == lists.get(maps[0]):
            break
    else:
        return {}
    found = {}
    for row, content in members.items():
        # The loader's own map is made otherwise.
        if content is not None and _word(content, place) == row + offset:
            searched = _searched(_word(content, place - 8), row, offset, lists, read)
            if searched:
                found[row] = searched
    return found


def _searched(scope: int, own: int, offset: int, lists: SearchLists, read: MemoryReader) -> tuple[int, ...]:
    """The maps of the lists that an array of pointers names, up to a null pointer; () when it is no such array."""
    found: dict[int, None] = {}
    for at in range(_MOST_SCOPES):
        pointer = _word(read([(scope + 8 * at, 8)])[0] or b"", 0)
        if pointer == 0:
            return tuple(found)
        if pointer - offset in lists:
            found.update(dict.fromkeys(lists[pointer - offset]))
        elif pointer == own + offset + 16:
            # Behind the list of a map is the one of -Bsymbolic, which has nothing but the map itself.
            found[own] = None
        else:
            return ()
    return ()


def _word(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
