"""Whether an edit of a Rust source is one that other crates cannot notice.

What a crate knows of another one is its metadata: signatures, types, constants, and the bodies of functions that it
may have to compile itself, which are generic, `const` or inline. The body of any other function is in its own crate
only (rustc_metadata, "encoder.rs", `should_encode_mir`; rustc_mir_transform, "cross_crate_inline.rs", which infers
nothing for incremental or unoptimised builds). So the two texts are divided into bodies of such functions and the
rest. The rest must be the same token for token, with macros that may tell their line in their places; and within a body
nothing may have changed that reaches out of it: an item, an attribute, or a macro that is not known to make neither.
What is not understood counts as noticed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ipbp.build.options import words
from ipbp.build.rust_tokens import NotUnderstood, Token, tokens

KNOWN_MACROS = words(
    """assert assert_eq assert_ne dbg debug_assert debug_assert_eq debug_assert_ne eprint eprintln format format_args
    matches panic print println todo unimplemented unreachable vec write writeln"""
)
"""Of the standard library; they make expressions only."""
_PLACELESS = KNOWN_MACROS - {"dbg"}
"""Macros that put no line into code but the places of panics."""
_HARMLESS = words("allow cfg cold deny deprecated doc expect forbid must_use track_caller warn")
_ITEMS = words("impl trait mod macro_rules macro extern struct enum")
_REACHING = _ITEMS | words("union const static async gen type use fn include include_str include_bytes")
_QUALIFIERS = words("const async unsafe safe extern gen default")
_NOWHERE = (0, 0)
_OPENING = {"(": ")", "[": "]", "{": "}"}


@dataclass(slots=True)
class _Divided:
    """`rest`: all tokens but those of bodies, which are "{}" there, with the place of a macro that may tell it.
    `bodies` in order."""

    rest: list[tuple[str, bool, tuple[int, int]]] = field(default_factory=list)
    bodies: list[Sequence[Token]] = field(default_factory=list)


def noticed_outside(old: str, new: str) -> tuple[bool, frozenset[str]]:
    """Whether other crates may notice the difference, and the macros that it rests upon that these are the standard
    library's."""
    try:
        before, after = _divided(tokens(old)), _divided(tokens(new))
    except NotUnderstood:
        return True, frozenset()
    if before.rest != after.rest:
        return True, frozenset()
    used: set[str] = set()
    for one, other in zip(before.bodies, after.bodies, strict=True):
        if [row.text for row in one] != [row.text for row in other] and not _stays_inside(one, other, used):
            return True, frozenset()
    return False, frozenset(used)


def _divided(rows: Sequence[Token]) -> _Divided:
    found = _Divided()
    end = _Items(rows, found).read(0, len(rows), True)
    if end != len(rows):
        raise NotUnderstood
    return found


