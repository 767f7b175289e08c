"""Whether an edit changed types whose values may be alive: the debug information of both sides, compared."""

from __future__ import annotations

from collections.abc import Collection

from ipbp.errors import Refusal
from ipbp.formats.debug_types import types_of_file, types_of_graph
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.edited import Edited
from ipbp.stages.type_changes import ALL, NO_CHANGES, TypeChanges, type_changes


def judge_types(unit: Edited, old: LinkGraph, image: LoadedImage | None, allowed: Collection[str]) -> TypeChanges:
    """`image`: where the old side comes from when no object gave it. Only for crates: a C compiler lays out a struct
    as it is written, and what an edit of one does is known to who made it; rustc chooses an order of its own.

    Refusals: `layout-changed`, `variable-type-changed`; `no-type-information` when a side has none and the user did
    not allow every change.
    """
    if not unit.is_crate:
        return NO_CHANGES
    new = types_of_graph(unit.new)
    before = types_of_file(image.debug_file or image.file) if image is not None else types_of_graph(old)
    if ALL not in allowed and (not new.functions or not before.functions):
        return TypeChanges(frozenset(), (_no_information(unit.name),))
    return type_changes(before, new, unit.name, allowed)


def _no_information(file: str) -> Refusal:
    return Refusal(
        "no-type-information",
        "the program or its new objects have no debug information, so that a changed type layout would not be noticed",
        "Build with `debug = true` in the profile, or use `hotpatch --allow-layout all` when no type was edited.",
        file=file,
    )
