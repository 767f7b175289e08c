"""Watch mode: a save of a source is a patch, for as long as it is on. The loop, wherever it runs.

What it needs is behind `Watched`: inside a debugger that is a thread's way to the debugger (`watch`), in a shell the
debugger that `ipbp` drives. A save that comes while another one is being compiled waits in the engine, and what came
together is one patch. Nothing that goes wrong with a save ends the watch: the next one is tried again.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Protocol

from ipbp.errors import IpbpError
from ipbp.host.commands import failed

Message = dict[str, Any]

_ABSENT = ("inferior-none", "inferior-gone", "process-missing", "process-ended")
_AGAIN = ("plan-outdated", "inferior-busy", "engine-died")
_TRIES = 5
_PAUSE = 0.3  # seconds between two looks whether there is a program now


class Watched(Protocol):
    """The program, and whoever patches it."""

    def params(self) -> Message:
        """What a request for a plan holds now. Errors: `inferior-*`."""

    def ask(self, verb: str, params: Message) -> Message:
        """The engine's answer."""

    def apply(self, plan: Message) -> Message:
        """The outcome of this plan, an error's as well."""

    def show(self, outcome: Message) -> None: ...

    def is_over(self) -> bool:
        """Whether watch mode was switched off."""

    def has_ended(self) -> bool:
        """Whether the program that `params` was last asked of has ended, or is about to: that explains whatever went
        wrong with it."""


class Loop:
    """`run` it; `follow` before that tells at once what is wrong. `waits_for_programs`: when one ends the next one is
    watched."""

    def __init__(self, watched: Watched, waits_for_programs: bool, sleep: Callable[[float], None] = time.sleep) -> None:
        self._watched = watched
        self._waits = waits_for_programs
        self._sleep = sleep
        self._pid = 0
        self._latest: Message = {}  # outcome
        self.files = 0
        self.patches = 0

    def run(self) -> None:
        """Until it is over, or nothing can be watched any more; then the reason was shown."""
        watched = self._watched
        answer: Message = {}
        failures = 0
        while not watched.is_over():
            try:
                self.follow()
                self._patch(is_saved=bool(answer.get("saved")))
                answer = watched.ask("saves", {"pid": self._pid})
                failures = 0
            except IpbpError as error:
                if watched.is_over():
                    return
                failures += 1
                if error.code not in _ABSENT and not watched.has_ended():
                    if error.code in _AGAIN and failures < _TRIES:
                        continue
                    watched.show(failed(error))
                    return
                answer, failures = {"is_gone": True}, 0
            if answer.get("is_gone"):
                if not self._waits:
                    return
                self._sleep(_PAUSE)

    def follow(self) -> None:
        """Look which files the program was built from. Errors: those of the engine, and `inferior-*`."""
        params = self._watched.params()
        self._pid = params["description"]["pid"]
        self.files = self._watched.ask("follow", params)["files"]

    def _patch(self, is_saved: bool) -> None:
        outcome = self._outcome()
        for _ in range(_TRIES):
            if _code(outcome) not in _AGAIN or self._watched.is_over():
                break
            outcome = self._outcome()
        if self._watched.is_over():
            return
        is_failure = outcome["outcome"] in ("error", "refused")
        if _code(outcome) in _ABSENT or (is_failure and self._watched.has_ended()):
            raise IpbpError("inferior-gone", "the program has ended", "Start it again.")
        self.patches += outcome["outcome"] == "patched"
        if is_saved or not _is_same(outcome, self._latest):
            self._show(outcome, is_saved)
        self._latest = outcome

    def _show(self, outcome: Message, is_saved: bool) -> None:
        # What was saved without an edit is no news.
        if outcome["outcome"] != "unchanged" or (is_saved and outcome.get("notes")):
            self._watched.show(outcome)

    def _outcome(self) -> Message:
        try:
            answer = self._watched.ask("plan", self._watched.params())
        except IpbpError as error:
            return failed(error)
        return answer if answer["outcome"] == "unchanged" else self._watched.apply(answer)


def _code(outcome: Message) -> str:
    return str((outcome.get("error") or {}).get("code", ""))


def _is_same(one: Message, other: Message) -> bool:
    """Whether both say the same failure: what was shown and is as it was is no news."""
    keys = ("outcome", "error", "refusals")
    return one["outcome"] not in ("patched", "unchanged") and all(one.get(key) == other.get(key) for key in keys)
