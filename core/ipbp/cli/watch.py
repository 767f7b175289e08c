"""`ipbp run --watch -- ./app arguments` and `ipbp attach --watch PID`: a save is a patch, with no debugger to type to.

A debugger is attached all the time, so that a patch stops the program for a few milliseconds only. It lives in a
session of its own: the terminal, Ctrl-C included, is the program's (`run`) or ours (`attach`). Plans are made here.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from ipbp.cli.attach import add_build_options
from ipbp.cli.bystander import Bystander
from ipbp.cli.consent import with_consent
from ipbp.cli.debuggers import DEBUGGERS, find_debugger
from ipbp.cli.gdb_session import GdbSession
from ipbp.cli.lldb_session import LldbSession
from ipbp.cli.outcome import Outcome, told
from ipbp.cli.processes import process_id
from ipbp.cli.target import check_attachable, is_stopped, settle
from ipbp.errors import IpbpError
from ipbp.host import render, tasks
from ipbp.host.commands import bug, plan_params
from ipbp.host.inherited import inherit
from ipbp.host.journal import open_journal
from ipbp.host.plain_path import plain_path
from ipbp.host.private import write_private
from ipbp.host.unloaded import forget_unloaded
from ipbp.host.watch_loop import Loop

if TYPE_CHECKING:
    from ipbp.build.saves import Saves

Message = dict[str, Any]

_PATIENCE = 60.0  # seconds for one thing that the debugger is told
_PR_SET_PTRACER = 0x59616D61  # prctl(2): Yama lets only a parent debug unless the process says otherwise
_ANYBODY = ctypes.c_ulong(-1)


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for verb, what in (("run", "start a program"), ("attach", "attach to a program")):
        parser = subparsers.add_parser(verb, help=f"{what}; a save of a source is a patch")
        parser.add_argument("--watch", action="store_true", required=True, help="say that saves are patches")
        parser.add_argument("--debugger", choices=DEBUGGERS, default="gdb", help="which to attach with (gdb)")
        add_build_options(parser)
        if verb == "run":
            parser.add_argument("program", nargs="+", help="-- program [arguments ...]")
        else:
            parser.add_argument("pid", type=process_id, help="the running program")
        # The terminal of `run` is the program's: nothing is asked there.
        parser.set_defaults(run=run if verb == "run" else attach, asks=verb == "attach")


def run(arguments: argparse.Namespace) -> int:
    """Start the program in our terminal and watch it to its end; its exit status, 128 + N when signal N ended it."""
    find_debugger(arguments.debugger)
    try:
        process = subprocess.Popen(arguments.program, preexec_fn=_let_anybody_debug)
    except OSError as error:
        fact = f"{arguments.program[0]} cannot be started: {error.strerror}"
        raise IpbpError("program-start", fact, "Name a program; its arguments follow it.") from error
    with _signals(lambda number: None, signal.SIGINT, signal.SIGQUIT), _signals(process.send_signal, signal.SIGTERM):
        failure = told(lambda: _watch(arguments, process.pid, lambda: process.poll() is None))
        if failure is not None:  # the program goes on without being watched
            _show(failure)
        status = process.wait()
    return 128 - status if status < 0 else status


def attach(arguments: argparse.Namespace) -> int:
    """Watch a running program until it ends or Ctrl-C is pressed; then it goes on alone."""
    check_attachable(arguments.pid)
    was_stopped = is_stopped(arguments.pid)
    is_over = False

    def end(number: int) -> None:
        nonlocal is_over
        is_over = True

    try:
        with _signals(end, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            _watch(arguments, arguments.pid, lambda: not is_over)
    finally:
        settle(arguments.pid, was_stopped)
    return 0


def _watch(arguments: argparse.Namespace, pid: int, is_wanted: Callable[[], bool]) -> None:
    watched = _Watched(arguments, pid, is_wanted)
    loop = Loop(watched, waits_for_programs=False)
    loop.follow()
    _say(f"{loop.files} files of process {pid} are watched: a save is a patch")
    kind = GdbSession if arguments.debugger == "gdb" else LldbSession
    with closing(watched), kind(find_debugger(arguments.debugger), pid, time.monotonic() + _PATIENCE) as session:
        session.attach()
        session.resume()
        watched.session = session
        loop.run()


class _Watched:
    """It implements `ipbp.host.watch_loop.Watched`."""

    def __init__(self, arguments: argparse.Namespace, pid: int, is_wanted: Callable[[], bool]) -> None:
        self._arguments = arguments
        self._pid = pid
        self._is_wanted = is_wanted
        self._saves: Saves | None = None
        self.session: GdbSession | LldbSession | None = None

    def close(self) -> None:
        if self._saves is not None:
            self._saves.close()

    def params(self) -> Message:
        inferior = Bystander(self._pid)
        journal = open_journal(self._pid)
        inherit(journal, inferior)
        forget_unloaded(journal, inferior)
        colour = sys.stderr.isatty()
        return plan_params(inferior.describe(), inferior.regions(), journal, colour, vars(self._arguments))

    def ask(self, verb: str, params: Message) -> Message:
        try:
            return self._answer(verb, params)
        except IpbpError:
            raise
        except Exception as error:  # as an engine answers: whatever goes wrong with a save, the next one counts
            raise bug(error) from error

    def _answer(self, verb: str, params: Message) -> Message:
        # Only here: the stages bring numpy and the readers with them, which take half a second to load.
        from ipbp.build.saves import Saves
        from ipbp.pipeline.order import make_plan
        from ipbp.pipeline.request import Request
        from ipbp.pipeline.watching import files_of_program, next_saves

        if self._saves is None:
            self._saves = Saves()
        if verb == "saves":
            return next_saves(self._saves, self._pid, self._is_quiet)
        read = Bystander(self._pid).read_ranges
        if verb == "follow":
            files = with_consent(self._arguments, lambda: files_of_program(Request.from_json(params), read))
            return {"files": self._saves.follow(files)}
        request = Request.from_json(params)
        planned = with_consent(self._arguments, lambda: make_plan(request, read, lambda text: None))
        if planned.plan is None:
            return {"outcome": "unchanged", "notes": list(planned.notes), "times": planned.times}
        return {"outcome": "planned", "plan": planned.plan.to_json()}

    def apply(self, plan: Message) -> Message:
        assert self.session is not None
        file = open_journal(self._pid).folder / f"plan-{plan['plan']['number']}.json"
        write_private(file, json.dumps(plan))
        self.session.allow(_PATIENCE)
        try:
            return self.session.hotpatch(f"apply --json --plan {shlex.quote(plain_path(str(file)))}")
        finally:
            file.unlink(missing_ok=True)

    def show(self, outcome: Outcome) -> None:
        _show(outcome)

    def is_over(self) -> bool:
        return not self._is_wanted()

    def has_ended(self) -> bool:
        return tasks.is_ending(self._pid)

    def _is_quiet(self) -> bool:
        if self.session is not None:
            self.session.drain()
        return self._is_wanted()


def _show(outcome: Outcome) -> None:
    _say(render.as_text(outcome).rstrip("\n"))


def _say(text: str) -> None:
    print(f"ipbp: {text}", file=sys.stderr, flush=True)


def _let_anybody_debug() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)


@contextmanager
def _signals(act: Callable[[int], object], *numbers: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, lambda number, frame: act(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
