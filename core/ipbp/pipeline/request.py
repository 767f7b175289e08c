"""What the plugin asks for and knows: one value, made from the request's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipbp.pipeline.record import Record
from ipbp.protocol import Description, Region, SelectedFrame
from ipbp.stages.arena import Arena


@dataclass(frozen=True, slots=True)
class Request:
    """`folder`: where the patch files are written. `number`: of this patch. `record`: what the newest patch in force
    gave to the journal, without the images that were unloaded since. `entries`: for each function entry that is
    rewritten now, the bytes that must be there.
    `arenas`: memory of earlier patches, undone ones included. `objects`: old and new object given by the user,
    instead of a build. `allow_layout`: types whose layout may change. `exact`: lines that moved change
    functions, too. `load`: libraries that the user agrees to have loaded first. `frame`: what shall go on in new code.
    `plain`: names of files and functions to compile without optimisation, `fast`: of those where that is to be taken
    back, () for all. `patch_file`: to be applied, instead of a build.
    `symbols_later`: the debug information of the patch may be written when the plan is handed over."""

    description: Description
    regions: tuple[Region, ...]
    folder: Path
    number: int
    record: Record
    entries: dict[int, bytes]
    arenas: tuple[Arena, ...]
    objects: tuple[Path, Path] | None = None
    build_dir: Path | None = None
    compile_commands: Path | None = None
    colour: bool = False
    allow_layout: tuple[str, ...] = ()
    exact: bool = False
    load: tuple[str, ...] = ()
    frame: SelectedFrame | None = None
    plain: tuple[str, ...] = ()
    fast: tuple[str, ...] | None = None
    patch_file: Path | None = None
    symbols_later: bool = False

    @staticmethod
    def from_json(row: dict[str, Any]) -> Request:
        objects = row.get("objects")
        return Request(
            description=Description(**row["description"]),
            regions=tuple(Region(*region) for region in row["regions"]),
            folder=Path(row["folder"]),
            number=row["number"],
            record=Record.from_json(row.get("record") or {}).without(row.get("unloaded", ())),
            entries={int(address): bytes.fromhex(code) for address, code in row.get("entries", {}).items()},
            arenas=tuple(Arena.from_json(arena) for arena in row.get("arenas", ())),
            objects=(Path(objects[0]), Path(objects[1])) if objects else None,
            build_dir=_path(row.get("build_dir")),
            compile_commands=_path(row.get("compile_commands")),
            colour=bool(row.get("colour")),
            allow_layout=tuple(row.get("allow_layout", ())),
            exact=bool(row.get("exact")),
            load=tuple(row.get("load") or ()),
            frame=_frame(row.get("frame")),
            plain=tuple(row.get("deopt") or ()),
            fast=tuple(row["reopt"]) if row.get("reopt") is not None else None,
            patch_file=_path(row.get("patch_file")),
            symbols_later=bool(row.get("symbols_later")),
        )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _frame(row: dict[str, Any] | None) -> SelectedFrame | None:
    return None if row is None else SelectedFrame(**{**row, "newest": tuple(row["newest"])})
