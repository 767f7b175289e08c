"""`hotpatch watch on|off` in a debugger: a thread of ours that follows the user's saves and patches.

The debugger belongs to the user meanwhile. The thread therefore has an engine of its own, which waits for saves and
makes the plans; everything that asks the debugger goes through `Debugger.do`, and a patch is applied by the same
command that the user would type.
"""

from __future__ import annotations

import argparse
import json
import shlex
import threading
import time
from typing import Any, Callable, Optional, Protocol, TypeVar

from ipbp.errors import IpbpError
from ipbp.host import commands, render, session_log, tasks
from ipbp.host.client import Client, find_python
from ipbp.host.consent import request_with_consent
from ipbp.host.inferior import Inferior
from ipbp.host.journal import open_journal
from ipbp.host.private import write_private
from ipbp.host.watch_loop import Loop, Message
from ipbp.protocol import Description

T = TypeVar("T")

_POLL = 0.05  # seconds between two looks whether the debugger is ready for a patch
_GOODBYE = 5.0  # seconds in which the thread must have ended


class Debugger(Protocol):
    """The debugger as a thread of ours sees it."""

    is_terminal: bool

    def inferior(self, report: Callable[[IpbpError], None]) -> Inferior:
        """`report`: gets what goes wrong when nobody waits for it any more."""

    def do(self, action: Callable[[], T], is_over: Callable[[], bool]) -> T:
        """Carry this out where and when the debugger may be asked, and wait for it. Errors: those of `action`;
        `interrupted` once `is_over`."""

    def is_ready(self) -> bool:
        """Whether a patch may be applied now: nothing of the user's is under way that it would spoil. Called by
        `do`."""

    def show(self, text: str, is_over: Callable[[], bool]) -> None: ...

    def start(self, thread: threading.Thread) -> None: ...


_watches: list[Watch] = []
"""At most one."""


def switch(command: commands.Command, options: argparse.Namespace, debugger: Debugger) -> Message:
    """The outcome of `hotpatch watch [on|off]`. Errors: those of `Loop.follow`."""
    watch = next((watch for watch in _watches if watch.is_alive()), None)
    if options.state == "off":
        if watch is not None:
            watch.end()
        return {"outcome": "ok", "text": "saves are not watched any more" if watch else "watch mode is off"}
    if options.state == "on" and watch is None:
        watch = Watch(debugger, vars(options))
        watch.begin(command)
        _watches[:] = [watch]
    return {"outcome": "ok", "text": watch.text() if watch else "watch mode is off; `hotpatch watch on` begins it"}


class Watch:
    """Watch mode while it is on. It implements `watch_loop.Watched`."""

    def __init__(self, debugger: Debugger, options: dict[str, Any]) -> None:
        self._debugger = debugger
        self._options = options
        self._client = Client(find_python())
        self._pid = 0
        self._loop = Loop(self, waits_for_programs=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ipbp-watch", daemon=True)

    def begin(self, command: commands.Command) -> None:
        """Start, unless what is running cannot be watched; the error then says why. No program yet is fine."""
        try:
            _require_local(command.inferior.describe())
            params = command.plan_params(argparse.Namespace(**self._options), command.journal())
        except IpbpError as error:
            if error.code not in ("inferior-none", "inferior-gone"):
                raise
        else:

            def request(verb: str, params: Message) -> Message:
                return self._client.request(verb, params, command.answer, interrupted=command.console.is_interrupted)

            asked = request_with_consent(request, "follow", params, command.confirm)
            self._loop.files = asked["files"]
        self._debugger.start(self._thread)

    def end(self) -> None:
        """Switch it off. A patch that is being applied is finished by the debugger."""
        self._over.set()
        deadline = time.monotonic() + _GOODBYE
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(_POLL)

    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self.is_over()

    def is_over(self) -> bool:
        return self._over.is_set()

    def has_ended(self) -> bool:
        return bool(self._pid) and tasks.is_ending(self._pid)

    def text(self) -> str:
        """How it stands, for the user."""
        loop = self._loop
        count = f", {loop.patches} {'patch' if loop.patches == 1 else 'patches'} so far" if loop.patches else ""
        what = f"{loop.files} files of the program are watched" if loop.files else "the sources are watched"
        return f"{what}{count}: a save is a patch (`hotpatch watch off` ends it)"

    def params(self) -> Message:
        return self._debugger.do(self._params, self.is_over)

    def ask(self, verb: str, params: Message) -> Message:
        def serve(question: str, wanted: Message) -> Message:
            return self._debugger.do(lambda: self._command(_Silent()).answer(question, wanted), self.is_over)

        return self._client.request(verb, params, serve, interrupted=self.is_over)

    def apply(self, plan: Message) -> Message:
        file = open_journal(self._pid).folder / f"plan-{plan['plan']['number']}.json"
        write_private(file, json.dumps(plan))
        console = _Silent()
        try:
            self._when_ready(lambda: self._applied(str(file), console))
            while not console.is_done.wait(_POLL):
                if self.is_over():
                    break
        finally:
            file.unlink(missing_ok=True)  # Python 3.8
        return console.outcome

    def show(self, outcome: Message) -> None:
        if outcome["outcome"] != "patched":  # which the command has written down
            session_log.write(open_journal(self._pid).folder, outcome)
        self._debugger.show(render.as_text(outcome), self.is_over)

    def _run(self) -> None:
        try:
            self._loop.run()
        except IpbpError as error:
            if not self.is_over():
                self._report(error)
        except Exception as error:  # the border of the thread: a bug of ours is shown, and ends watch mode only
            self._report(commands.bug(error))
        finally:
            self._over.set()
            self._client.close()

    def _report(self, error: IpbpError) -> None:
        self._debugger.show(render.as_text(commands.failed(error)), lambda: False)

    def _command(self, console: _Silent) -> commands.Command:
        return commands.Command(self._debugger.inferior(console.fail), console, as_json=True)

    def _params(self) -> Message:
        command = self._command(_Silent())
        description = command.inferior.describe()
        self._pid = description.pid
        journal, colour = command.journal(), self._debugger.is_terminal
        return commands.plan_params(description, command.inferior.regions(), journal, colour, self._options)

    def _when_ready(self, action: Callable[[], None]) -> None:
        def act() -> bool:
            if not self._debugger.is_ready():
                return False
            action()
            return True

        while not self._debugger.do(act, self.is_over):
            if self._over.wait(_POLL):
                raise IpbpError("interrupted", "interrupted", "`hotpatch status` says what is applied.")

    def _applied(self, file: str, console: _Silent) -> None:
        commands.run(self._debugger.inferior(console.fail), f"apply --json --plan {shlex.quote(file)}", console)


def _require_local(description: Description) -> None:
    # What is loaded is looked at by this machine's kernel, and the program has to be patched while it runs.
    if not description.local:
        fact = "the program is behind a remote stub, where saves are not waited for"
        raise IpbpError("inferior-remote", fact, "Use `hotpatch` after each edit.")


class _Silent:
    """A console that keeps the outcome instead of showing it."""

    is_terminal = False

    def __init__(self) -> None:
        self.is_done = threading.Event()
        self.outcome: Message = {"outcome": "error", "error": None}

    def write(self, text: str) -> None:
        self.outcome = json.loads(text)
        self.is_done.set()

    def fail(self, error: IpbpError) -> None:
        self.write(render.as_json(commands.failed(error)))

    def is_interrupted(self) -> bool:
        return False

    def confirm(self, question: str) -> Optional[bool]:
        return None

    def debugger(self) -> Optional[Debugger]:
        return None
