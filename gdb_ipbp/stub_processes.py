"""The process behind a remote stub, made once for each program that runs there: one of Linux, or of Windows."""

from __future__ import annotations

import hashlib

import gdb

from gdb_ipbp.packets import packets_of
from gdb_ipbp.remote import RemoteProcess, is_running, runs
from gdb_ipbp.remote_link import auxiliary_vector, kernel_behind_stub
from gdb_ipbp.windows import WindowsProcess, windows_process_block


def process_behind_stub(is_new_command: bool = False) -> RemoteProcess:
    """What is known of the selected inferior, which is such a process. `is_new_command`: it may run another program
    since."""
    inferior = gdb.selected_inferior()
    number = (inferior.connection.num, inferior.num, inferior.pid)
    known = _processes.get(number)
    if known is not None and not is_new_command:
        return known
    if is_running():
        if known is None:
            raise runs()
        return known
    block = windows_process_block()
    vector = auxiliary_vector() if block is None else f"{inferior.pid} {block}".encode()
    name = f"{inferior.connection.num}.{inferior.num}.{hashlib.sha256(vector).hexdigest()[:12]}"
    if known is None or known.name != name:
        if not _processes:
            gdb.events.cont.connect(_on_continue)
            gdb.events.exited.connect(_on_exit)
        _processes[number] = _made(name, inferior.pid, bool(vector)) if block is None else WindowsProcess(name, block)
    return _processes[number]


def _made(name: str, pid: int, is_process: bool) -> RemoteProcess:
    kernel = kernel_behind_stub(pid)
    return RemoteProcess(name, is_process, kernel, packets_of(pid) if kernel is not None else None)


_processes: dict[tuple[int, int, int], RemoteProcess] = {}


def _on_continue(event: gdb.ContinueEvent) -> None:
    for process in _processes.values():
        process.forget()


def _on_exit(event: gdb.ExitedEvent) -> None:
    _processes.clear()
    gdb.events.cont.disconnect(_on_continue)
    gdb.events.exited.disconnect(_on_exit)
