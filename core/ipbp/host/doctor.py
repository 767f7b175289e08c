"""`hotpatch doctor`: everything that a patch needs, looked at one by one; each line is ok or says what to do."""

from __future__ import annotations

from typing import Any, Callable, Protocol

from ipbp.errors import IpbpError
from ipbp.host.inferior import Inferior
from ipbp.host.journal import Journal, open_journal
from ipbp.host.transaction import require_finished

Line = dict[str, Any]
"""`name`, `ok` and `text`."""


class Asks(Protocol):
    """The part of a command that the examination uses."""

    inferior: Inferior

    def ask(self, verb: str, params: dict[str, Any]) -> dict[str, Any]: ...


def examine(command: Asks, params: Callable[[], dict[str, Any]]) -> list[Line]:
    """The lines, from the debugger outwards. One that fails does not keep the others from being looked at.

    `params`: what a request for a plan would hold.
    """
    inferior = command.inferior
    lines = [
        _line("debugger", lambda: inferior.describe().debugger),
        _line("program", lambda: _program(inferior)),
        _line("permissions", lambda: _permissions(inferior)),
        _line("journal", lambda: _journal(_opened(inferior))),
        _line("engine", lambda: _engine(command.ask("hello", {}))),
    ]
    if all(line["ok"] for line in lines):
        try:
            lines += command.ask("doctor", params())["lines"]
        except IpbpError as error:
            lines.append({"name": "engine", "ok": False, "text": str(error)})
    return lines


def _opened(inferior: Inferior) -> Journal:
    described = inferior.describe()
    return open_journal(described.pid, described.remote)


def _line(name: str, look: Callable[[], str]) -> Line:
    try:
        return {"name": name, "ok": True, "text": look()}
    except IpbpError as error:
        return {"name": name, "ok": False, "text": str(error)}


def _program(inferior: Inferior) -> str:
    found = inferior.describe()
    how = "attached" if found.attached else "launched"
    return f"{found.executable} ({found.triple}), process {found.pid}, {how}"


def _permissions(inferior: Inferior) -> str:
    found = inferior.describe()
    code = next((region for region in inferior.regions() if "x" in region.protection), None)
    if code is None:
        raise IpbpError("inferior-memory", "the process has no code", "Start the program, then try again.")
    inferior.read(code.start, 16)
    if inferior.filters_calls(found.pid):
        raise IpbpError(
            "seccomp",
            "the process runs under a seccomp filter, which may kill it for a system call that it does not expect",
            "Start it without its sandbox to patch it.",
        )
    return "memory can be read; no seccomp filter"


def _journal(journal: Journal) -> str:
    count = len(journal.patches())
    require_finished(journal)
    journal.require_writable()
    return f"{journal.folder}, {count} {'patch' if count == 1 else 'patches'} in force"


def _engine(answer: dict[str, Any]) -> str:
    return f"ipbp {answer['version']}, Python {answer['python']}, process {answer['pid']}"
