"""Which units a user means who wants them compiled without optimisation: by the names of files, or of functions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ipbp.build.command import Command, is_optimised
from ipbp.build.plain import PLAIN, is_meant
from ipbp.build.producer import units_at
from ipbp.errors import Refusal, Refused
from ipbp.formats.elf_module import LoadedModule
from ipbp.graph.model import SymbolType
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

    Errors: `Refused` with `deopt-unknown`, `deopt-needless`, `deopt-crates`.
    """
    before = {name: unit.flags for row in built for name, unit in record.units(row.module.key).items() if unit.flags}
    flags, turned, refusals = dict(before), set[str](), list[Refusal]()
    for name in plain:
        found = list(_meant(name, built))
        if not found and any(row.commands.cargo for row in built):
            refusals.append(_crates(name))
            continue
        refusals += _refusals(name, found, before)
        turned |= {str(command.source) for command in found}
    flags |= dict.fromkeys(turned, PLAIN)
    if fast is not None:
        chosen = {str(command.source) for name in fast for command in _meant(name, built)} if fast else set(before)
        if not chosen & before.keys():
            refusals.append(_nothing_to_take_back(fast))
        turned |= chosen & before.keys()
        flags = {name: row for name, row in flags.items() if name not in chosen}
    if refusals:
        raise Refused(refusals)
    return Ways(flags, frozenset(turned))


def _meant(name: str, built: Sequence[Built]) -> Iterator[Command]:
    """Commands of the files, or of the functions, that the name may mean."""
    rows = [command for row in built for command in row.commands.commands if is_meant(name, command)]
    yield from rows
    if not rows:
        for row in built:
            sources = _sources_of(name, row.module)
            yield from (command for command in row.commands.commands if os.path.realpath(command.source) in sources)


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
    return {os.path.realpath(unit.source) for units in found.values() for unit in units}


def _is_of(symbol: str, function: str) -> bool:
    name = readable_name(symbol)
    return function in (symbol, symbol.partition(".")[0], name, name.partition("(")[0])


def _refusals(name: str, found: Sequence[Command], before: Iterable[str]) -> Iterator[Refusal]:
    if not found:
        yield Refusal(
            "deopt-unknown",
            f"'{name}' is neither a source that the program was built from nor a function of one",
            "Name a file by the end of its path, or a function as the symbol table does.",
            name,
        )
    for command in found:
        if str(command.source) in before:
            fact = f"{command.source.name} is compiled without optimisation already"
            yield Refusal("deopt-needless", fact, "`hotpatch reopt` takes it back.", name, str(command.source))
        elif not is_optimised(command):
            fact = f"{command.source.name} was built without optimisation"
            yield Refusal("deopt-needless", fact, "Step through it as it is.", name, str(command.source))


def _crates(name: str) -> Refusal:
    return Refusal(
        "deopt-crates",
        f"'{name}' is no source of C or C++, and crates are compiled as their profile says",
        "Build with opt-level = 0 for this package ([profile.release.package.NAME]) and start the program once more.",
        name,
    )


def _nothing_to_take_back(names: Sequence[str]) -> Refusal:
    what = f"{', '.join(names)}: nothing of it" if names else "nothing"
    fact = f"{what} is compiled without optimisation on request"
    return Refusal("deopt-needless", fact, "`hotpatch deopt FILE` does that.")
