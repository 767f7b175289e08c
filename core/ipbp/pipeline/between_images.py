"""Definitions that an edit moves from the program into one of its libraries, or from one library into another.

The loader's order decides which image's definition a name means, and the old one is still there: code of other files
would go on with it, or new code would be bound to it. Within one image such a move is followed (`pipeline.moves`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ipbp.errors import Refusal
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.model import Binding
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.moves import Followed
from ipbp.pipeline.record import Record
from ipbp.pipeline.report import removed
from ipbp.stages.resolve import comes_before


def moved_between(
    judged: Sequence[Judged], followed: Mapping[str, Followed], record: Record, process: LoadedProcess
) -> tuple[Refusal, ...]:
    """`moved-between-images` for each new definition of a name that another image had until this edit, or until an
    earlier one and still exports; and for each name that is gone from an image which came before another that has it,
    too. `followed`: by the image's key."""
    gone: dict[str, set[str]] = {}
    refusals: list[Refusal] = []
    for unit in judged:
        key = unit.edited.image.key
        graph = unit.old.graph
        for name, _place, block in removed(unit, followed[key]):
            if graph.symbols.binding[graph.blocks.anchor[block]] != Binding.LOCAL:
                gone.setdefault(name, set()).add(key)
                later = (row for row in process.modules if row.key != key and row.dynamic.exports(name))
                home = next((row for row in later if comes_before(key, row.key, process.scope(row.key).order)), None)
                if home is not None:
                    refusals.append(_refusal(name, unit.edited.image.path, home.mapped.path, unit.edited.name))
    for key, rows in record.images.items():
        module = process.module(key)
        if module is not None:
            for name in {name for row in rows.values() for name in row.retired if module.dynamic.exports(name)}:
                gone.setdefault(name, set()).add(key)
    refusals += [row for unit in judged for row in _refusals(unit, gone, process)] if gone else []
    return tuple(refusals)


def _refusals(unit: Judged, gone: Mapping[str, set[str]], process: LoadedProcess) -> Iterator[Refusal]:
    graph, image = unit.edited.new, unit.edited.image
    for block in unit.selection.added:
        anchor = int(graph.blocks.anchor[block])
        name = graph.symbols.name[anchor]
        others = gone.get(name, set()) - {image.key}
        if others and graph.symbols.binding[anchor] != Binding.LOCAL:
            module = process.module(min(others))
            home = module.mapped.path if module is not None else "another image"
            yield _refusal(name, home, image.path, unit.edited.name)


def _refusal(name: str, old: str, new: str, file: str) -> Refusal:
    return Refusal(
        "moved-between-images",
        f"the edit takes '{name}' out of {old}, so that {new} has it now, and running code is bound to the old one",
        "Give it a new name there, or build and start the program once more.",
        name,
        file,
    )
