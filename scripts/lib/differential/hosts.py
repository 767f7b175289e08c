"""Who writes a plan into the program: gdb, lldb, or the core itself by ptrace(2); or nobody."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Protocol

from differential.traced import traced
from ipbp.cli.debuggers import find_debugger
from ipbp.cli.gdb_session import GdbSession
from ipbp.cli.lldb_session import LldbSession
from ipbp.cli.outcome import Outcome
from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.host import transaction
from ipbp.host.journal import open_journal
from ipbp.host.quiet import BUSY
from ipbp.protocol import PatchPlan

_SECONDS = 120.0
_ATTEMPTS = 20


class Host(Protocol):
    """Errors: `IpbpError`, with what the outcome of `hotpatch` says."""

    def apply(self, pid: int, plan: PatchPlan, folder: Path) -> None: ...

    def undo(self, pid: int) -> None: ...


def host(name: str) -> Host:
    if name == "idle":
        return IdleHost()
    return CoreHost() if name == "core" else DebuggerHost(name)


class IdleHost:
    """It says that it patched, and did not: what the test would make of a wrong patch."""

    def apply(self, pid: int, plan: PatchPlan, folder: Path) -> None:
        return

    def undo(self, pid: int) -> None:
        return


class CoreHost:
    """`ipbp.host.transaction` on a process that this one traces. Where it matters which words on a stack are return
    addresses, which takes an unwinder, gdb does it."""

    def apply(self, pid: int, plan: PatchPlan, folder: Path) -> None:
        prepared = transaction.prepare(plan)
        journal = open_journal(pid)
        journal.keep_record(prepared.entry)
        try:
            with traced(pid) as inferior:
                transaction.apply(inferior, prepared, journal)
        except IpbpError as error:
            codes = [row.code for row in error.refusals] if isinstance(error, Refused) else [error.code]
            if not set(codes) & {BUSY, "caller-running"}:
                raise
            DebuggerHost("gdb").apply(pid, plan, folder)

    def undo(self, pid: int) -> None:
        journal = open_journal(pid)
        with traced(pid) as inferior:
            transaction.undo(inferior, journal.patches()[-1], journal)
            transaction.give_back(inferior, journal)


class DebuggerHost:
    """A debugger that is attached for one `hotpatch`, as `ipbp apply` does it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def apply(self, pid: int, plan: PatchPlan, folder: Path) -> None:
        path = folder / "plan.json"
        path.write_text(json.dumps({"outcome": "planned", "plan": plan.to_json()}))
        self._hotpatch(pid, f"apply --json --our-stop --plan {path}", "patched")

    def undo(self, pid: int) -> None:
        self._hotpatch(pid, "undo --json --our-stop", "undone")

    def _hotpatch(self, pid: int, words: str, wanted: str) -> None:
        make = GdbSession if self._name == "gdb" else LldbSession
        for attempt in range(_ATTEMPTS):
            with make(find_debugger(self._name), pid, time.monotonic() + _SECONDS) as session:
                session.attach()
                outcome = session.hotpatch(words)
            if outcome["outcome"] == wanted:
                return
            error = outcome.get("error") or {}
            if error.get("code") != BUSY or attempt == _ATTEMPTS - 1:
                break
        raise failure(outcome)


def failure(outcome: Outcome) -> IpbpError:
    """The error that an outcome tells of."""
    if outcome["outcome"] == "refused":
        return Refused(Refusal.from_json(row) for row in outcome["refusals"])
    error = outcome.get("error") or {}
    return IpbpError(*(str(error.get(name, outcome)) for name in ("code", "fact", "advice", "detail")))
