"""Which processes a command is about: those that were named, with their children, or all that run one program.

Children are looked for from the parent on, as they are now. A child that has replaced itself by another program
(execve(2)) is not one to patch; one that runs the parent's program is, whether it was forked or executed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ipbp.errors import IpbpError
from ipbp.host import tasks

_DELETED = " (deleted)"  # what readlink(2) of /proc/PID/exe ends in when the file has been removed or replaced
_COMM = 15  # characters of a name that the kernel keeps (proc_pid_comm(5))


@dataclass(frozen=True)
class Chosen:
    """`pids`, each once. `named`: those that were given by number, which must be there. `again`: those that the same
    words mean now. `notes`: what to say of the choice."""

    pids: tuple[int, ...]
    named: frozenset[int]
    again: Callable[[], tuple[int, ...]]
    notes: tuple[str, ...] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The words that choose processes."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pid", type=process_ids, metavar="PID[,PID...]", help="the running program, or several")
    which.add_argument("--exe", type=Path, metavar="PATH", help="every process that runs this program")
    parser.add_argument("--children", action="store_true", help="and every process that was forked from these")


def is_one(arguments: argparse.Namespace) -> bool:
    """Whether the user means one process, by its number."""
    return arguments.pid is not None and len(arguments.pid) == 1 and not arguments.children


def chosen(arguments: argparse.Namespace) -> Chosen:
    """The processes of these words. `usage` when there is no such program."""
    if arguments.exe is not None:
        path = arguments.exe.absolute()
        if not path.is_file() and not _runs_deleted(path):
            raise IpbpError("usage", f"there is no program {path}", "Name the file that the processes run.")

        def running() -> tuple[int, ...]:
            pids = users_of(path)
            return with_descendants(pids) if arguments.children else pids

        return Chosen(running(), frozenset(), running, _out_of_sight(path))
    named: tuple[int, ...] = tuple(dict.fromkeys(arguments.pid))
    notes = tuple(f"process {pid} was named more than once" for pid in named if arguments.pid.count(pid) > 1)
    if not arguments.children:
        return Chosen(named, frozenset(named), lambda: named, notes)

    def family() -> tuple[int, ...]:
        return with_descendants(named)

    return Chosen(family(), frozenset(named), family, notes)


def process_id(text: str) -> int:
    """As argparse wants it."""
    pid = int(text)
    if pid <= 0:
        raise ValueError(text)
    return pid


def process_ids(text: str) -> list[int]:
    """Numbers with commas or spaces between them, as pgrep and pidof print them; duplicates stay."""
    pids = [process_id(word) for word in text.replace(",", " ").split()]
    if not pids:
        raise ValueError(text)
    return pids


def with_descendants(pids: Iterable[int]) -> tuple[int, ...]:
    """Each of these before its children and their children, as far as they run the program that it runs."""
    parents = _children()
    found: dict[int, None] = {}

    def add(pid: int, program: object) -> None:
        found[pid] = None
        for child in parents.get(pid, ()):
            if child not in found and (program is None or tasks.program(child) == program):
                add(child, program)

    for pid in pids:
        add(pid, tasks.program(pid))
    return tuple(found)


def users_of(path: Path) -> tuple[int, ...]:
    """All that run this file, or that ran a file of this name which is gone since; parents before their children."""
    found = [pid for pid in _processes() if _runs(pid, path)]
    return tuple(sorted(found, key=lambda pid: (_start(pid), pid)))


def _runs(pid: int, path: Path) -> bool:
    link = f"/proc/{pid}/exe"
    try:
        name = os.readlink(link)
        if name.endswith(_DELETED):
            return name.removesuffix(_DELETED) == os.path.realpath(path)
        return path.exists() and os.path.samestat(os.stat(link), path.stat())
    except OSError:  # it has ended, or is somebody else's
        return False


def _runs_deleted(path: Path) -> bool:
    return any(_runs(pid, path) for pid in _processes())


def _out_of_sight(path: Path) -> tuple[str, ...]:
    """Processes of others that may run the program, for all that one may know of them."""
    hidden = []
    for pid in _processes():
        try:
            os.readlink(f"/proc/{pid}/exe")
        except PermissionError:
            if _comm(pid) == path.name[:_COMM]:
                hidden.append(str(pid))
        except OSError:  # it has ended, or is a thread of the kernel
            continue
    if not hidden:
        return ()
    return (f"you may not look at {', '.join(hidden)}, which may run {path.name}, too: run ipbp as their user",)


def _children() -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for pid in sorted(_processes(), key=lambda pid: (_start(pid), pid)):
        fields = _stat(pid)
        if fields and fields[0] not in ("Z", "X"):
            rows.setdefault(int(fields[1]), []).append(pid)
    return rows


def _start(pid: int) -> int:
    # Clock ticks after boot: field 22 (proc_pid_stat(5)).
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _stat(pid: int) -> list[str]:
    # From field 3 on; [] when it has ended.
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())
