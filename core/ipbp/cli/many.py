"""One command for many processes: each has its outcome, and there is one for all of them.

All plans are made before the first process is patched, so that refusals are known early and the time is short in which
some processes run new code and others old. Then one after the other is attached to. Processes that come up meanwhile (a
server that forks) are taken along at the end.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from ipbp.build.once import one_build
from ipbp.cli import attach
from ipbp.cli.atomic import ENDED, Newcomers, not_patched, patch_all_or_none
from ipbp.cli.outcome import Outcome, told
from ipbp.cli.processes import Chosen, chosen
from ipbp.cli.target import has_ended
from ipbp.errors import IpbpError
from ipbp.host.commands import failed

T = TypeVar("T")

_NOT_REACHED = IpbpError("interrupted", "interrupted before this process was reached", "It is untouched; try again.")
_SAID = {
    "patched": "patched",
    "undone": "undone",
    "planned": "to be patched",
    "unchanged": "with nothing to do",
    "ok": "looked at",
    "ended": "ended meanwhile",
    "refused": "refused",
    "failed": "failed",
}
"""What processes are counted by, and how that is said."""
_DONE = ("patched", "undone", "planned", "unchanged", "ok")


class Many:
    """`show` gets the outcome of each process, with its `pid`, as soon as it is known."""

    def __init__(self, arguments: argparse.Namespace, show: Callable[[Outcome], None]) -> None:
        self._arguments = arguments
        self._show = show
        self._outcomes: dict[int, Outcome] = {}
        self._named: frozenset[int] = frozenset()
        self._is_interrupted = False
        self._choice: Chosen | None = None
        self._seen: set[int] = set()  # of `--atomic`: processes with a plan
        self._stopped = 0.0  # milliseconds, of `--atomic`
        self._patched: list[float] = []  # when, by time.perf_counter()

    def run(self) -> Outcome:
        """The outcome of all. Errors: those of `chosen`."""
        choice = chosen(self._arguments)
        self._choice, self._named = choice, choice.named
        if self._arguments.verb in ("undo", "status"):
            self._generations(choice, self._undo_or_look)
            return self._total(choice)
        from ipbp.pipeline.several import Plans  # which takes a while to load

        plans = Plans()
        with one_build():
            self._generations(choice, partial(self._plan_and_patch, plans.plan))
        return {**self._total(choice), "plans": plans.made}

    def _generations(self, choice: Chosen, act: Callable[[Sequence[int]], None]) -> None:
        pids: Sequence[int] = choice.pids
        while pids:
            act(pids)
            pids = [] if self._is_interrupted else [pid for pid in choice.again() if pid not in self._outcomes]

    def _undo_or_look(self, pids: Iterable[int]) -> None:
        act = attach.undo if self._arguments.verb == "undo" else attach.status
        for pid in pids:
            self._settle(pid, partial(act, self._arguments, pid))

    def _plan_and_patch(self, plan: attach.Planner, pids: Iterable[int]) -> None:
        prepared: list[attach.Prepared] = []

        def prepare(pid: int) -> Outcome | None:
            row = attach.prepare(self._arguments, pid, plan)
            if row.outcome is None and self._arguments.verb == "apply":
                prepared.append(row)
                return None
            return attach.preview(row)

        for pid in pids:
            self._settle(pid, partial(prepare, pid))
        if getattr(self._arguments, "atomic", False):
            self._patch_all_or_none(prepared, partial(self._plan_of_newcomers, plan))
            return
        for row in prepared:
            self._settle(row.pid, partial(attach.patch, self._arguments, row, plan))

    def _patch_all_or_none(self, prepared: Sequence[attach.Prepared], newcomers: Newcomers) -> None:
        self._seen = {*self._outcomes, *(row.pid for row in prepared)}
        bad = next((pid for pid, row in self._outcomes.items() if _kind(row) in ("refused", "failed")), 0)
        if bad:
            outcomes: dict[int, Outcome] = {row.pid: failed(not_patched(bad)) for row in prepared}
        elif prepared:
            outcomes, self._stopped = patch_all_or_none(self._arguments, prepared, newcomers, self._named)
        else:
            outcomes = {}
        for pid, outcome in outcomes.items():
            self._settle(pid, partial(dict, outcome))

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
                if self._outcomes[pid].get("has_ended"):
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
        outcome = failed(_NOT_REACHED) if self._is_interrupted else told(action)
        if outcome is None:
            return
        code = (outcome.get("error") or {}).get("code")
        self._is_interrupted = self._is_interrupted or code == "interrupted"
        if code == "nothing-to-undo":
            outcome = {"outcome": "ok", "text": "no patch is applied"}
        elif outcome["outcome"] == "error" and pid not in self._named and has_ended(pid):
            outcome = ENDED
        if outcome["outcome"] in ("patched", "undone"):
            self._patched.append(time.perf_counter())
        self._outcomes[pid] = {**outcome, "pid": pid}
        self._show(self._outcomes[pid])

    def _total(self, choice: Chosen) -> Outcome:
        counts = Counter(map(_kind, self._outcomes.values()))
        status = _status(counts)
        between = 1000 * (self._patched[-1] - self._patched[0]) if self._patched else 0.0
        return {
            "outcome": "partly" if status == 5 else _main(counts),
            "summary": {"processes": len(self._outcomes), **{kind: counts[kind] for kind in _SAID if counts[kind]}},
            "between": 0.0 if self._stopped else round(between, 3),
            "stopped": round(self._stopped, 3),
            "status": status if status or self._arguments.verb != "preview" or counts["planned"] else 4,
            "notes": list(choice.notes),
        }


def as_text(total: Outcome) -> str:
    """Lines for people."""
    counts = dict(total["summary"])
    number = counts.pop("processes")
    said = ", ".join(f"{count} {_SAID[kind]}" for kind, count in counts.items())
    several = f"{number} process" + ("es" if number != 1 else "")
    more = [f"{total['plans']} plan" + ("s" if total["plans"] != 1 else "")] if total.get("plans") else []
    if total["stopped"]:
        more.append(f"all stopped together, for {total['stopped']:.0f} ms")
    if total["between"]:
        more.append(f"{total['between']:.0f} ms from the first to the last")
    text = f"{several}: {said}" if counts else "there is no such process: nothing to do"
    notes = "".join(f"\n  note: {note}" for note in total["notes"])
    times = f"   ({', '.join(more)})" if more else ""
    return f"{text}{times}{notes}\n"


def _kind(outcome: Outcome) -> str:
    if outcome.get("has_ended"):
        return "ended"
    return str(outcome["outcome"]) if outcome["outcome"] in _SAID else "failed"


def _main(counts: Counter[str]) -> str:
    """The word for all of them: what went wrong, else what was done."""
    order = ("failed", "refused", "patched", "undone", "planned", "unchanged", "ok")
    word = next((kind for kind in order if counts[kind]), "unchanged")
    return "error" if word == "failed" else word


def _status(counts: Counter[str]) -> int:
    if not counts["refused"] and not counts["failed"]:
        return 0
    if any(counts[kind] for kind in _DONE):
        return 5
    return 1 if counts["failed"] else 3
