"""Whether an edit changed types whose values may be alive: the debug information of both sides, compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ipbp.build.rustc_replay import asks_for_types
from ipbp.errors import Refusal
from ipbp.formats.debug_types import types_of_file, types_of_graph
from ipbp.formats.line_rows import line_rows
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import LinkGraph
from ipbp.graph.types import DebugTypes
from ipbp.pipeline.c_types import judge_layouts
from ipbp.pipeline.edited import Edited
from ipbp.pipeline.split_types import split_units
from ipbp.stages.code_words import CodeWords, likeness
from ipbp.stages.method_tables import slots_of_graph, slots_of_image, table_changes
from ipbp.stages.suspensions import CoroutineSide, doubtful_suspensions
from ipbp.stages.type_changes import ALL, TypeChanges, type_changes


def judge_types(
    unit: Edited, old: LinkGraph, image: LoadedImage | None, read: MemoryReader, allowed: Collection[str]
) -> TypeChanges:
    """`image`: where the old side comes from when no object gave it.

    Refusals: `layout-changed`, `variable-type-changed`, `method-table-changed`, `suspension-ambiguous`;
    `no-type-information` when a side has none and the user did not allow every change. Of C and C++
    see `judge_layouts`.
    """
    if not unit.is_crate:
        return judge_layouts(unit, old, image, allowed)
    new = types_of_graph(unit.new)
    described = unit.image.debug_file or unit.image.file
    split = split_units(Path(described))
    before = types_of_graph(old, split) if image is None else types_of_file(described, split)
    # A crate of which others have all the code describes nothing.
    is_asked = unit.dirty is not None and asks_for_types(unit.dirty.command.arguments)
    sides = [(new, is_asked), (before, is_asked and image is None)]
    if ALL not in allowed and not all(row.tells_types or (asked and row.is_whole) for row, asked in sides):
        return TypeChanges(frozenset(), (_no_information(unit.name),))
    running, fresh = _side(old, before), _side(unit.new, new)

    def alike(one: Sequence[str], other: Sequence[str]) -> float:
        return likeness(_words(running.words, one), _words(fresh.words, other))

    changes = type_changes(before, new, unit.name, allowed, alike)
    if image is None:
        slots = {name: slots_of_graph(old, place) for name, place in before.tables.items()}
    else:
        slots = slots_of_image(image, read, before, new.tables)
    tables = table_changes(old, before, slots, unit.new, new, changes, unit.name)
    return replace(
        changes,
        refusals=(*changes.refusals, *tables.refusals),
        notes=(*changes.notes, *tables.notes),
        successors=tables.successors,
        doubts=lambda changed: doubtful_suspensions(running, fresh, unit.name, changed, allowed),
    )


def _side(graph: LinkGraph, types: DebugTypes) -> CoroutineSide:
    return CoroutineSide(types, CodeWords(graph, types.functions), lambda waits, block: line_rows(graph, waits, block))


def _words(words: CodeWords, names: Sequence[str]) -> list[str]:
    blocks = [words.block_of(name) for name in names]
    return [word for block in blocks if block >= 0 for _, word in words.of_block(block)]


def _no_information(file: str) -> Refusal:
    return Refusal(
        "no-type-information",
        "the program or its new objects do not describe their types, so that a changed layout would not be noticed",
        "Build with `debug = true` and without `strip` in the profile, and keep what `split-debuginfo` makes; "
        "or use `hotpatch --allow-layout all` when no type was edited.",
        file=file,
    )
