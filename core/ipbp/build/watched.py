"""The files that an image was built from: what to watch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ipbp.build.command import Command
from ipbp.build.crates import files_of_crates
from ipbp.build.dependencies import listed_dependencies, recorded_dependencies
from ipbp.build.dirty import PatchedUnit
from ipbp.build.own_build import object_rows
from ipbp.build.plan import Commands
from ipbp.build.snapshot import Snapshot
from ipbp.build.texts import is_projects
from ipbp.build.trust import require_agreement


def watched_files(commands: Commands, known: Mapping[str, PatchedUnit]) -> set[str]:
    """Sources, headers and what else units are made from, absolute; without what the system brings. Sources that are
    new in the project count, and so does the file that says how they are compiled. `known`: units that were patched.

    May ask compilers for their headers. Errors: those of `require_agreement` and of `crates.program_crates`.
    """
    require_agreement(commands.commands, commands.own)
    found = {str(commands.file)} if commands.file is not None else set()
    for unit in known.values():
        found.update(path for path, digest in unit.dependencies.items() if digest)
    if commands.cargo is not None:
        found.update(files_of_crates(commands.cargo))
    found.update(str(row.source) for row in commands.outside)
    rows = [*commands.commands, *commands.undescribed]
    if commands.own is not None:
        rows = object_rows(commands.own, [unit.source for unit in commands.units if unit.source.is_absolute()])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for paths in pool.map(lambda row: list(_files_of(row, Snapshot())), dict.fromkeys(rows)):
            found.update(paths)
    return set(filter(is_projects, found))


def _files_of(command: Command, snapshot: Snapshot) -> Iterator[str]:
    yield str(command.source)
    if command.refusal is None and Path(command.source).exists():
        recorded = recorded_dependencies(command, snapshot)
        if recorded is None and command.arguments:
            recorded = listed_dependencies(command, snapshot)
        yield from recorded or ()
