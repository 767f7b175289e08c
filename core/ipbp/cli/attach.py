"""`ipbp apply|undo|preview|status --pid PID`: patch a running program from a shell, with no debugger open.

A debugger is attached for the time of one `hotpatch` and then detached. The program goes on running whatever happens
here: an error, a time-out, Ctrl-C, or our own end (the debugger's input then ends, and it detaches by itself).
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipbp.cli.debuggers import DEBUGGERS, find_debugger
from ipbp.cli.gdb_session import GdbSession
from ipbp.cli.lldb_session import LldbSession
from ipbp.cli.outcome import Outcome, status_of, text_of
from ipbp.cli.target import check_attachable, is_stopped, settle
from ipbp.errors import IpbpError

_VERBS = {
    "apply": "compile what was edited and patch the running program",
    "preview": "all of `apply` but the last step: what would change, and what is refused",
    "undo": "take back the newest patch, or all after patch N",
    "status": "patches, functions and memory of a running program",
}
_INTERRUPTED = IpbpError(
    "interrupted", "interrupted", "The program goes on running; `ipbp status` says what is applied."
)


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for verb, what in _VERBS.items():
        parser = subparsers.add_parser(verb, help=what, description=f"{what[0].upper()}{what[1:]}.")
        parser.add_argument("--pid", type=_pid, required=True, help="the running program")
        parser.add_argument("--debugger", choices=DEBUGGERS, default="gdb", help="which to attach with (gdb)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for all of it (600)")
        if verb in ("apply", "preview"):
            parser.add_argument("--build-dir", type=Path, metavar="DIR", help="where compile_commands.json is")
            parser.add_argument("--compile-commands", type=Path, metavar="FILE", help="the file itself")
        if verb == "undo":
            parser.add_argument("number", type=int, nargs="?", metavar="N", help="the patch that is to stay newest")
        parser.set_defaults(run=run, verb=verb)


def run(arguments: argparse.Namespace) -> int:
    """Attach, `hotpatch`, detach; print the outcome; its exit status."""
    try:
        with _ends_like_ctrl_c():
            outcome = _outcome(arguments)
    except IpbpError as error:
        outcome = {"outcome": "error", "error": error.to_json()}
    except KeyboardInterrupt:
        outcome = {"outcome": "error", "error": _INTERRUPTED.to_json()}
    if arguments.json:
        print(json.dumps(outcome))
    else:
        print(text_of(outcome), file=sys.stderr if outcome["outcome"] == "error" else sys.stdout)
    return status_of(outcome)


def hotpatch_words(arguments: argparse.Namespace) -> str:
    """The words after `hotpatch` that say what the shell's words said; paths made absolute for the debugger."""
    words = [arguments.verb, "--json"]
    for option in ("build_dir", "compile_commands"):
        path = getattr(arguments, option, None)
        if path is not None:
            words += ["--" + option.replace("_", "-"), str(path.absolute())]
    if getattr(arguments, "number", None) is not None:
        words.append(str(arguments.number))
    return shlex.join(words)


def _outcome(arguments: argparse.Namespace) -> Outcome:
    pid: int = arguments.pid
    check_attachable(pid)
    debugger = find_debugger(arguments.debugger)
    was_stopped = is_stopped(pid)
    deadline = time.monotonic() + arguments.timeout
    session = (GdbSession if arguments.debugger == "gdb" else LldbSession)(debugger, pid, deadline)
    try:
        with session:
            session.attach(let_it_run=not was_stopped)
            return session.hotpatch(hotpatch_words(arguments))
    finally:
        settle(pid, was_stopped)


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


def _pid(text: str) -> int:
    pid = int(text)
    if pid <= 0:
        raise ValueError(text)
    return pid
