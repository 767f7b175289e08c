"""The engine's part of `hotpatch doctor`: what is known of the program, without compiling anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ipbp.build.command import Command, refusals
from ipbp.build.crate_profile import refuse_lto
from ipbp.build.crates import program_crates
from ipbp.build.debug_container import opened
from ipbp.build.debug_sections import has_debug_information
from ipbp.build.environment import environment_of
from ipbp.build.saves import Saves
from ipbp.build.store import Store, user_store
from ipbp.build.trust import require_agreement
from ipbp.errors import IpbpError, raise_all
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import SymbolType
from ipbp.pipeline.edited import buildable
from ipbp.pipeline.process import process_of
from ipbp.pipeline.request import Request
from ipbp.stages.grouping import new_arena

_LEAST = 1 << 14  # bytes that a patch of some functions may need


def examine(request: Request, read: MemoryReader) -> list[dict[str, Any]]:
    """Lines of `name`, `ok` and `text`."""
    process = process_of(request, read)
    image = process.executable_image()
    return [
        _line("symbols", lambda: _symbols(image)),
        _line("build information", lambda: _build(request, process)),
        _line("units", lambda: _units(request, process)),
        _line("debug information", lambda: _debug_information(request, process)),
        _line("near memory", lambda: near_memory(request, image)),
        _line("patched code", lambda: patched_code(request, read)),
        _line("patched units", lambda: patched_units(request, user_store())),
        _line("watch mode", lambda: _watch_mode(image)),
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
    return f"{_some_of(functions, 'function')} in {image.path}{replaced}"


def _build(request: Request, process: LoadedProcess) -> str:
    built, notes = buildable(request, process)
    lines = []
    for row in built:
        found, where = row.commands, row.commands.file or "its debug information"
        if found.cargo is not None:
            lines.append(f"{row.module.mapped.path}: {_cargo(found.cargo)}")
            continue
        what = "the project's own command" if found.own else _some_of(len(found.commands), "compile command")
        lines.append(f"{row.module.mapped.path}: {what} from {where}")
    return "\n".join([*lines, *notes])


def _units(request: Request, process: LoadedProcess) -> str:
    """Whether each unit could be compiled and patched if it was edited."""
    built = buildable(request, process)[0]
    rows = [command for row in built for command in row.commands.commands]
    for own in (row.commands.own for row in built if row.commands.own is not None):
        require_agreement((), own)
        if shutil.which(own.command[0], path=environment_of(None).get("PATH")) is None:
            fact = f"{own.command[0]}, the build command of {own.file}, is not there"
            raise IpbpError("build-command-missing", fact, "Correct [build] in that file.")
    require_agreement(rows)
    raise_all(*(refuse_lto(program_crates(row.commands.cargo)) for row in built if row.commands.cargo))
    found: dict[tuple[str, str], list[str]] = {}
    for command in rows:
        for code, advice in troubles(command):
            found.setdefault((code, advice), []).append(command.source.name)
    if found:
        lines = [f"{code}: {_some(names)}. {advice}" for (code, advice), names in found.items()]
        count = len({name for names in found.values() for name in names})
        raise IpbpError("units-unpatchable", f"{_some_of(count, 'unit')} cannot be patched", "\n".join(lines))
    if not rows:
        return "compiled by cargo, or by the project's own build"
    return f"all {len(rows)} can be compiled again" if len(rows) > 1 else "the only one can be compiled again"


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


def _some_of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _cargo(executable: Path) -> str:
    commands = program_crates(executable)
    local = [row.name for row in commands if row.is_local and row.is_linked]
    return f"cargo, {_some_of(len(commands), 'crate')}; what can be edited: {', '.join(local)}"


def _debug_information(request: Request, process: LoadedProcess) -> str:
    """What is known of types, lines and variables."""
    without = []
    for row in buildable(request, process)[0]:
        file = Path(row.module.debug_file or row.module.opened_as)
        if not described(file):
            without.append(row.module.mapped.path)
            if row.commands.cargo is not None:
                raise IpbpError(
                    "no-type-information",
                    f"{row.module.mapped.path} does not describe its types, so that a changed layout would not be seen",
                    "Build with `debug = true` and without `strip` in the profile.",
                )
    said = "types are not compared, and no frame can go on in new code"
    return f"none in {', '.join(without)}: {said}" if without else "types, lines and variables are described"


def described(file: Path) -> bool:
    """Whether a linked file, or the part of it that was stripped off, has debug information."""
    with file.open("rb") as stream:
        return has_debug_information(opened(stream))


def patched_code(request: Request, read: MemoryReader) -> str:
    """Whether the jumps to new code are there still. Errors: `entry-changed`."""
    places = [(address, len(code)) for address, code in request.entries.items()]
    for (address, code), found in zip(request.entries.items(), read(places) if places else (), strict=True):
        if found != code:
            raise IpbpError(
                "entry-changed",
                f"the entry at {address:#x} does not hold the jump that a patch wrote there",
                "Something else writes to the program's code; undo the patches, or restart the program.",
            )
    if not places:
        return "no function has been replaced"
    return f"{len(places)} entries lead to new code" if len(places) > 1 else "1 entry leads to new code"


def patched_units(request: Request, store: Store) -> str:
    """Whether the objects are there that the next patch is compared with. Errors: `store-object-missing`."""
    objects = {unit.object for units in request.record.images.values() for unit in units.values() if unit.object}
    for digest in objects:
        store.get(digest)
    return f"{_some_of(len(objects), 'object')} of earlier patches kept"


def _watch_mode(image: LoadedImage) -> str:
    """Whether the kernel watches one more folder. Errors: `watch-limit`."""
    saves = Saves()
    try:
        saves.follow([image.path])
    finally:
        saves.close()
    return "saves can be heard of"


def near_memory(request: Request, image: LoadedImage) -> str:
    """Where patches go. Errors: `no-near-memory`; `arena-full` when what is reserved is almost used up."""
    known = next((arena for arena in request.arenas if arena.serves(image)), None)
    if known is not None:
        left = min(part.end - part.next for part in known.parts)
        if left < _LEAST:
            raise IpbpError(
                "arena-full",
                f"of the memory reserved for patches at {known.base:#x} only {max(left, 0)} bytes are left in one part",
                "Undo earlier patches, or restart the program.",
            )
        return f"reserved at {known.base:#x}"
    return f"free at {new_arena(image, {}, (), request.regions).base:#x}"
