"""`ipbp apply|undo|preview|status --pid PID`: patch a running program from a shell, with no debugger open.

Compile, diff and link are done before anything is attached, so a preview, a refusal and an edit that changes nothing
never touch the process. A debugger is then attached for the time of one `hotpatch` and detached. The program goes on
running whatever happens here: an error, a time-out, Ctrl-C, or our own end (the debugger's input then ends, and it
detaches by itself).
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ipbp.cli.bystander import Bystander
from ipbp.cli.consent import with_consent
from ipbp.cli.debuggers import DEBUGGERS, find_debugger
from ipbp.cli.gdb_session import GdbSession
from ipbp.cli.lldb_session import LldbSession
from ipbp.cli.outcome import Outcome
from ipbp.cli.target import check_attachable, is_stopped, settle
from ipbp.errors import IpbpError
from ipbp.host import render
from ipbp.host.commands import EXIT, bug, failed, plan_outcome, plan_params, status_outcome
from ipbp.host.journal import Journal, open_journal
from ipbp.host.plain_path import plain_path
from ipbp.host.private import write_private
from ipbp.host.quiet import BUSY
from ipbp.host.unloaded import forget_unloaded

if TYPE_CHECKING:
    from ipbp.pipeline.order import Outcome as Planned

_VERBS = {
    "apply": "compile what was edited and patch the running program",
    "preview": "all of `apply` but the last step: what would change, and what is refused",
    "undo": "take back the newest patch, or all after patch N",
    "status": "patches, functions and memory of a running program",
}
_SLOW = ("compiling", "running")
_ATTEMPTS = 10  # beside the first one, when the program is busy at each
_INTERRUPTED = IpbpError(
    "interrupted", "interrupted", "The program goes on running; `ipbp status` says what is applied."
)


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for verb, what in _VERBS.items():
        parser = subparsers.add_parser(verb, help=what, description=f"{what[0].upper()}{what[1:]}.")
        parser.add_argument("--pid", type=process_id, required=True, help="the running program")
        parser.add_argument("--debugger", choices=DEBUGGERS, default="gdb", help="which to attach with (gdb)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for all of it (600)")
        if verb in ("apply", "preview"):
            add_build_options(parser)
        if verb == "apply":
            parser.add_argument("--load", metavar="LIBRARY", action="append", help="load this library first")
        if verb == "undo":
            parser.add_argument("number", type=int, nargs="?", metavar="N", help="the patch that is to stay newest")
        parser.set_defaults(run=run, verb=verb, asks=True)


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


def run(arguments: argparse.Namespace) -> int:
    """Attach, `hotpatch`, detach; print the outcome; its exit status."""
    try:
        with _ends_like_ctrl_c():
            outcome = _outcome(arguments)
    except IpbpError as error:
        outcome = failed(error)
    except KeyboardInterrupt:
        outcome = failed(_INTERRUPTED)
    except Exception as error:  # the border to the shell: a bug of ours is an outcome like any other
        outcome = failed(bug(error))
    if arguments.json:
        print(render.as_json(outcome), end="")
    else:
        print(render.as_text(outcome), end="", file=sys.stderr if outcome["outcome"] == "error" else sys.stdout)
    return EXIT[outcome["outcome"]]


def _outcome(arguments: argparse.Namespace) -> Outcome:
    pid: int = arguments.pid
    check_attachable(pid)
    journal = open_journal(pid)
    notes = forget_unloaded(journal, Bystander(pid))
    outcome = _of_verb(arguments, pid, journal)
    if notes:
        outcome["notes"] = [*notes, *outcome.get("notes", ())]
    return outcome


def _of_verb(arguments: argparse.Namespace, pid: int, journal: Journal) -> Outcome:
    if arguments.verb == "status" and journal.unfinished() is None:
        return status_outcome(journal)
    words = [arguments.verb, "--json", "--our-stop"]
    if arguments.verb == "undo" and arguments.number is not None:
        words.append(str(arguments.number))
    if arguments.verb not in ("apply", "preview"):
        return _attached(arguments, words)
    if journal.unfinished() is not None:  # before the plan is made
        put_right = _attached(arguments, ["status", "--json", "--our-stop"])
        if put_right["outcome"] != "ok":
            return put_right
    planned = _planned(arguments, journal)
    if planned.plan is None:
        return {"outcome": "unchanged", "notes": list(planned.notes), "times": planned.times}
    if arguments.verb == "preview":
        return plan_outcome("planned", planned.plan)
    plan = journal.folder / f"plan-{planned.plan.number}.json"
    write_private(plan, json.dumps({"outcome": "planned", "plan": planned.plan.to_json()}))
    try:
        outcome = _attached_until_quiet(arguments, [*words, "--plan", plain_path(str(plan))])
    finally:
        plan.unlink(missing_ok=True)
    if planned.is_first and outcome["outcome"] == "patched":
        return _of_verb(argparse.Namespace(**{**vars(arguments), "load": None}), pid, journal)
    return outcome


def _planned(arguments: argparse.Namespace, journal: Journal) -> Planned:
    # Only here: the stages bring numpy and the readers with them, which take longer to load than an undo takes.
    from ipbp.pipeline.order import make_plan
    from ipbp.pipeline.request import Request

    inferior = Bystander(arguments.pid)
    names = ("build_dir", "compile_commands", "allow_layout", "exact", "load")
    options = {name: getattr(arguments, name, None) for name in names}
    colour = sys.stderr.isatty() and not arguments.json
    request = Request.from_json(plan_params(inferior.describe(), inferior.regions(), journal, colour, options))
    return with_consent(arguments, lambda: make_plan(request, inferior.read_ranges, _tell(arguments.json)))


def _attached_until_quiet(arguments: argparse.Namespace, words: list[str]) -> Outcome:
    """The same again when the program was in the middle of something that must not be disturbed."""
    outcome = _attached(arguments, words)
    for _ in range(0 if is_stopped(arguments.pid) else _ATTEMPTS):
        if (outcome.get("error") or {}).get("code") != BUSY:
            break
        outcome = _attached(arguments, words)
    return outcome


def _attached(arguments: argparse.Namespace, words: list[str]) -> Outcome:
    """One `hotpatch` in a debugger that is attached for it. The program is stopped from the attach to the detach."""
    pid: int = arguments.pid
    was_stopped = is_stopped(pid)
    deadline = time.monotonic() + arguments.timeout
    debugger = find_debugger(arguments.debugger)
    session = (GdbSession if arguments.debugger == "gdb" else LldbSession)(debugger, pid, deadline)
    try:
        with session:
            began = session.attach()
            outcome = session.hotpatch(shlex.join(words))
            session.close()
            outcome.setdefault("times", {})["stopped"] = (time.perf_counter() - began) * 1000
            return outcome
    finally:
        settle(pid, was_stopped)


def _tell(as_json: bool) -> Callable[[str], None]:
    # The rest is over before anybody has read of it.
    return lambda text: print(text, file=sys.stderr) if not as_json and text.startswith(_SLOW) else None


@contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP take the way of Ctrl-C: detach first."""

    def stop(*unused: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def process_id(text: str) -> int:
    """As argparse wants it."""
    pid = int(text)
    if pid <= 0:
        raise ValueError(text)
    return pid
