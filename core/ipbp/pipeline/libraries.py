"""Libraries that new code needs and the program has not loaded: offered by name, and loaded when the user agrees.

Loading is a patch of its own that comes first: it changes no function, and the next request sees the library where the
loader put it. So the patch that uses it is linked as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ipbp.errors import IpbpError, Refusal
from ipbp.formats.elf_library_search import libraries_with
from ipbp.formats.elf_process import LoadedProcess
from ipbp.pipeline.extra import extra_room
from ipbp.pipeline.loader import find_loader, quiet_for
from ipbp.pipeline.request import Request
from ipbp.protocol import PatchPlan

_GLOBAL = 0x102  # RTLD_NOW | RTLD_GLOBAL (dlfcn.h)


def offered(refusals: Iterable[Refusal], process: LoadedProcess, pid: int) -> list[Refusal]:
    """The refusals; those of names that an installed library has say which, and how to load it."""
    root = Path(f"/proc/{pid}/root")
    program = process.modules[0].file
    return [
        _with_offer(row, libraries_with(row.symbol, program, root))
        if row.code == "undefined-symbol" and row.symbol
        else row
        for row in refusals
    ]


def loading_plan(request: Request, process: LoadedProcess) -> PatchPlan | None:
    """The plan that loads what the user named, None when all of it is loaded. Errors: `library-not-loaded` when the
    program cannot load anything; `no-near-memory`; OSError."""
    wanted = [name for name in dict.fromkeys(request.load) if not _is_loaded(name, process)]
    if not wanted:
        return None
    loader = find_loader(process)
    if loader is None:
        raise IpbpError(
            "library-not-loaded",
            f"the program cannot load {', '.join(wanted)}: it has no dynamic loader, or has not loaded what opens "
            "libraries (dlopen)",
            "Link the program with it and start it once more.",
        )
    names = b"".join(name.encode() + b"\0" for name in wanted)
    extra = extra_room(request.arenas, request.regions, process.executable_image(), len(names))
    file = request.folder / f"patch-{request.number}.elf"
    segments, arenas = extra.write(file, names)
    places = [extra.start + len(b"".join(name.encode() + b"\0" for name in wanted[:row])) for row in range(len(wanted))]
    loads = tuple(loader.load(name, place, _GLOBAL) for name, place in zip(wanted, places, strict=True))
    return PatchPlan(
        number=request.number,
        files=(str(file),),
        allocations=extra.allocations,
        segments=segments,
        replacements=(),
        calls=(),
        forbidden=(),
        functions=(),
        data=tuple(f"{name} (loaded)" for name in wanted),
        record=request.record.to_json(),
        arenas=tuple(row.to_json() for row in arenas),
        loads=loads,
        quiet=quiet_for(process, (), loads),
    )


def _with_offer(row: Refusal, libraries: Sequence[str]) -> Refusal:
    if not libraries:
        return row
    ways = " or ".join(f"`hotpatch --load {name}`" for name in libraries)
    return replace(row, advice=f"{ways} (`ipbp apply --load`) loads a library that has it into the program.")


def _is_loaded(name: str, process: LoadedProcess) -> bool:
    return any(
        name in (module.mapped.path, module.mapped.path.rsplit("/", 1)[-1], module.dynamic.soname)
        for module in process.modules
    )
