"""`hotpatch --all`: one command for every process of this debugger that runs the selected one's program.

They are stopped, and stay so: one after the other gets what `hotpatch` does for one, and the engine is told that these
requests belong together, so that it compiles once and makes one plan for those that are alike.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import Callable, ContextManager, Optional, Sequence

from ipbp.errors import IpbpError
from ipbp.host import commands, render, tasks
from ipbp.host.inferior import Inferior
from ipbp.host.tally import NOT_REACHED, Outcome, Tally, as_text
from ipbp.host.words import parse

_ACTIONS = ("apply", "load", "preview", "undo", "status")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Member:
    """A process of this debugger. `name` is the debugger's own: "inferior 2". Within `selected()` it is the one that
    commands are about. `is_local`: it runs on this machine."""

    name: str
    pid: int
    is_stopped: bool
    is_local: bool
    selected: Callable[[], ContextManager[Inferior]]


def is_for_every(arguments: str) -> bool:
    """Whether the command is about all processes."""
    return "--all" in arguments.split()


def run_every(members: Sequence[Member], selected: int, arguments: str, console: commands.Console) -> int:
    """Carry out one `hotpatch ... --all`; the exit status of it all. `selected`: the selected process, 0 for none."""
    as_json = "--json" in arguments.split()
    try:
        action = _checked(arguments, members, selected)
    except IpbpError as error:
        return _show(console, commands.failed(error), as_json)
    tally, notes = Tally(action), []
    together = f"{os.getpid()}.{next(_numbers)}"
    program, is_interrupted = tasks.program(selected), False
    for member in members:
        if tasks.program(member.pid) != program:
            notes.append(f"{member.name}, process {member.pid}, runs another program: left alone")
            continue
        outcomes: list[Outcome] = []
        if is_interrupted:
            outcomes.append(commands.failed(NOT_REACHED))
        else:
            with member.selected() as inferior:
                commands.run(inferior, arguments, console, outcomes.append, together)
        is_interrupted = (outcomes[-1].get("error") or {}).get("code") == "interrupted"
        row = tally.add(member.pid, outcomes[-1])
        console.write(render.as_json(row) if as_json else render.of_process(row))
    total = tally.total(notes)
    console.write(render.compact(total) if as_json else as_text(total))
    return int(total["status"])


def _checked(arguments: str, members: Sequence[Member], selected: int) -> str:
    """What is to be done. Errors: `usage`, `inferior-none`, `inferior-remote`, `inferior-running`."""
    options = parse(arguments)
    if options.action not in _ACTIONS or getattr(options, "frame", "old") != "old":
        raise IpbpError(
            "usage", "hotpatch: --all is for apply, load, preview, undo and status, without --frame", "Leave --all out."
        )
    if not selected:
        raise IpbpError("inferior-none", "no program is running", "`run` it, or `attach` to it.")
    far = _first(members, lambda member: not member.is_local)
    if far is not None:
        raise IpbpError("inferior-remote", f"{far.name} is not on this machine", "Type `hotpatch` without --all there.")
    running = _first(members, lambda member: not member.is_stopped)
    if running is not None:
        fact = f"{running.name}, process {running.pid}, is running"
        raise IpbpError("inferior-running", fact, "Stop all of them, then `hotpatch --all`.")
    return str(options.action)


def _first(members: Sequence[Member], is_it: Callable[[Member], bool]) -> Optional[Member]:
    return next((member for member in members if is_it(member)), None)


def _show(console: commands.Console, outcome: Outcome, as_json: bool) -> int:
    console.write(render.as_json(outcome) if as_json else render.as_text(outcome))
    return commands.EXIT[outcome["outcome"]]