class _Items:
    """Goes through items and puts their tokens where they belong."""

    def __init__(self, rows: Sequence[Token], found: _Divided) -> None:
        self.rows, self.found = rows, found
        self.close = _closing(rows)

    def read(self, place: int, end: int, is_plain: bool) -> int:
        """`is_plain`: what stands around these items neither is generic nor has attributes that could rewrite it."""
        while place < end:
            place = self._item(place, end, is_plain)
        return place

    def _item(self, start: int, end: int, is_plain: bool) -> int:
        place, is_plain = self._attributes(start, end, is_plain)
        place = self._visibility(place, end)
        qualifiers = set()
        while place < end and self._is(place, *_QUALIFIERS):
            qualifiers.add(self.rows[place].text)
            place += 1
            if qualifiers and place < end and self.rows[place].kind == "text":
                place += 1
        if self._is(place, "fn"):
            return self._function(
                start, place, end, is_plain and qualifiers.isdisjoint(("const", "async", "gen", "default"))
            )
        if self._is(place, "impl") and qualifiers <= {"unsafe"}:
            return self._block(start, place, end, is_plain)
        if self._is(place, "mod") and not qualifiers and place + 2 < end and self._is(place + 2, "{"):
            return self._block(start, place, end, is_plain)
        return self._verbatim(start, place, end)

    def _attributes(self, place: int, end: int, is_plain: bool) -> tuple[int, bool]:
        while place < end and (self._is(place, "#") or self.rows[place].kind == "doc"):
            if self.rows[place].kind == "doc":
                place += 1
                continue
            opening = place + 2 if self._is(place + 1, "!") else place + 1
            if not self._is(opening, "["):
                return place, False
            said = [row.text for row in self.rows[opening + 1 : self.close[opening]]]
            is_plain &= bool(said) and (said[0] in _HARMLESS or said == ["inline", "(", "never", ")"])
            place = self.close[opening] + 1
        return place, is_plain

    def _visibility(self, place: int, end: int) -> int:
        if place < end and self._is(place, "pub"):
            place += 1
            if place < end and self._is(place, "("):
                place = self.close[place] + 1
        return place

    def _function(self, start: int, place: int, end: int, is_plain: bool) -> int:
        opening = self._body(place, end)
        if opening < 0:
            return self._verbatim(start, place, end)
        signature = self.rows[place:opening]
        is_plain &= not any(row.text == "impl" for row in signature) and _has_lifetimes_only(signature[2:])
        is_plain &= not any(
            after.text == "!" and before.kind == "word" for before, after in itertools.pairwise(signature)
        )
        last = self.close[opening]
        if is_plain:
            self._keep(start, opening)
            self.found.rest.append(("{}", False, _NOWHERE))
            self.found.bodies.append(self.rows[opening + 1 : last])
        else:
            self._keep(start, last + 1)
        return last + 1

    def _block(self, start: int, place: int, end: int, is_plain: bool) -> int:
        opening = self._body(place, end)
        if opening < 0:
            return self._verbatim(start, place, end)
        header = self.rows[place:opening]
        is_plain &= not any(row.text in ("const", "impl", "!") for row in header[1:])
        if header[0].text == "impl":
            is_plain &= _has_lifetimes_only(header[1:])
        self._keep(start, opening + 1)
        # Attributes of a module may stand inside it.
        inside, is_plain = self._inner_attributes(opening + 1, self.close[opening], is_plain)
        self.read(inside, self.close[opening], is_plain)
        self._keep(self.close[opening], self.close[opening] + 1)
        return self.close[opening] + 1

    def _inner_attributes(self, place: int, end: int, is_plain: bool) -> tuple[int, bool]:
        start = place
        while place + 1 < end and self._is(place, "#") and self._is(place + 1, "!"):
            place, is_plain = self._attributes(place, place + 1, is_plain)
        self._keep(start, place)
        return place, is_plain

    def _body(self, place: int, end: int) -> int:
        """The brace that opens the body, or -1: for an item that ends without, and where a brace may be a constant's in
        a type."""
        while place < end:
            text = self.rows[place].text
            if text == "{":
                before = self.rows[place - 1]
                is_behind_type = before.kind in ("word", "lifetime") or before.text in (")", "]", ">", "!")
                return place if is_behind_type else -1
            if text in (";", "=") and not self._is(place + 1, ">"):
                return -1
            place = self.close[place] + 1 if text in ("(", "[") else place + 1
        return -1

    def _verbatim(self, start: int, place: int, end: int) -> int:
        """To the end of an item of another kind: a semicolon, or a brace that closes."""
        first = place
        while place < end:
            text = self.rows[place].text
            if text in _OPENING:
                place = self.close[place]
            place += 1
            if text in ("{", ";"):
                break
        # A macro in an item's place makes items, and few of these are such that others have code of them.
        self._keep(start, place, not self._is_macro(first))
        return place

    def _keep(self, start: int, end: int, tells_places: bool = True) -> None:
        for place, row in enumerate(self.rows[start:end], start):
            tells = tells_places and row.text not in _PLACELESS and self._is_macro(place)
            self.found.rest.append((row.text, row.is_apart, row.place if tells else _NOWHERE))

    def _is_macro(self, place: int) -> bool:
        is_word = place < len(self.rows) and self.rows[place].kind == "word"
        return is_word and self._is(place + 1, "!") and self._is(place + 2, *_OPENING)

    def _is(self, place: int, *texts: str) -> bool:
        return place < len(self.rows) and self.rows[place].text in texts


