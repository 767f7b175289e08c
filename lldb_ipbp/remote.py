"""A process behind an lldb-server of another machine: what its kernel tells, by the platform's file commands.

lldb gets files from where `platform connect` leads to, and starts and attaches through it. A `gdb-remote` alone gives
no files; it is refused.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Optional

import lldb

from ipbp.errors import IpbpError
from ipbp.host.remote_kernel import Link, RemoteKernel, entry_of, kernel_of
from lldb_ipbp.states import RUNNING, STOPPED

_OWN = (lldb.eStopReasonBreakpoint, lldb.eStopReasonWatchpoint, lldb.eStopReasonException, lldb.eStopReasonPlanComplete)


def kernel_behind_platform(target: lldb.SBTarget) -> Optional[RemoteKernel]:
    """What the kernel there tells of the target's process; None where no connected platform knows it."""
    platform = target.GetPlatform()
    if platform.GetName() == "host" or not platform.IsConnected():
        return None

    def get(path: str, copy: str) -> bool:
        return bool(platform.Get(lldb.SBFileSpec(path, False), lldb.SBFileSpec(copy, False)).Success())

    def read(address: int, size: int) -> Optional[bytes]:
        error = lldb.SBError()
        content = target.GetProcess().ReadMemory(address, size, error)
        return bytes(content) if error.Success() and content is not None else None

    def places(path: str) -> Iterator[str]:
        for module in target.module_iter():
            if module.GetPlatformFileSpec().fullpath == path:
                yield module.GetFileSpec().fullpath

    def is_vector(vector: bytes) -> bool:
        # Of all modules: lldb may take a patch's for the program.
        entries = (module.GetObjectFileEntryPointAddress() for module in target.module_iter())
        return entry_of(vector) in [address.GetLoadAddress(target) for address in entries]

    # lldb does not tell when a file was modified: at the beginning, so that all sources are newer.
    link = Link(get, read, places, lambda path: 1)
    return kernel_of(link, int(target.GetProcess().GetProcessID()), is_vector)


@contextmanager
def interrupted(debugger: lldb.SBDebugger, target: lldb.SBTarget) -> Iterator[None]:
    """A program that runs behind a platform's server is stopped for the time of the block, and goes on afterwards
    unless something of its own stopped it. That server answers little while the program runs, so even what is only
    read needs it. Errors: `inferior-unstoppable`."""
    process, platform = target.GetProcess(), target.GetPlatform()
    if process.GetState() not in RUNNING or platform.GetName() == "host" or not platform.IsConnected():
        yield
        return
    error = process.Stop()
    if error.Fail():
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


def not_here(pid: int) -> IpbpError:
    fact = f"process {pid} is not traced from here, and lldb is connected to no platform that has its files"
    advice = "Run `lldb-server platform` there, `platform select remote-linux`, `platform connect`, and attach by that."
    return IpbpError("inferior-remote", fact, advice)
