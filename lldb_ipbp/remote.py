"""A process behind an lldb-server that lldb did not start itself: what that machine's kernel tells, by file commands.

Where lldb is connected to the server as to a platform (`platform connect`) it gets any file from there. Of one that it
has the process alone from (`gdb-remote`, `process connect`) it gets text (`server_files`), which is all that is needed
of /proc but the auxiliary vector: that one lies on the stack. Mapped files must be here then, or are read from memory
(`formats.elf_mapped`). Of other stubs nothing is known; they are refused.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from functools import partial
from typing import Iterator, Optional

import lldb

from ipbp.errors import IpbpError
from ipbp.host import tasks
from ipbp.host.remote_kernel import Link, RemoteKernel, content_by, entry_of, kernel_of, vector_on_stack
from lldb_ipbp.packets import CommandsOf
from lldb_ipbp.server_files import ServerFiles
from lldb_ipbp.states import RUNNING, STOPPED, stands_still

_OWN = (lldb.eStopReasonBreakpoint, lldb.eStopReasonWatchpoint, lldb.eStopReasonException, lldb.eStopReasonPlanComplete)
_PATIENCE, _POLL = 5.0, 0.001  # seconds

_answering: set[int] = set()
"""Processes, by lldb's number of them, whose server has given files by their own connection."""


def is_traced_from_here(pid: int) -> bool:
    """Whether a process of this number is one of this machine, traced by this lldb: its own server is its child."""
    if not os.path.isdir(f"/proc/{pid}"):
        return False
    server = tasks.tracer(pid)
    return server != 0 and os.getpid() in (server, tasks.parent(server))


def kernel_behind_platform(target: lldb.SBTarget) -> Optional[RemoteKernel]:
    """What the kernel there tells of the target's process; None where no connected platform knows it."""
    if not _has_platform(target):
        return None

    def get(path: str, copy: str) -> bool:
        return bool(target.GetPlatform().Get(lldb.SBFileSpec(path, False), lldb.SBFileSpec(copy, False)).Success())

    pid, memory = int(target.GetProcess().GetProcessID()), _Memory(target)
    files = ServerFiles(CommandsOf(target.GetDebugger().GetCommandInterpreter(), target.GetProcess()))
    # lldb does not tell when a file was modified: at the beginning, so that all sources are newer.
    content = content_by(get)
    link = Link(content, partial(map, files.text), get, memory.read, memory.places, lambda path: 1)
    vector = content(f"/proc/{pid}/auxv") or b""
    # Of all modules: lldb may take a patch's for the program.
    entries = (module.GetObjectFileEntryPointAddress() for module in target.module_iter())
    is_of_process = entry_of(vector) in [address.GetLoadAddress(target) for address in entries]
    return kernel_of(link, pid, vector) if is_of_process else None


def kernel_behind_server(target: lldb.SBTarget) -> Optional[RemoteKernel]:
    """What the kernel there tells of the target's process, which is stopped; None where its server is no lldb-server.
    That the process is the one of that number in the server's /proc, its auxiliary vector shows."""
    process, memory = target.GetProcess(), _Memory(target)
    if process.GetPluginName() != "gdb-remote":
        return None
    commands = CommandsOf(target.GetDebugger().GetCommandInterpreter(), process)
    pid, files = int(process.GetProcessID()), ServerFiles(commands)
    digests = files.digests(f"/proc/{pid}/auxv")
    contents = partial(map, files.text)
    link = Link(files.text, contents, lambda path, copy: False, memory.read, memory.places, lambda path: 1)
    kernel = kernel_of(link, pid, vector_on_stack(link, pid, digests)) if digests else None
    if kernel is not None:
        _answering.add(int(process.GetUniqueID()))
    return kernel


class _Memory:
    """The target's process and modules, as lldb tells of them."""

    def __init__(self, target: lldb.SBTarget) -> None:
        self._target = target

    def read(self, address: int, size: int) -> Optional[bytes]:
        error = lldb.SBError()
        content = self._target.GetProcess().ReadMemory(address, size, error)
        return bytes(content) if error.Success() and content is not None else None

    def places(self, path: str) -> Iterator[str]:
        """Where lldb has a file of that name."""
        for module in self._target.module_iter():
            if os.path.basename(path) in (module.GetPlatformFileSpec().basename, module.GetFileSpec().basename):
                yield module.GetFileSpec().fullpath


@contextmanager
def interrupted(debugger: lldb.SBDebugger, target: lldb.SBTarget) -> Iterator[None]:
    """A program that runs behind an lldb-server is stopped for the time of the block, and goes on afterwards unless
    something of its own stopped it. That server answers little while the program runs, so even what is only read needs
    it. Errors: `inferior-unstoppable`."""
    process = target.GetProcess()
    if process.GetState() not in (*STOPPED, *RUNNING) or stands_still(process) or not _is_behind_lldb_server(target):
        yield
        return
    _wait_until_it_is_called_running(process)
    error = process.Stop()
    if error.Fail() and process.GetState() in RUNNING:
        fact = f"lldb could not stop the program: {error}"
        raise IpbpError("inferior-unstoppable", fact, "Use `process interrupt`, then `hotpatch`.")
    is_ours = not any(thread.GetStopReason() in _OWN for thread in process)
    try:
        yield
    finally:
        if is_ours and process.GetState() in STOPPED:
            before = debugger.GetAsync()
            debugger.SetAsync(True)  # a scripted command would wait for the next stop
            process.Continue()
            debugger.SetAsync(before)


def _wait_until_it_is_called_running(process: lldb.SBProcess) -> None:
    # lldb does not interrupt what it still calls stopped (`stands_still`).
    deadline = time.monotonic() + _PATIENCE
    while process.GetState() in STOPPED and not stands_still(process) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _is_behind_lldb_server(target: lldb.SBTarget) -> bool:
    """As far as can be told of a program that runs: lldb would interrupt it for any packet, and GNU gdbserver's answer
    to that is a SIGINT for the program's whole process group. What lldb has sent and got before can be looked at: in
    each of its tales of a stop an lldb-server says where the threads are."""
    if _has_platform(target):
        return True
    process = target.GetProcess()
    if process.GetPluginName() != "gdb-remote" or is_traced_from_here(int(process.GetProcessID())):
        return False
    if int(process.GetUniqueID()) in _answering:
        return True
    result = lldb.SBCommandReturnObject()
    commands = CommandsOf(target.GetDebugger().GetCommandInterpreter(), process)
    commands.HandleCommand("process plugin packet history", result)
    return re.search(r"read packet: \$T[0-9a-f]{2}thread:[^#]*;thread-pcs:", result.GetOutput() or "") is not None


def _has_platform(target: lldb.SBTarget) -> bool:
    platform = target.GetPlatform()
    return platform.GetName() != "host" and bool(platform.IsConnected())


def runs() -> IpbpError:
    fact = "the program runs, and behind a remote server ipbp does not stop it by itself"
    return IpbpError("inferior-running", fact, "Use `process interrupt`, then `hotpatch`.")


def not_here(pid: int) -> IpbpError:
    fact = f"process {pid} is not traced from here, and what traces it there is no lldb-server that gives its files"
    advice = "Start it there by `lldb-server gdbserver`, or debug it on its own machine."
    return IpbpError("inferior-remote", fact, advice)
