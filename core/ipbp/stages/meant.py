"""Which references of code are meant, of those that its instructions make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipbp.arch.instructions import CodeReference


def meant(references: Sequence[CodeReference], thing: Callable[[int], int | None]) -> list[CodeReference]:
    """The references without addresses that are only there to count from, and without parts of what another one leads
    to. `thing`: a number for what is at a place."""
    found = []
    for reference in references:
        here = thing(reference.place)
        if reference.base is not None and thing(reference.base) == here:
            continue  # a part of that
        if reference.may_be_end and reference.base is not None and thing(reference.place - 1) != here:
            continue  # the end of an array
        if reference.is_unsure or not reference.reached or here in map(thing, reference.reached):
            found.append(reference)
    return found
