"""The engine's part of `hotpatch doctor`: what is known of the program, without compiling anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ipbp.build.command import Command, refusals
from ipbp.build.crates import program_crates
from ipbp.build.environment import environment_of
from ipbp.build.places import cache_folder
from ipbp.build.trust import require_agreement
from ipbp.errors import IpbpError
from ipbp.formats.elf_index_cache import IndexCache
from ipbp.formats.elf_process import LoadedProcess, read_process
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import SymbolType
from ipbp.pipeline.edited import buildable
from ipbp.pipeline.request import Request
from ipbp.stages.arena import choose_arena


def examine(request: Request, read: MemoryReader) -> list[dict[str, Any]]:
    """Lines of `name`, `ok` and `text`: symbols, build information, near memory."""
    described = request.description
    cache = IndexCache(cache_folder("symbols"))
    regions, folders = list(request.regions), described.debug_folders
    process = read_process(described.pid, regions, described.executable, read, cache, folders)
    image = process.executable_image()
    return [
        _line("symbols", lambda: _symbols(image)),
        _line("build information", lambda: _build(request, process)),
        _line("units", lambda: _units(request, process)),
        _line("near memory", lambda: _near_memory(request, image)),
    ]


def _line(name: str, look: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "text": look()}
    except IpbpError as error:
        return {"name": name, "ok": False, "text": str(error)}


def _symbols(image: LoadedImage) -> str:
    functions = int((image.symbols.type == SymbolType.FUNCTION).sum())
    if functions == 0:
        raise IpbpError(
            "no-symbols", f"{image.path} has no symbols", "Do not strip the program, or keep its symbol table."
        )
    replaced = "" if Path(image.path).exists() else "; the file was deleted or replaced, the running one is used"
    return f"{functions} functions in {image.path}{replaced}"


def _build(request: Request, process: LoadedProcess) -> str:
    built, notes = buildable(request, process)
    lines = []
    for row in built:
        found, where = row.commands, row.commands.file or "its debug information"
        if found.cargo is not None:
            lines.append(f"{row.module.mapped.path}: {_cargo(found.cargo)}")
            continue
        what = "the project's own command" if found.own else f"{len(found.commands)} compile commands"
        lines.append(f"{row.module.mapped.path}: {what} from {where}")
    return "\n".join([*lines, *notes])


def _units(request: Request, process: LoadedProcess) -> str:
    """Whether each unit could be compiled and patched if it was edited."""
    rows = [command for row in buildable(request, process)[0] for command in row.commands.commands]
    require_agreement(rows)
    found: dict[tuple[str, str], list[str]] = {}
    for command in rows:
        for code, advice in troubles(command):
            found.setdefault((code, advice), []).append(command.source.name)
    if found:
        lines = [f"{code}: {_some(names)}. {advice}" for (code, advice), names in found.items()]
        raise IpbpError("units-unpatchable", f"{len(found)} kinds of units cannot be patched", "\n".join(lines))
    return f"all {len(rows)} can be compiled again" if rows else "compiled by cargo, or by the project's own build"


def troubles(command: Command) -> Iterator[tuple[str, str]]:
    """Code and advice of each reason why the unit could not be patched if it was edited."""
    yield from ((refusal.code, refusal.advice) for refusal in refusals(command))
    if not command.directory.is_dir():
        yield "build-directory-missing", "Configure the build again, or name another build folder with --build-dir."
    elif command.arguments and not _is_there(command):
        yield "compiler-missing", f"Install {command.arguments[0]}, or let the build system record its commands again."


def _is_there(command: Command) -> bool:
    program = command.arguments[0]
    if "/" in program:
        return os.access(command.directory / program, os.X_OK)
    return shutil.which(program, path=environment_of(command).get("PATH")) is not None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _cargo(executable: Path) -> str:
    commands = program_crates(executable)
    local = [row.name for row in commands if row.is_local and row.is_linked]
    return f"cargo, {len(commands)} crates; these can be edited: {', '.join(local)}"


def _near_memory(request: Request, image: LoadedImage) -> str:
    known = next((arena for arena in request.arenas if arena.serves(image)), None)
    if known is not None:
        return f"reserved at {known.base:#x}"
    arena = choose_arena(request.regions, image.start, image.end, low_2g=not image.is_pie)
    return f"free at {arena.base:#x}"
