"""A whole `hotpatch` of a running program up to its plan, without a debugger: nothing is written to the process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from running_program import WAIT, Running, run

from ipbp.pipeline.order import Outcome, make_plan
from ipbp.pipeline.record import Record
from ipbp.pipeline.request import Request
from ipbp.protocol import Description

HEAD = WAIT + "\n"


def build_sources(
    folder: Path, files: Mapping[str, str], *flags: str, compiler: str = "gcc", link: Sequence[str] = ()
) -> Path:
    """The program of these sources, built with -g and a compilation database. `WAIT` goes before main.c."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sources(folder, files)
    objects = [write_database(folder, *flags, compiler=compiler)[name] for name in sorted(files) if is_source(name)]
    for row in json.loads((folder / "compile_commands.json").read_text()):
        run(row["arguments"], folder)
    run([compiler, *objects, *link, "-o", "program"], folder)
    return folder / "program"


def write_sources(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(HEAD + text if name == "main.c" else text)


def write_database(folder: Path, *flags: str, compiler: str = "gcc") -> dict[str, str]:
    """The database of the sources that are there; the object of each."""
    sources = sorted(path.name for path in folder.iterdir() if is_source(path.name))
    objects = {name: f"{Path(name).stem}.o" for name in sources}
    rows = [
        {"directory": str(folder), "file": name, "arguments": [compiler, "-g", *flags, "-c", name, "-o", objects[name]]}
        for name in sources
    ]
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    return objects


def is_source(name: str) -> bool:
    return name.endswith((".c", ".s", ".S", ".cc"))


def plan_for(
    process: Running,
    record: Record | None = None,
    number: int = 1,
    objects: tuple[Path, Path] | None = None,
    patch_file: Path | None = None,
) -> Outcome:
    """What `hotpatch` would do now; `objects`: with these two, `patch_file`: with that. Errors: those of
    `make_plan`."""
    request = Request(
        description=Description(process.pid, "x86_64", "none", str(process.program), False, True),
        regions=tuple(process.regions()),
        folder=process.program.parent,
        number=number,
        record=record or Record(),
        entries={},
        arenas=(),
        objects=objects,
        patch_file=patch_file,
    )
    return make_plan(request, process.read, lambda _: None)
