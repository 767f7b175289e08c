"""Sources that the running image was not built from, and which of them an edit needs.

A file that was added to the project stands in the compilation database and in no unit of the image; so does a renamed
one, and so does every file of every other program of the tree. Which of them matters is told by names: those that an
edited unit uses and nothing defines, and those that units of the image no longer define. A source that does not even
mention one of them is not compiled.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from ipbp.build.command import Command
from ipbp.build.compile import Compiled, Tell, compile_units
from ipbp.build.dirty import Dirty
from ipbp.build.store import Store
from ipbp.build.trust import require_agreement
from ipbp.errors import IpbpError

_WORD = re.compile(rb"[A-Za-z_]\w*")
_MANGLED = re.compile(r"\d+")


def mentioning(rows: Iterable[Command], names: Collection[str]) -> tuple[Command, ...]:
    """Those whose source text has one of the names in it."""
    wanted = {identifier(name).encode() for name in names}
    return tuple(row for row in rows if not wanted.isdisjoint(_WORD.findall(_text(row.source)))) if wanted else ()


def identifier(name: str) -> str:
    """The word by which the source calls a linkage name: the last part of a mangled one (Itanium C++ ABI, 5.1.3)."""
    if not name.startswith("_Z"):
        return name
    found, at = name, 2
    while (match := _MANGLED.search(name, at)) is not None:
        start, size = match.end(), int(match[0])
        if not name[start : start + size].isidentifier():
            break
        found, at = name[start : start + size], start + size
        if at < len(name) and name[at] in "EIB":
            break
    return found


def compile_outside(
    rows: Iterable[Command], store: Store, tell: Tell, colour: bool
) -> tuple[tuple[Compiled, ...], tuple[str, ...]]:
    """New objects of these sources, and notes about those that do not compile: they may be no part of the program.

    Errors: those of `trust.require_agreement` and of `compile_units`, but `compile-failed`.
    """
    compiled: list[Compiled] = []
    notes = []
    for row in rows:
        require_agreement([row])
        try:
            compiled += compile_units([Dirty(row, "the program was not built from it", None)], store, tell, colour)
        except IpbpError as error:
            if error.code != "compile-failed":
                raise
            first = next((line for line in error.detail.splitlines() if "error" in line), error.fact)
            notes.append(f"{row.source} was left out, because it does not compile: {first.strip()}")
    return tuple(compiled), tuple(notes)


def _text(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError:
        return b""
