"""Callers that were compiled for another signature.

A function that takes or returns something else now is replaced for all who call it, and who calls it as before would
hand over what it does not expect. A header that changed has its users compiled again; a prototype that is repeated by
hand in another file has not. So where the debug information of old and new object differ in a signature, nobody
else may call the function directly. Calls through pointers are not seen. The names of C++ functions carry what they
take, so these are other functions.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ipbp.build.store import Store
from ipbp.errors import Refusal
from ipbp.formats.signatures import SECTIONS, signatures
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import Binding, BlockKind
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND
from ipbp.kept import file_state
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.layouts import described, sections_of_image
from ipbp.pipeline.record import UnitRecord
from ipbp.pipeline.unit_names import stored_names
from ipbp.stages.callers import direct_calls, functions_at
from ipbp.stages.compare import Status
from ipbp.stages.old_callers import CALLS, Callees

Known = Mapping[str, UnitRecord]
"""What the record says of the units of an image."""


def refuse_old_callers(judged: Sequence[Judged], known: Known, store: Store, image: LoadedImage) -> tuple[Refusal, ...]:
    """`signature-changed` for each function with another signature that code outside of these units calls."""
    callers = _callers(judged, known, store, image)
    refusals = []
    for unit in judged:
        names = {row.name for row in unit.selection.replaced} & callers.keys()
        if unit.edited.is_crate:
            continue  # all crates that use this one are compiled with it
        before = _old_signatures(unit, names, image) if names else {}
        after = signatures(described(unit.edited.new), names) if before else {}
        refusals += [
            _changed(name, unit.edited.name, before[name], after[name], callers[name])
            for name in sorted(before.keys() & after.keys())
            if before[name] != after[name]
        ]
    return tuple(refusals)


def changed_callees(units: Sequence[Judged]) -> Callees:
    """What a patch of these units does to functions that old code of theirs may call. Which take or return something
    else now is told by debug information: of C++ functions, whose names carry what they take, what they return."""
    replaced = frozenset(row.name for unit in units for row in unit.selection.replaced)
    called = set[str]().union(*map(_called_before, units))
    return Callees(replaced, _retyped(units, replaced & called))


def _called_before(unit: Judged) -> set[str]:
    """The names of what the old code of changed functions calls."""
    comparison, graph = unit.comparison, unit.old.graph
    callers = [*comparison.old_block[comparison.status == Status.CHANGED].tolist(), *comparison.removed]
    calls = np.isin(graph.edges.block, callers) & is_one_of(graph.edges.kind, CALLS)
    return set(graph.symbols.name.take(np.unique(graph.edges.target[calls])))


def _retyped(units: Sequence[Judged], names: Collection[str]) -> frozenset[str]:
    found: set[str] = set()
    for unit in units:
        own = {row.name for row in unit.selection.replaced if row.name in names and not unit.edited.is_crate}
        before = _old_signatures(unit, own, unit.edited.image, shared=False) if own else {}
        after = signatures(described(unit.edited.new), own, shared=False) if before else {}
        found.update(name for name in before.keys() & after.keys() if before[name] != after[name])
    return frozenset(found)


def _callers(judged: Sequence[Judged], known: Known, store: Store, image: LoadedImage) -> dict[str, str]:
    """For each replaced C function that code outside of these units calls, the name of one such caller."""
    names = {row.entry: row.name for unit in judged for row in unit.selection.replaced if _is_shared(unit, row.block)}
    if not names:
        return {}
    place, target = direct_calls(image, names.keys(), _version(image))
    outside = ~_inside(judged, place)
    found: dict[str, str] = {}
    for entry, function in zip(target[outside].tolist(), functions_at(image, place[outside]), strict=True):
        found.setdefault(names[entry], function or "code without a name")
    edited = {unit.edited.name for unit in judged}
    for key, row in known.items():
        if row.object and key not in edited:
            used = stored_names(store, row.object, row.members).used
            found.update({name: key for name in names.values() if name in used})
    return found


def _version(image: LoadedImage) -> tuple[int, ...] | None:
    """What tells the image's file from another one at its path; None when only memory has it."""
    if not image.file:
        return None
    return file_state(os.stat(image.file))


def _is_shared(unit: Judged, block: int) -> bool:
    symbols, anchor = unit.edited.new.symbols, int(unit.edited.new.blocks.anchor[block])
    return symbols.binding[anchor] != Binding.LOCAL and not symbols.name[anchor].startswith(("_Z", "_R"))


def _inside(judged: Iterable[Judged], place: np.ndarray) -> np.ndarray:
    """Which of these places are in code of the units, as it was before."""
    result = np.zeros(len(place), dtype=np.bool_)
    for unit in judged:
        graph = unit.old.graph
        rows = np.flatnonzero(graph.blocks.kind == BlockKind.CODE)
        start = unit.old.address[graph.blocks.anchor[rows]]
        known = start != UNBOUND
        start, size = start[known], graph.blocks.size[rows[known]]
        order = np.argsort(start)
        if len(order):
            at = np.maximum(np.searchsorted(start[order], place, side="right") - 1, 0)
            result |= (place >= start[order][at]) & (place < start[order][at] + size[order][at])
    return result


def _old_signatures(unit: Judged, names: set[str], image: LoadedImage, shared: bool = True) -> dict[str, str]:
    if not unit.is_lifted:
        return signatures(described(unit.old.graph), names, shared=shared)
    if not image.debug_file:
        return {}
    return signatures(sections_of_image(image, SECTIONS), names, unit.edited.new.source, shared)


def _changed(name: str, file: str, before: str, after: str, caller: str) -> Refusal:
    return Refusal(
        "signature-changed",
        f"'{name}' was {before} and is {after}, and {_shown(caller)}, which was not compiled again, calls it as before",
        "Edit that caller, too (a header that both include does it), or give the new function another name.",
        name,
        file,
    )


def _shown(caller: str) -> str:
    return caller if "/" in caller or " " in caller else f"'{caller}'"
