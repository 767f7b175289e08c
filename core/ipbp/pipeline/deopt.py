"""Which units a user means who wants them compiled without optimisation: by the names of files, or of functions."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ipbp.build.command import is_optimised
from ipbp.build.crates import crates_of_name
from ipbp.build.plain import PLAIN, is_end_of
from ipbp.build.producer import units_at
from ipbp.build.rustc_replay import is_optimised_crate
from ipbp.errors import Refusal, Refused
from ipbp.formats.elf_module import LoadedModule
from ipbp.graph.model import SymbolType
from ipbp.host.function_names import is_called
from ipbp.pipeline.readable import readable_name
from ipbp.pipeline.record import Record

if TYPE_CHECKING:
    from ipbp.pipeline.edited import Built


@dataclass(frozen=True, slots=True)
class Ways:
    """How units are compiled that are not compiled as their commands say. `flags`: source -> more flags. `turned`:
    sources that are compiled in another way now than what runs of them."""

    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()


def ways(built: Sequence[Built], record: Record, plain: Sequence[str], fast: Sequence[str] | None) -> Ways:
    """`plain`: names of what is to be compiled without optimisation from now on, `fast`: of what is not any more; ()
    for all. What earlier patches compiled so stays so.

    Errors: `Refused` with `deopt-unknown`, `deopt-needless`.
    """
    before = {name: unit.flags for row in built for name, unit in record.units(row.module.key).items() if unit.flags}
    flags, turned, refusals = dict(before), set[str](), list[Refusal]()
    for name in plain:
        found = list(_meant(name, built))
        refusals += _refusals(name, found, before)
        turned |= {meant.source for meant in found}
    flags |= dict.fromkeys(turned, PLAIN)
    if fast is not None:
        chosen = {meant.source for name in fast for meant in _meant(name, built)} if fast else set(before)
        if not chosen & before.keys():
            refusals.append(_nothing_to_take_back(fast))
        turned |= chosen & before.keys()
        flags = {name: row for name, row in flags.items() if name not in chosen}
    if refusals:
        raise Refused(refusals)
    return Ways(flags, frozenset(turned))


@dataclass(frozen=True, slots=True)
class _Meant:
    """A unit: of C or C++ a file, of Rust a crate, by its root module."""

    source: str
    is_optimised: bool


def _meant(name: str, built: Sequence[Built]) -> list[_Meant]:
    """Units of the files, or of the functions, that the name may mean."""
    return _of_name(name, built, {}) or _of_name("", built, {id(row): _sources_of(name, row.module) for row in built})


def _of_name(name: str, built: Sequence[Built], sources: Mapping[int, set[str]]) -> list[_Meant]:
    found = []
    for row in built:
        known = sources.get(id(row), set())
        for command in row.commands.commands:
            if is_end_of(name, str(command.source)) or os.path.realpath(command.source) in known:
                found.append(_Meant(str(command.source), is_optimised(command)))
        if row.commands.cargo is not None:
            crates = crates_of_name(row.commands.cargo, name, known)
            found += [_Meant(crate.source, is_optimised_crate(crate.arguments)) for crate in crates]
    return found


def _sources_of(function: str, module: LoadedModule) -> set[str]:
    """Of the units that have a function of this name, or one that the compiler made of it (`f.constprop.0`)."""
    symbols = module.image.symbols
    last = function.rpartition("::")[2].partition("(")[0]
    rows = symbols.name.containing(os.fsencode(last))
    addresses = {
        int(symbols.address[row]) - module.bias
        for row in rows.tolist()
        if symbols.type[row] == SymbolType.FUNCTION and _is_of(symbols.name[row], function)
    }
    found = units_at(Path(module.debug_file or module.mapped.path), addresses) if addresses else {}
    # rustc adds the codegen unit to the name of the root module: src/main.rs/@/app.4a9c1-cgu.0.
    return {os.path.realpath(str(unit.source).partition("/@/")[0]) for units in found.values() for unit in units}


def _is_of(symbol: str, function: str) -> bool:
    return function in (symbol, symbol.partition(".")[0]) or is_called(readable_name(symbol), function)


def _refusals(name: str, found: Sequence[_Meant], before: Container[str]) -> Iterator[Refusal]:
    if not found:
        yield Refusal(
            "deopt-unknown",
            f"'{name}' is neither a source that the program was built from nor a function of one",
            "Name a file by the end of its path, or a function as the symbol table does.",
            name,
        )
    for unit in found:
        file = Path(unit.source).name
        if unit.source in before:
            fact = f"{file} is compiled without optimisation already"
            yield Refusal("deopt-needless", fact, "`hotpatch reopt` takes it back.", name, unit.source)
        elif not unit.is_optimised:
            fact = f"{file} was built without optimisation"
            yield Refusal("deopt-needless", fact, "Step through it as it is.", name, unit.source)


def _nothing_to_take_back(names: Sequence[str]) -> Refusal:
    what = f"{', '.join(names)}: nothing of it" if names else "nothing"
    fact = f"{what} is compiled without optimisation on request"
    return Refusal("deopt-needless", fact, "`hotpatch deopt FILE` does that.")
