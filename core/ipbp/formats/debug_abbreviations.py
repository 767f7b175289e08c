"""Abbreviation tables of debug information: what the entries of each code consist of (DWARF 5, 7.5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ipbp.graph.leb import sleb, uleb

IMPLICIT_CONST = 0x21
"""DW_FORM_implicit_const: the value stands in the declaration."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """`forms`: (attribute, form, the value if it stands here, else 0)."""

    code: int
    tag: int
    has_children: bool
    forms: tuple[tuple[int, int, int], ...]


@lru_cache(8)  # an edit seldom changes one, and several readers ask
def declarations(content: bytes, place: int) -> tuple[Declaration, ...]:
    """The table at `place`. Errors: IndexError when it does not end."""
    found: list[Declaration] = []
    while True:
        code, place = uleb(content, place)
        if code == 0:
            return tuple(found)
        tag, place = uleb(content, place)
        has_children = bool(content[place])
        place += 1
        forms = []
        while True:
            attribute, place = uleb(content, place)
            form, place = uleb(content, place)
            constant = 0
            if form == IMPLICIT_CONST:
                constant, place = sleb(content, place)
            if attribute == 0 and form == 0:
                break
            forms.append((attribute, form, constant))
        found.append(Declaration(code, tag, has_children, tuple(forms)))
