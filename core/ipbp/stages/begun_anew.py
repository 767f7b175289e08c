"""New static variables that may be those which another file, or another module, had until this edit.

In C and C++ a function that other files call is one function, wherever it stands, and takes its variables along
(`stages.moved`). One that only its own file sees, or an inline one, may have stood in both files, with variables of its
own in each; and one that was inlined wherever it was called has left no function to follow. So where one file has lost
a variable and another has a new one that is called alike, it is not certain that they are one, and a new one would
begin with its first value unseen.

In Rust a variable is called after the path of its function or module, so that it has another name in another place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from ipbp.graph.layouts import UnitTypes
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.cxx_names import function_path, local_name, plain_variable
from ipbp.stages.name_numbers import base_name, is_numbered
from ipbp.stages.rust_names import is_rust, source_path
from ipbp.stages.select import DATA_KINDS

# What compilers and their libraries make for every file: C++ [lex.name] 3, C 7.1.3.
_RESERVED = re.compile(r"(.*::)?(__|_[A-Z]|\.)|DW\.ref\.", re.DOTALL)
_SOURCE = re.compile(r"\.(c|cc|cp|cpp|cxx|c\+\+|i|ii)", re.IGNORECASE)


def _no_types() -> None:
    return None


def _no_files() -> Mapping[int, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Definitions:
    """Names of `functions` and of `variables` that hold state. `types`: what debug information says of their unit, and
    `files`: the base names of its files, by the numbers that it has for them."""

    functions: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    types: Callable[[], UnitTypes | None] = _no_types
    files: Callable[[], Mapping[int, str]] = _no_files


def definitions(
    graph: LinkGraph,
    blocks: Iterable[int],
    types: Callable[[], UnitTypes | None] = _no_types,
    files: Callable[[], Mapping[int, str]] = _no_files,
) -> Definitions:
    """What these blocks are."""
    functions, variables = [], []
    for block in blocks:
        kind = graph.blocks.kind[block]
        if kind == BlockKind.CODE:
            functions.append(graph.block_name(block))
        elif kind in DATA_KINDS:
            variables.append(graph.block_name(block))
    return Definitions(tuple(functions), tuple(variables), types, files)


def begun_anew(lost: Definitions, fresh: Definitions) -> Iterator[tuple[str, str]]:
    """(new variable, the one that it may be): those that are called alike, unless it is certain that they are two."""
    before = {key: name for name in lost.variables if (key := _key(name))}
    for name in fresh.variables if before else ():
        known = before.get(_key(name))
        if known is not None and not _are_two(lost, known, fresh, name):
            yield name, known


def in_another_module(lost: Definitions, fresh: Definitions) -> Iterator[tuple[str, str]]:
    """The same of Rust: those that are called alike and are in functions or modules that are called alike, and those
    that are in no function, as far as that is known."""
    before = [(source_path(name), name) for name in lost.variables if is_rust(name)]
    after = [(source_path(name), name) for name in fresh.variables if is_rust(name)] if before else []
    # In its place it has another type, which is judged by that.
    alike = [(new, old) for new in after for old in before if new[0] != old[0] and new[0][-1:] == old[0][-1:]]
    functions = {source_path(name) for name in (*lost.functions, *fresh.functions) if is_rust(name)} if alike else set()
    for (path, name), (old, known) in alike:
        if path[-2:-1] == old[-2:-1] or not {old[:-1], path[:-1]} & functions:
            yield name, known


def _key(name: str) -> str:
    """What a variable is called; "" for what is none of the source's."""
    local = local_name(name)
    if name.startswith("_ZGV") or (local is not None and local.is_guard):
        return ""
    called = plain_variable(base_name(name))
    return "" if local is None and _RESERVED.match(called) else called


def _are_two(lost: Definitions, old: str, fresh: Definitions, new: str) -> bool:
    """Whether these variables, called alike, are in functions of other names, by debug information where their own
    names do not say it; or a header has them for each file that includes it, and none of its functions came along."""
    if local_name(new) is not None or not _paths(lost).isdisjoint(_paths(fresh)):
        return False
    before, after = lost.types(), fresh.types()
    if before is None or after is None:
        return False
    if is_numbered(old) and is_numbered(new):
        owners = _owners(before, old), _owners(after, new)
        return all(owners) and owners[0].isdisjoint(owners[1])
    headers = _headers(before, lost.files(), old), _headers(after, fresh.files(), new)
    return all(headers) and headers[0] == headers[1]


def _paths(found: Definitions) -> set[str]:
    """What the functions are called, whatever they take."""
    paths = (function_path(name) if name.startswith("_Z") else base_name(name) for name in found.functions)
    return {path for path in paths if path}


def _owners(types: UnitTypes, variable: str) -> set[str]:
    """The static variables of this name, in functions and in none, each with what it is in."""
    named = {plain_variable(row.name) for row in types.definitions}
    return {name for name in named if name.rpartition("::")[2] == _key(variable)}


def _headers(types: UnitTypes, names: Mapping[int, str], variable: str) -> set[str]:
    """The files that define a variable of this name, where none of them is a source. `names`: by their numbers."""
    files = {names.get(row.place[0], "") for row in types.definitions if plain_variable(row.name) == _key(variable)}
    return set() if any(not name or _SOURCE.fullmatch(PurePath(name).suffix) for name in files) else files
