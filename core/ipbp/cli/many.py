"""One command for many processes: each has its outcome, and there is one for all of them.

All plans are made before the first process is patched, so that refusals are known early and the time is short in which
some processes run new code and others old. Then one after the other is attached to. Processes that come up meanwhile (a
server that forks) are taken along at the end.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from ipbp.build.once import one_build
from ipbp.cli import attach
from ipbp.cli.arrivals import Arrivals, looks, program_of, wait_until_started
from ipbp.cli.atomic import ENDED, Newcomers, not_patched, patch_all_or_none
from ipbp.cli.lives import Lives
from ipbp.cli.outcome import Outcome, told
from ipbp.cli.processes import Chosen, chosen
from ipbp.cli.starts import HeldStarts, name_of, starts_of
from ipbp.cli.target import has_ended
from ipbp.errors import IpbpError
from ipbp.host.commands import failed
from ipbp.host.tally import NOT_REACHED, Tally

T = TypeVar("T")
_DONE = ("patched", "unchanged")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Many:
    """`show` gets the outcome of each process, with its `pid`, as soon as it is known."""

    def __init__(self, arguments: argparse.Namespace, show: Callable[[Outcome], None]) -> None:
        self._arguments = arguments
        self._show = show
        self._tally = Tally(arguments.verb)
        self._named: frozenset[int] = frozenset()
        self._is_interrupted = self._is_interruptible = False
        self._choice: Chosen | None = None
        self._starts: HeldStarts | Arrivals | None = None  # of `--follow`
        self._known: set[str] = set()
        self._seen: set[int] = set()  # of `--atomic`: processes with a plan
        self._stopped = 0.0  # milliseconds, of `--atomic`

    def run(self) -> Outcome:
        """The outcome of all. Errors: those of `chosen`."""
        before = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        try:
            return self._run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(self) -> Outcome:
        choice = chosen(self._arguments)
        self._choice, self._named = choice, choice.named
        if self._arguments.verb in ("undo", "status"):
            self._generations(choice, self._undo_or_look)
            return self._tally.total(choice.notes)
        from ipbp.pipeline.several import Plans  # which takes a while to load

        plans = Plans()
        with one_build():
            act = partial(self._plan_and_patch, plans.plan)
            if getattr(self._arguments, "follow", False):
                self._follow(choice, act)
            else:
                self._generations(choice, act)
        notes = [*choice.notes, *([self._starts.note] if self._starts is not None and self._starts.note else [])]
        return {**self._tally.total(notes, self._stopped), "plans": plans.made}

    def _interruptibly(self, action: Callable[[], T]) -> T:
        """What this returns. A signal that comes meanwhile is a `KeyboardInterrupt`; after one that comes at any other
        time nothing is begun any more."""
        self._is_interruptible = True
        try:
            return action()
        finally:
            self._is_interruptible = False

    def _interrupt(self, *unused: object) -> None:
        self._is_interrupted = True
        if self._is_interruptible:
            self._is_interruptible = False
            raise KeyboardInterrupt

    def _generations(self, choice: Chosen, act: Callable[[Sequence[int]], None]) -> None:
        pids = self._unknown(choice.pids)
        while pids:
            act(pids)
            pids = [] if self._is_interrupted else self._unknown(choice.again())

    def _unknown(self, pids: Iterable[int]) -> list[int]:
        """Those that were not looked at yet; a process that has replaced its program is another one."""
        found = []
        for pid in pids:
            name = name_of(pid)
            if name not in self._known:
                self._known.add(name)
                found.append(pid)
        return found

    def _follow(self, choice: Chosen, act: Callable[[Sequence[int]], None]) -> None:
        """Patch these, and then what is started, until Ctrl-C, or until all that were named have ended."""
        try:
            with starts_of(choice.named) as starts, Lives(choice.named) as lives:
                self._starts = starts
                act(self._unknown(choice.pids))
                # Something was started before it was watched for, perhaps.
                self._take(looks(partial(starts.settled, choice.again)), act)
                while not self._is_interrupted and self._interruptibly(partial(lives.wait, starts.file)):
                    self._take(starts.started(choice.again), act)
        except KeyboardInterrupt:
            return

    def _take(self, found: Iterator[Sequence[int]], act: Callable[[Sequence[int]], None]) -> None:
        assert self._starts is not None
        while not self._is_interrupted:
            pids = self._interruptibly(partial(next, found, None))
            if pids is None:
                return
            unknown = self._unknown(pids)
            fresh = [pid for pid in pids if pid in unknown or self._waits(pid)]
            for pid in fresh:
                wait_until_started(pid)
            act(fresh)
            self._starts.let_go(pids)

    def _waits(self, pid: int) -> bool:
        """Whether it is held and not patched yet: it may have been looked at while it was being started."""
        assert self._starts is not None
        return self._starts.is_held(pid) and self._tally.outcomes.get(pid, {}).get("outcome") not in _DONE

    def _undo_or_look(self, pids: Iterable[int]) -> None:
        act = attach.undo if self._arguments.verb == "undo" else attach.status
        for pid in pids:
            self._settle(pid, partial(act, self._arguments, pid))

    def _plan_and_patch(self, plan: attach.Planner, pids: Iterable[int]) -> None:
        prepared: list[attach.Prepared] = []

        def prepare(pid: int) -> Outcome | None:
            row = attach.prepare(self._arguments, pid, plan)
            self._known.add(row.journal.folder.name)  # it may have replaced its program since it was listed
            if row.outcome is None and self._arguments.verb == "apply":
                prepared.append(row)
                return None
            return attach.preview(row)

        for pid in pids:
            self._settle(pid, partial(prepare, pid))
        self._watch(pids)
        if getattr(self._arguments, "atomic", False):
            self._patch_all_or_none(prepared, partial(self._plan_of_newcomers, plan))
            return
        for row in prepared:
            self._settle(row.pid, partial(attach.patch, self._arguments, row, plan))

    def _watch(self, pids: Iterable[int]) -> None:
        """Hold what is started of these programs from now on. Not before, since a compile takes its time; and not after
        the first of them is patched, since what is started then would be missed."""
        if self._starts is not None and not self._is_interrupted:
            files = [] if self._arguments.exe is None else [str(self._arguments.exe)]
            self._starts.watch([*files, *map(program_of, pids)])

    def _patch_all_or_none(self, prepared: Sequence[attach.Prepared], newcomers: Newcomers) -> None:
        self._seen = {*self._tally.outcomes, *(row.pid for row in prepared)}
        bad = self._tally.failed()
        if bad:
            outcomes: dict[int, Outcome] = {row.pid: failed(not_patched(bad)) for row in prepared}
        elif prepared:
            outcomes, self._stopped = patch_all_or_none(
                self._arguments, prepared, newcomers, self._named, self._interruptibly
            )
        else:
            outcomes = {}
        for pid, outcome in outcomes.items():
            self._show(self._tally.add(pid, outcome))

    def _plan_of_newcomers(self, plan: attach.Planner) -> list[attach.Prepared]:
        assert self._choice is not None
        rows = []
        for pid in self._choice.again():
            if pid in self._seen:
                continue
            self._seen.add(pid)
            try:
                row = attach.prepare(self._arguments, pid, plan)
            except IpbpError as error:
                self._settle(pid, partial(failed, error))
                if self._tally.outcomes[pid].get("has_ended"):
                    continue
                raise not_patched(pid) from error
            if row.outcome is None:
                rows.append(row)
            else:
                self._settle(pid, partial(attach.preview, row))
        return rows

    def _settle(self, pid: int, action: Callable[[], Outcome | None]) -> None:
        """Do this for a process, unless it was interrupted before; what comes of it is the outcome of the process, when
        it has one yet."""
        outcome = failed(NOT_REACHED) if self._is_interrupted else told(partial(self._interruptibly, action))
        if outcome is None:
            return
        if outcome["outcome"] == "error" and pid not in self._named and has_ended(pid):
            outcome = ENDED
        if outcome["outcome"] == "error" and pid not in self._named and self._is_another(pid):
            return  # it is found again as that
        if outcome["outcome"] == "patched" and self._starts is not None and self._starts.is_held(pid):
            outcome["notes"] = [*outcome.get("notes", ()), "it was held before `main` until it was patched"]
        self._show(self._tally.add(pid, outcome))

    def _is_another(self, pid: int) -> bool:
        """Whether it has replaced its program since it was looked at, while newcomers are waited for."""
        return self._starts is not None and name_of(pid) not in (str(pid), *self._known)
