"""Names of two graphs as numbers: equal numbers are equal names.

Compilers number what has no name of its own in the object file: `count.0`, `f.constprop.0`. The base name is the name
without those numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ipbp.graph.columns import I64, Flags
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, intern, words_at

_MODULE = b".llvm"
_MASK = np.uint64((1 << 8 * len(_MODULE)) - 1)
_NUMBER = re.compile(r"\.\d+(?=\.|$)|\.llvm\.\d+$")


@dataclass(frozen=True, slots=True)
class NameNumbers:
    """Per symbol of the old and the new graph: the number of its `name` and of its `base` name, and whether they are
    not the same (`is_numbered`). All numbers are below `limit`."""

    old_name: I64
    new_name: I64
    old_base: I64
    new_base: I64
    old_is_numbered: Flags
    new_is_numbered: Flags
    limit: int


def name_numbers(old: Names, new: Names) -> NameNumbers:
    """The numbers of the names of two graphs."""
    bases = [_bases(names) for names in (old, new)]
    tables = [old.rows, new.rows, *(table for row in bases for table in (row.stems, row.others))]
    old_name, new_name, *numbers = intern(*tables)
    base, flags = [old_name.copy(), new_name.copy()], []
    for column, row, stems, others in zip(base, bases, numbers[::2], numbers[1::2], strict=True):
        column[row.with_stem], column[row.with_other] = stems, others
        flags.append(np.zeros(len(column), dtype=np.bool_))
        flags[-1][row.with_stem], flags[-1][row.with_other] = True, True
    limit = sum(len(table) for table in tables)
    return NameNumbers(old_name, new_name, base[0], base[1], flags[0], flags[1], limit)


def base_name(name: str) -> str:
    """The name without the compiler's numbers: `count.0` -> `count`, `f.constprop.0.cold` -> `f.constprop.cold`."""
    return _NUMBER.sub("", name) if "." in name else name


def is_numbered(name: str) -> bool:
    return "." in name and _NUMBER.search(name) is not None


def are_numbered(names: Names) -> Flags:
    """For each name whether it is numbered."""
    found, flags = _bases(names), np.zeros(len(names), dtype=np.bool_)
    flags[found.with_stem], flags[found.with_other] = True, True
    return flags


@dataclass(frozen=True, slots=True)
class _Bases:
    """The base names of the numbered ones among some names: those that just end with their number and are otherwise
    their `stems`, and all `others`; with the rows of both."""

    with_stem: I64
    stems: ByteRows
    with_other: I64
    others: ByteRows


def _bases(names: Names) -> _Bases:
    dotted, dot, is_single = names.dotted_numbers()
    end = names.rows.start[dotted] + names.rows.length[dotted]
    plain = is_single & names.rows.are_digits(dot + 1, end)
    # Of the number of a module that ThinLTO writes the word before it is a part.
    before = np.maximum(dot - len(_MODULE), names.rows.start[dotted])
    plain &= (words_at(names.rows.octets, before) & _MASK) != np.uint64(int.from_bytes(_MODULE, "little"))
    rows = dotted[plain]
    stems = ByteRows(names.rows.octets, names.rows.start[rows], dot[plain] - names.rows.start[rows])
    texts = [(row, name) for row in dotted[~plain].tolist() if is_numbered(name := names[row])]
    others = Names.of(base_name(name) for _row, name in texts).rows
    return _Bases(rows, stems, np.array([row for row, _name in texts], dtype=np.int64), others)
