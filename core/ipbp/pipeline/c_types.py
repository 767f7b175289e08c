"""What the types of a C or C++ unit say about an edit, and what the units of a patch say together."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.edited import Edited
from ipbp.pipeline.layouts import file_names, types_of_image, types_of_object
from ipbp.stages.closures import renewed_closures
from ipbp.stages.coroutines import Side, changed_coroutines
from ipbp.stages.layout_changes import ALL, layout_changes
from ipbp.stages.name_numbers import base_name
from ipbp.stages.type_changes import TypeChanges

_UNSEEN = "{} has no debug information, so that a type that lies in memory otherwise now would not be seen"


def judge_layouts(unit: Edited, old: LinkGraph, image: LoadedImage | None, allowed: Collection[str]) -> TypeChanges:
    """`image`: where the old side comes from when no object gave it. `allowed`: types whose layout may change.
    Refusals: `layout-changed`, `variable-type-changed`, `coroutine-changed`; `no-type-information` where what describes
    a side is lost and the user did not allow every change.

    A C compiler lays out a struct as it is written. So where no debug information was asked for, what an edit of one
    does is known to who made it, and that is noted.
    """
    new = types_of_object(unit.new)
    before = types_of_image(image, unit.new.source) if image is not None else types_of_object(old)
    if not new.is_described or not before.is_described:
        sides = Side(old, None), Side(unit.new, None)
        is_lost = new.is_lost or before.is_lost
        refusals = (_lost(unit.name),) if is_lost else (_needed(unit.name),) if unit.new.format == "coff" else ()
        return TypeChanges(
            frozenset(),
            refusals if ALL not in allowed else (),
            (_UNSEEN.format(unit.name),),
            doubts=lambda changed: changed_coroutines(*sides, changed, unit.name),
        )
    names: dict[int, str] = {}

    def file_name(number: int) -> str:
        if not names:
            names.update(file_names(unit.new))
        return names.get(number, "")

    found = layout_changes(before, new, unit.name, allowed, file_name)
    renewed, said = renewed_closures(before, new, old, unit.new)
    sides = Side(old, before), Side(unit.new, new)
    return TypeChanges(
        renewed,
        found.refusals,
        (*found.notes, *said),
        doubts=lambda changed: changed_coroutines(*sides, changed, unit.name),
        agreed=found.agreed,
        sides=(before, new),
    )


def without_padding(refusals: Iterable[Refusal], types: TypeChanges) -> tuple[Refusal, ...]:
    """What the comparison of two COFF objects refuses, without other sizes of variables of which both sides describe
    the type, which is looked at then. These objects say no sizes: what was compared holds the fill behind a variable.
    """
    names: set[str] = set()
    if types.sides is not None:
        before, after = ({name.rpartition("::")[2] for name in side.variables} for side in types.sides)
        names = before & after
    return tuple(row for row in refusals if row.code != "data-size-changed" or not names & _called(row.symbol or ""))


def _called(symbol: str) -> set[str]:
    """What the source may call a variable: gcc numbers those of functions, LLVM puts the function before them, and a
    number behind those that it has split."""
    last = symbol.rpartition(".")[2]
    return {base_name(symbol)} if last.isdigit() else {symbol, last}


def _needed(file: str) -> Refusal:
    return Refusal(
        "no-type-information",
        "the object has no debug information, and an object of COFF says no sizes of variables either, so that a "
        "changed layout would not be noticed",
        "Build with -g; or use `hotpatch --allow-layout all` when no type was edited.",
        file=file,
    )


def _lost(file: str) -> Refusal:
    return Refusal(
        "no-type-information",
        "what describes the types of this file cannot be read (a build wrote another `.dwo` file in its place, or it "
        "has type units of clang's), so that a changed layout would not be noticed",
        "Start the program from a fresh build; or use `hotpatch --allow-layout all` when no type was edited.",
        file=file,
    )


def told_once(types: Iterable[TypeChanges], others: Iterable[Refusal]) -> tuple[list[Refusal], list[str]]:
    """What several units say of the types that they share. `others`: refusals of the same patch; a variable that has
    another size is refused as that."""
    resized = {base_name(row.symbol or "") for row in others if row.code in ("data-size-changed", "data-kind-changed")}
    refusals: dict[tuple[str, str | None], Refusal] = {}
    notes: dict[str, None] = {}
    for row in types:
        notes.update(dict.fromkeys(row.notes))
        for refusal in row.refusals:
            if (refusal.symbol or "").rpartition("::")[2] not in resized:
                refusals.setdefault((refusal.code, refusal.symbol), refusal)
    return list(refusals.values()), list(notes)
