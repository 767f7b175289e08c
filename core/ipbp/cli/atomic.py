"""All processes are patched, or none: all are stopped together, and none goes on before all have the new code.

Each has a debugger of its own. These are started before the first process is stopped; then all attach, and one process
after the other is patched. When one cannot be, those before it are undone: they never ran the new code. Processes
that were forked meanwhile are looked for once all are stopped, when none can fork any more, and patched with them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack, suppress

from ipbp.cli.attach import ATTEMPTS, Prepared, Session, debugging, is_busy, plan_words
from ipbp.cli.outcome import Outcome, told
from ipbp.cli.target import has_ended
from ipbp.errors import IpbpError
from ipbp.host.commands import failed

Newcomers = Callable[[], Sequence[Prepared]]
"""Plans for processes that were not there before. Errors: why one of them has none."""
Interruptibly = Callable[[Callable[[], Outcome | None]], Outcome | None]
ENDED: Outcome = {"outcome": "ok", "text": "it has ended meanwhile", "has_ended": True}
_NOT_ALL = "not-all"


def patch_all_or_none(
    arguments: argparse.Namespace,
    prepared: Sequence[Prepared],
    newcomers: Newcomers,
    named: Container[int],
    interruptibly: Interruptibly,
) -> tuple[dict[int, Outcome], float]:
    """The outcome of each process, and for how many milliseconds the first one was stopped. `named`: those that have to
    be there; another one that ends is none to patch. `interruptibly`: does what Ctrl-C may interrupt."""
    together = _Together(arguments, prepared, named)
    try:
        outcomes = together.patch(newcomers, interruptibly)
    finally:
        stopped = together.let_go()
    return outcomes, stopped


class _Together:
    """Processes that are patched together, each with a debugger; `let_go` must be called in the end."""

    def __init__(self, arguments: argparse.Namespace, prepared: Sequence[Prepared], named: Container[int]) -> None:
        self._arguments = arguments
        self._named = named
        self._rows = list(prepared)
        self._current = self._rows[0].pid
        self._open: dict[int, ExitStack] = {}
        self._sessions: dict[int, Session] = {}
        self._began = 0.0

    def patch(self, newcomers: Newcomers, interruptibly: Interruptibly) -> dict[int, Outcome]:
        """The outcome of each."""
        outcomes: dict[int, Outcome] = {}
        problem = told(lambda: interruptibly(lambda: self._patch(newcomers, outcomes)))
        if problem is None:
            return outcomes
        code = (problem.get("error") or {}).get("code")
        if code in ("interrupted", "debugger-timeout") and self._current in self._sessions:
            self._sessions[self._current].interrupt()  # it takes back what it has begun
        others = problem if code == _NOT_ALL else failed(not_patched(self._current))
        for pid in [row.pid for row in reversed(self._rows)]:
            is_patched = outcomes.get(pid, {}).get("outcome") == "patched"
            outcomes[pid] = self._take_back(pid) if is_patched else outcomes.get(pid, others)
        return {**outcomes, self._current: problem}

    def let_go(self) -> float:
        """All processes run on; the milliseconds for which the first one was stopped."""
        for session in self._sessions.values():
            with suppress(IpbpError, OSError):  # it is killed below, and the kernel lets the process go
                session.detach()
        stopped = 1000 * (time.perf_counter() - self._began) if self._began else 0.0
        with ExitStack() as every:  # which closes all, whatever one of them raises
            for stack in self._open.values():
                every.push(stack)
        return stopped

    def _patch(self, newcomers: Newcomers, outcomes: dict[int, Outcome]) -> Outcome | None:
        for row in self._rows:
            self._start(row.pid)
        for row in list(self._rows):
            self._attach(row.pid, outcomes)
        while more := newcomers():
            self._rows += more
            for row in more:
                self._start(row.pid)
                self._attach(row.pid, outcomes)
        # Beyond this point nothing of them runs, and nobody can fork one more.
        for row in self._rows:
            self._current = row.pid
            outcome = outcomes[row.pid] if row.pid in outcomes else self._apply(row)
            if outcome["outcome"] not in ("patched", "ok"):
                return outcome
            outcomes[row.pid] = outcome
        return None

    def _start(self, pid: int) -> None:
        self._current = pid
        stack = self._open[pid] = ExitStack()
        session = stack.enter_context(debugging(self._arguments, pid))
        session.load()
        self._sessions[pid] = session

    def _attach(self, pid: int, outcomes: dict[int, Outcome]) -> None:
        self._current = pid
        try:
            began = self._sessions[pid].attach()
        except IpbpError:
            if pid in self._named or not has_ended(pid):
                raise
            outcomes[pid] = ENDED
        else:
            self._began = self._began or began

    def _apply(self, row: Prepared) -> Outcome:
        with plan_words(row) as words:
            outcome = self._sessions[row.pid].hotpatch(words)
            for _ in range(ATTEMPTS):
                if not is_busy(outcome):
                    break
                # It gets on for a moment, in its old code, while the others wait.
                self._open[row.pid].close()
                self._start(row.pid)
                self._sessions[row.pid].attach()
                outcome = self._sessions[row.pid].hotpatch(words)
        return outcome

    def _take_back(self, pid: int) -> Outcome:
        outcome = told(lambda: self._sessions[pid].hotpatch("undo --json --our-stop"))
        if outcome is None or outcome["outcome"] == "undone":
            return failed(_taken_back(self._current))
        return outcome


def not_patched(pid: int) -> IpbpError:
    """What becomes of a process when this other one has no plan."""
    fact = f"not patched, because process {pid} cannot be: all or none were to be"
    return IpbpError(_NOT_ALL, fact, "See what is said of that process; this one is untouched.")


def _taken_back(pid: int) -> IpbpError:
    fact = f"patched and taken back before it ran on, because process {pid} cannot be patched: all or none were to be"
    return IpbpError(_NOT_ALL, fact, "See what is said of that process.")
