"""A running program that no debugger is open for: patched, undone or looked at from a shell, one process at a time.

Compile, diff and link are done before anything is attached, so a preview, a refusal and an edit that changes nothing
never touch the process. A debugger is then attached for the time of one `hotpatch` and detached. The program goes on
running whatever happens here: an error, a time-out, Ctrl-C, or our own end (the debugger's input then ends, and it
detaches by itself).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ipbp.cli.bystander import Bystander
from ipbp.cli.consent import with_consent
from ipbp.cli.debuggers import find_debugger
from ipbp.cli.gdb_session import GdbSession
from ipbp.cli.lldb_session import LldbSession
from ipbp.cli.outcome import Outcome
from ipbp.cli.target import check_attachable, is_stopped, settle
from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.host.commands import plan_outcome, plan_params, status_outcome
from ipbp.host.inherited import inherit
from ipbp.host.journal import Journal, open_journal
from ipbp.host.plain_path import plain_path
from ipbp.host.private import write_private
from ipbp.host.quiet import BUSY
from ipbp.host.unloaded import forget_unloaded

if TYPE_CHECKING:
    from ipbp.graph.image import MemoryReader
    from ipbp.pipeline.order import Outcome as Planned
    from ipbp.pipeline.request import Request

    Planner = Callable[[Request, MemoryReader, Callable[[str], None]], Planned]

Session = GdbSession | LldbSession

_SLOW = ("compiling", "running")
ATTEMPTS = 10
"""Beside the first one, when the program is busy at each."""


@dataclass(frozen=True)
class Prepared:
    """A process that may be attached to, and what is to be done to it. `notes`: what was found out on the way."""

    pid: int
    journal: Journal
    planned: Planned
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome | None:
        """What there is to say when nothing is to be done; None when there is."""
        if self.planned.plan is not None:
            return None
        return {"outcome": "unchanged", "notes": [*self.notes, *self.planned.notes], "times": self.planned.times}


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """What a plan can be told."""
    parser.add_argument("--build-dir", type=Path, metavar="DIR", help="where compile_commands.json is")
    parser.add_argument("--compile-commands", type=Path, metavar="FILE", help="the file itself")
    parser.add_argument(
        "--allow-layout",
        action="append",
        metavar="TYPE",
        help="a type whose layout may change, because no value of it is alive; `all`",
    )
    parser.add_argument("--exact", action="store_true", help="Rust: update the lines that panics name, too")
    parser.add_argument(
        "--yes", action="store_true", help="agree to the programs that the project's build wants to run"
    )


def prepare(arguments: argparse.Namespace, pid: int, plan: Planner) -> Prepared:
    """Everything up to the plan, which `plan` makes; the process is untouched, but what a debugger that died left
    half-way is put right. Errors: those of `check_attachable`, and why there is no plan."""
    journal, notes = look(pid)
    inferior = Bystander(pid)
    if journal.unfinished() is not None:
        with debugging(arguments, pid) as session:
            session.attach()
            put_right = session.hotpatch("status --json --our-stop")
        if put_right["outcome"] != "ok":
            raise _error_of(put_right)
    names = ("build_dir", "compile_commands", "allow_layout", "exact", "load", "patch_file")
    options = {name: getattr(arguments, name, None) for name in names}
    colour = sys.stderr.isatty() and not arguments.json
    params = plan_params(inferior.describe(), inferior.regions(), journal, colour, options)
    # Only here: the stages bring numpy and the readers with them, which take longer to load than an undo takes.
    from ipbp.pipeline.request import Request

    request = Request.from_json(params)
    planned = with_consent(arguments, lambda: plan(request, inferior.read_ranges, _tell(arguments.json)))
    return Prepared(pid, journal, planned, tuple(notes))


def preview(prepared: Prepared) -> Outcome:
    """What a patch would do."""
    if prepared.planned.plan is None:
        assert prepared.outcome is not None
        return prepared.outcome
    return _with_notes(plan_outcome("planned", prepared.planned.plan), prepared.notes)


def patch(arguments: argparse.Namespace, prepared: Prepared, plan: Planner) -> Outcome:
    """Attach, patch, detach. `plan` makes the plan that comes after one that only loads libraries."""
    if prepared.outcome is not None:
        return prepared.outcome
    pid = prepared.pid
    with plan_words(prepared) as words:
        outcome = _attached(arguments, pid, words)
        for _ in range(0 if is_stopped(pid) else ATTEMPTS):
            if not is_busy(outcome):
                break
            # In the middle of something that must not be disturbed: it gets on, and it is tried again.
            outcome = _attached(arguments, pid, words)
    if prepared.planned.is_first and outcome["outcome"] == "patched":
        following = argparse.Namespace(**{**vars(arguments), "load": None})
        return patch(following, prepare(following, pid, plan), plan)
    return _with_notes(outcome, prepared.notes)


def undo(arguments: argparse.Namespace, pid: int) -> Outcome:
    """Attach, take back, detach."""
    _, notes = look(pid)
    words = ["undo", "--json", "--our-stop"]
    if arguments.number is not None:
        words.append(str(arguments.number))
    return _with_notes(_attached(arguments, pid, shlex.join(words)), notes)


def status(arguments: argparse.Namespace, pid: int) -> Outcome:
    """What is applied. A debugger is attached only to put right what one that died left half-way."""
    journal, notes = look(pid)
    if journal.unfinished() is None:
        return _with_notes(status_outcome(journal), notes)
    return _with_notes(_attached(arguments, pid, "status --json --our-stop"), notes)


def look(pid: int) -> tuple[Journal, list[str]]:
    """The journal of a process that may be attached to, up to date with what is loaded, and what to say of that."""
    check_attachable(pid)
    journal = open_journal(pid)
    inherit(journal, Bystander(pid))
    return journal, forget_unloaded(journal, Bystander(pid))


@contextmanager
def plan_words(prepared: Prepared) -> Iterator[str]:
    """The `hotpatch` that carries the plan out; inside the block it can be said."""
    plan = prepared.planned.plan
    assert plan is not None
    file = prepared.journal.folder / f"plan-{plan.number}.json"
    write_private(file, json.dumps({"outcome": "planned", "plan": plan.to_json()}))
    try:
        yield shlex.join(["apply", "--json", "--our-stop", "--plan", plain_path(str(file))])
    finally:
        file.unlink(missing_ok=True)


def is_busy(outcome: Outcome) -> bool:
    """Whether it failed because the program was in the middle of something."""
    return bool((outcome.get("error") or {}).get("code") == BUSY)


@contextmanager
def debugging(arguments: argparse.Namespace, pid: int) -> Iterator[Session]:
    """A debugger for this process, not attached yet. At the end of the block it has let go, and the process is
    stopped, or not, as it was before."""
    was_stopped = is_stopped(pid)
    deadline = time.monotonic() + arguments.timeout
    kind = GdbSession if arguments.debugger == "gdb" else LldbSession
    try:
        with kind(find_debugger(arguments.debugger), pid, deadline) as session:
            yield session
    finally:
        settle(pid, was_stopped)


def _attached(arguments: argparse.Namespace, pid: int, words: str) -> Outcome:
    """One `hotpatch` in a debugger that is attached for it. The program is stopped from the attach to the detach."""
    with debugging(arguments, pid) as session:
        began = session.attach()
        outcome = session.hotpatch(words)
        session.close()
        outcome.setdefault("times", {})["stopped"] = (time.perf_counter() - began) * 1000
        return outcome


def _with_notes(outcome: Outcome, notes: Sequence[str]) -> Outcome:
    if notes:
        outcome["notes"] = [*notes, *outcome.get("notes", ())]
    return outcome


def _error_of(outcome: Outcome) -> IpbpError:
    row = outcome.get("error")
    if row is None:
        return Refused(Refusal.from_json(refusal) for refusal in outcome.get("refusals", ()))
    return IpbpError(row["code"], row["fact"], row["advice"], row.get("detail", ""))


def _tell(as_json: bool) -> Callable[[str], None]:
    # The rest is over before anybody has read of it.
    return lambda text: print(text, file=sys.stderr) if not as_json and text.startswith(_SLOW) else None
