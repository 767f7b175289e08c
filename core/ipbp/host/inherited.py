"""Patches that a process was forked with: its parent's, in memory that was copied when it was forked (fork(2)).

Such a process has a journal of its own, which begins as its parent's was then. Which processes may be its parents is
told by the auxiliary vector, which a fork copies and every program start makes anew; what the parent's journal said at
that moment, by memory: at each place that the parent's patches ever changed, the child has what one state of that
journal says. A program that was started twice without address randomisation is not taken for its own child: it has the
bytes of its file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Sequence

from ipbp.host.journal import Journal, Patch, has_memory, kin_of
from ipbp.host.memory import Memory, mappings_of, read_or_none
from ipbp.host.private import write_private
from ipbp.host.verify import is_one_of_both
from ipbp.protocol import Region

State = Sequence[Patch]


def inherit(journal: Journal, memory: Memory) -> None:
    """Begin a journal that is still empty with what the process was forked with, if there is such a thing."""
    if not journal.is_empty():
        return
    for folder in kin_of(journal.folder):
        parent = Journal(folder)
        states = parent.states()
        if not any(states):
            continue
        regions = memory.regions()
        # The newest first; states in which a patch was half-way only when no other one fits.
        order = sorted(range(len(states)), key=lambda row: (any(p.is_unfinished for p in states[row]), -row))
        found = next((row for row in order if _fits(states[row], states, memory, regions)), None)
        if found is not None and any(has_memory(patch) for patch in states[found]):
            _begin_like(journal, parent, states[found], found + 1)
            return


def _fits(state: State, states: Sequence[State], memory: Memory, regions: Sequence[Region]) -> bool:
    """Whether memory is as this state says, in all places that any state knows."""
    wanted: dict[int, bytes] = {}
    for patches in states:
        for patch in patches:
            for change in patch.changes:
                wanted.setdefault(change.address, change.expected)
    for patch in state:
        if patch.is_in_force and not patch.is_unfinished:
            wanted.update((change.address, change.replacement) for change in patch.changes)
    unsure = {change.address: change for patch in state if patch.is_unfinished for change in patch.changes}
    for address, content in wanted.items():
        found = read_or_none(memory, address, len(content))
        if address in unsure and found is not None and is_one_of_both(found, unsure[address]):
            continue
        if found != content:
            return False
    blocks = [block for patch in state if has_memory(patch) for block in patch.plan.allocations]
    return all(mappings_of(block.address, block.address + block.size, regions) for block in blocks)


def _begin_like(journal: Journal, parent: Journal, state: State, count: int) -> None:
    """The first `count` events of the parent's journal, after which it was in this state, and the files that they
    name."""
    for patch in state:
        for file in patch.plan.files:
            _link(Path(file), journal.folder)
        _link(parent.folder / f"record-{patch.number}.json", journal.folder)
    sources = parent.folder / "sources"
    if sources.is_dir():
        place = journal.folder / "sources"
        place.mkdir(mode=0o700, exist_ok=True)
        for text in sources.iterdir():
            _link(text, place)
    newest = max((patch.number for patch in state), default=0)
    rows = [_moved(row, parent.folder, journal.folder) for row in parent.rows()[:count]]
    rows.append({"event": "inherited", "number": newest, "pid": parent.pid})
    fresh = journal.folder / f"journal.{os.getpid()}"
    write_private(fresh, "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    with contextlib.suppress(FileExistsError):  # another command has just done the same
        os.link(fresh, journal.folder / "journal")
    fresh.unlink()


def _moved(row: dict[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """An event whose files are those of the new folder."""
    if row["event"] != "begin":
        return row
    plan = dict(row["plan"])
    plan["files"] = [str(new / Path(file).name) for file in plan["files"]]
    plan["loads"] = [{**load, "patch": _in(load["patch"], old, new)} for load in plan.get("loads", ())]
    return {**row, "plan": plan}


def _in(file: str, old: Path, new: Path) -> str:
    return str(new / Path(file).name) if file and Path(file).parent == old else file


def _link(file: Path, folder: Path) -> None:
    """What the parent's undo has removed since is not there."""
    place = folder / file.name
    try:
        os.link(file, place)
    except (FileExistsError, FileNotFoundError):
        return
    except OSError:  # a file system without links
        shutil.copy2(file, place)