def _closing(rows: Sequence[Token]) -> dict[int, int]:
    """Row of each bracket that opens -> row of the one that closes it."""
    found: dict[int, int] = {}
    stack: list[int] = []
    for place, row in enumerate(rows):
        if row.kind != "sign":
            continue
        if row.text in _OPENING:
            stack.append(place)
        elif row.text in _OPENING.values():
            if not stack or _OPENING[rows[stack[-1]].text] != row.text:
                raise NotUnderstood
            found[stack.pop()] = place
    if stack:
        raise NotUnderstood
    return found


def _has_lifetimes_only(rows: Sequence[Token]) -> bool:
    """Whether the parameters that begin here, if any, are lifetimes."""
    if not rows or rows[0].text != "<":
        return True
    for row in rows[1:]:
        if row.text == ">":
            return True
        if row.kind != "lifetime" and row.text not in (",", ":", "+"):
            return False
    return False


def _stays_inside(old: Sequence[Token], new: Sequence[Token], used: set[str]) -> bool:
    """Whether what differs in a body has no effect outside of it. Adds the macros that it uses to `used`."""
    first = _common(old, new)
    last = _common(old[first:][::-1], new[first:][::-1])
    parts = [rows[first : len(rows) - last] for rows in (old, new)]
    for rows, part in zip((old, new), parts, strict=True):
        # Looked at with its neighbours: a name and its `!` may be on different sides.
        near = rows[max(0, first - 2) : first + len(part) + 2]
        if any(row.text in _ITEMS or row.text == "#" for row in rows) or _has_named_function(rows):
            return False
        if any(row.text in _REACHING for row in part):
            return False
        around = _macros_around(rows, first) | set(_macros(near)) | set(_macros(part))
        if not around <= KNOWN_MACROS:
            return False
        used |= around
    others = set(_macros(old[:first])) | set(_macros(old[len(old) - last :]))
    numbered = any(row.text in ("|", "move") for part in parts for row in part)
    # A macro that is not known may make items in a closure, which have its number in their names.
    return others <= KNOWN_MACROS or not numbered


def _common(one: Sequence[Token], other: Sequence[Token]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a.text != b.text:
            break
        count += 1
    return count


def _has_named_function(rows: Sequence[Token]) -> bool:
    return any(a.text == "fn" and b.kind == "word" for a, b in itertools.pairwise(rows))


def _macros(rows: Sequence[Token]) -> Iterable[str]:
    """Names of macros that are called here, with what stands before the name when that is a path."""
    for place in range(1, len(rows)):
        row, before = rows[place], rows[place - 1]
        following = rows[place + 1].text if place + 1 < len(rows) else "("
        if row.text == "!" and before.kind == "word" and following in _OPENING:
            yield before.text if place < 2 or rows[place - 2].text != ":" else f"::{before.text}"


def _macros_around(rows: Sequence[Token], place: int) -> set[str]:
    """Names of the macros in whose arguments this place is."""
    found: set[str] = set()
    stack: list[int] = []
    for at, row in enumerate(rows[:place]):
        if row.kind == "sign" and row.text in _OPENING:
            stack.append(at)
        elif row.kind == "sign" and row.text in _OPENING.values() and stack:
            stack.pop()
    for at in stack:
        found.update(_macros(rows[max(0, at - 4) : at + 1]))
    return found
