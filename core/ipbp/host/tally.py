"""What became of many processes together: from the outcome of each to one for all, with an exit status.

Exit status: 0 all are patched, or there was nothing to do; 3 refused, none is patched; 5 some are patched (or have
nothing to do) and some are not; 1 anything else. A preview that would change nothing is 4.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Sequence

from ipbp.errors import IpbpError

Outcome = dict[str, Any]

NOT_REACHED = IpbpError("interrupted", "interrupted before this process was reached", "It is untouched; try again.")
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
_SOME = 5


class Tally:
    """Outcomes as they come. `verb`: what was to be done."""

    def __init__(self, verb: str) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self._verb = verb
        self._patched: list[float] = []  # when, by time.perf_counter()

    def add(self, pid: int, outcome: Outcome) -> Outcome:
        """The outcome of a process, with its number."""
        if (outcome.get("error") or {}).get("code") == "nothing-to-undo":
            outcome = {"outcome": "ok", "text": "no patch is applied"}
        if outcome["outcome"] in ("patched", "undone"):
            self._patched.append(time.perf_counter())
        self.outcomes[pid] = {**outcome, "pid": pid}
        return self.outcomes[pid]

    def failed(self) -> int:
        """A process that was refused or failed; 0 for none."""
        return next((pid for pid, row in self.outcomes.items() if _kind(row) in ("refused", "failed")), 0)

    def total(self, notes: Sequence[str] = (), stopped: float = 0.0) -> Outcome:
        """One for all. `stopped`: for how many milliseconds all of them were stopped together."""
        counts = Counter(_kind(row) for row in self.outcomes.values())
        status = _status(counts)
        between = 1000 * (self._patched[-1] - self._patched[0]) if self._patched and not stopped else 0.0
        return {
            "outcome": "partly" if status == _SOME else _main(counts),
            "summary": {"processes": len(self.outcomes), **{kind: counts[kind] for kind in _SAID if counts[kind]}},
            "between": round(between, 3),
            "stopped": round(stopped, 3),
            "status": status if status or self._verb != "preview" or counts["planned"] else 4,
            "notes": list(notes),
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


def _main(counts: "Counter[str]") -> str:
    """The word for all of them: what went wrong, else what was done."""
    order = ("failed", "refused", "patched", "undone", "planned", "unchanged", "ok")
    word = next((kind for kind in order if counts[kind]), "unchanged")
    return "error" if word == "failed" else word


def _status(counts: "Counter[str]") -> int:
    if not counts["refused"] and not counts["failed"]:
        return 0
    if any(counts[kind] for kind in _DONE):
        return _SOME
    return 1 if counts["failed"] else 3
