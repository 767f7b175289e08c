"""Which images of a process see each other, and in which order each of them is searched.

The dynamic loader has the images in namespaces: the program's own, and one for each dlmopen(3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ipbp.formats.elf_link_map import LinkMap
from ipbp.formats.elf_linked import PT_INTERP
from ipbp.formats.elf_mapped import VDSO
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_search_lists import kept_lists, kept_order
from ipbp.graph.image import MemoryReader


@dataclass(frozen=True)
class Namespace:
    """Images that see each other. `members` in the order of loading; `lists`: by where it is mapped, the search list
    of each image that was opened by itself. `order`: likewise, what the loader searches from inside an image, where
    that is known."""

    members: tuple[LoadedModule, ...]
    lists: Mapping[int, tuple[LoadedModule, ...]]
    order: Mapping[int, tuple[LoadedModule, ...]] = field(default_factory=dict)

    def scope(self, module: LoadedModule) -> tuple[LoadedModule, ...]:
        """The images that are searched from inside `module`, in the loader's order; where that is not known, the global
        scope, then what was opened with it."""
        known = self.order.get(module.mapped.start)
        if known:
            return known
        found = dict.fromkeys(row.mapped.start for row in self.lists.get(self.members[0].mapped.start, ()))
        for member in self.members:
            opened = [row.mapped.start for row in self.lists.get(member.mapped.start, ())]
            if module.mapped.start in opened:
                found.update(dict.fromkeys(opened))
        by_start = {row.mapped.start: row for row in self.members}
        return tuple(by_start[start] for start in found)


def one_namespace(modules: Sequence[LoadedModule]) -> list[Namespace]:
    """Before the loader has run: all that is mapped."""
    members = tuple(module for module in modules if module.mapped.path != VDSO)
    return [Namespace(members, {members[0].mapped.start: members})]


def loaded_namespaces(
    modules: Sequence[LoadedModule], chains: Sequence[Sequence[LinkMap]], read: MemoryReader
) -> list[Namespace]:
    """The loader's namespaces. Its link maps are found among the mapped files by where their dynamic section is; the
    vdso exports nothing to the program, and the loader itself has a map in each namespace."""
    by_map: dict[int, LoadedModule] = {}
    for row in (row for rows in chains for row in rows):
        holder = next((module for module in modules if module.mapped.holds(row.dynamic)), None)
        if holder is not None and holder.mapped.path != VDSO:
            by_map[row.address] = holder
    variable = _rtld_global(modules)
    kept = kept_lists(chains, variable, read) if variable else None
    every = [row.address for rows in chains for row in rows]
    order = kept_order(kept, every, variable, read) if kept is not None else {}
    spaces = []
    for rows in chains:
        mapped = [by_map[row.address] for row in rows if row.address in by_map]
        members = tuple({module.mapped.start: module for module in mapped}.values())
        if not members:
            continue
        own = [row.address for row in rows if row.address in by_map]
        lists = _inferred_lists(members) if kept is None else _by_place(kept, own, by_map)
        spaces.append(Namespace(members, lists, _by_place(order, own, by_map)))
    return spaces


def _by_place(
    maps: Mapping[int, Sequence[int]], wanted: Sequence[int], by_map: Mapping[int, LoadedModule]
) -> dict[int, tuple[LoadedModule, ...]]:
    """Link maps as the images that they are of."""
    found = {row: tuple(by_map[other] for other in maps[row] if other in by_map) for row in wanted if row in maps}
    return {by_map[row].mapped.start: modules for row, modules in found.items()}


def _rtld_global(modules: Sequence[LoadedModule]) -> int:
    """Load address of glibc's variable of this name; 0 when the loader is another one."""
    segment = modules[0].file.segment(PT_INTERP)
    if segment is None:
        return 0
    content = modules[0].file.content[segment.offset : segment.offset + segment.file_size]
    name = bytes(content).rstrip(b"\0").decode("utf-8", "replace").rsplit("/", 1)[-1]
    for module in modules:
        if module.mapped.path.rsplit("/", 1)[-1] == name:
            row = module.dynamic.definition("_rtld_global")
            return int(module.dynamic.symbols.value[row]) + module.bias if row is not None else 0
    return 0


def _inferred_lists(members: Sequence[LoadedModule]) -> dict[int, tuple[LoadedModule, ...]]:
    """Search lists by what each image needs, breadth first. What stands before the first needed library of the
    namespace's first image was preloaded."""
    by_name = {_soname(module): module for module in reversed(members)}
    needed = members[0].dynamic.needed
    first_needed = next((i for i, module in enumerate(members) if _soname(module) in needed), 1)
    lists = {module.mapped.start: _closure((module,), by_name) for module in members[1:]}
    lists[members[0].mapped.start] = _closure(members[:first_needed], by_name)
    return lists


def _closure(roots: Sequence[LoadedModule], by_name: Mapping[str, LoadedModule]) -> tuple[LoadedModule, ...]:
    found = {module.mapped.start: module for module in roots}
    waiting = list(roots)
    while waiting:
        for name in waiting.pop(0).dynamic.needed:
            module = by_name.get(name)
            if module is not None and module.mapped.start not in found:
                found[module.mapped.start] = module
                waiting.append(module)
    return tuple(found.values())


def _soname(module: LoadedModule) -> str:
    return module.dynamic.soname or module.mapped.path.rsplit("/", 1)[-1]
