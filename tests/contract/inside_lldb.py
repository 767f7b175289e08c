"""The contract suite inside lldb: `command script import inside_lldb.py`, launched, attached or connected."""

# ruff: noqa: UP035

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, Callable

import lldb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import inside_debugger

JOB = inside_debugger.JOB


def __lldb_init_module(debugger: Any, session: Any) -> None:
    debugger.SetAsync(False)
    debugger.HandleCommand("command script add -o -f inside_lldb.run run_contract")


def run(debugger: Any, words: str, context: Any, result: Any, session: Any) -> None:
    try:
        main(debugger, debugger.GetSelectedTarget())
    except BaseException:
        traceback.print_exc()
        raise


def main(debugger: Any, target: Any) -> None:
    if JOB.get("remote"):
        process = target.GetProcess()  # `gdb-remote` came before this command
    elif JOB["pid"]:
        error = lldb.SBError()
        process = target.AttachToProcessWithID(debugger.GetListener(), JOB["pid"], error)
        assert error.Success(), error
    else:
        point = target.BreakpointCreateByName("ready_for_contract")
        info = lldb.SBLaunchInfo([])
        info.AddOpenFileAction(0, "/dev/null", True, False)
        info.AddOpenFileAction(1, "/dev/null", False, True)
        process = target.Launch(info, lldb.SBError())
        target.BreakpointDelete(point.GetID())
    assert process.GetState() == lldb.eStateStopped, process
    from lldb_ipbp.inferior import LldbInferior

    inferior = LldbInferior(debugger, target)

    def address_of(name: str) -> int:
        functions = target.FindFunctions(name)
        if functions.GetSize():
            return int(functions[0].GetSymbol().GetStartAddress().GetLoadAddress(target))
        return int(target.FindFirstGlobalVariable(name).GetLoadAddress())

    def break_at(address: int) -> Callable[[], None]:
        point = target.BreakpointCreateByAddress(address)
        return lambda: target.BreakpointDelete(point.GetID())

    def announces_symbols(subject: Any) -> None:
        point = target.BreakpointCreateByName("patched_for_contract")
        try:
            with inside_debugger.mapped_image(subject):
                subject.inferior.exchange([], [JOB["image"]])
                assert address_of("patched_for_contract") == JOB["image_symbol"]
                assert point.GetNumResolvedLocations() == 1
                address = target.ResolveLoadAddress(JOB["image_symbol"])
                assert address.GetLineEntry().GetFileSpec().GetFilename() == "patch.c"
                subject.inferior.exchange([JOB["image"]], [])
            assert target.FindFunctions("patched_for_contract").GetSize() == 0
        finally:
            target.BreakpointDelete(point.GetID())

    def return_addresses_are_those_of_frames(subject: Any) -> None:
        for thread in process:
            addresses = subject.inferior.return_addresses(thread.GetThreadID())
            assert len(addresses) >= 1
            assert all(any(r.start <= a < r.end for r in subject.inferior.regions()) for a in addresses)

    def leaves_the_users_things_alone(subject: Any) -> None:
        process.SetSelectedThreadByIndexID(process.GetThreadAtIndex(1).GetIndexID())
        process.GetSelectedThread().SetSelectedFrame(1)
        before = what_is_the_users()
        inside_debugger.do_a_bit_of_everything(subject)
        assert what_is_the_users() == before

    def what_is_the_users() -> Any:
        setting = "target.process.disable-memory-cache"
        settings = debugger.GetInternalVariableValue(setting, debugger.GetInstanceName()).GetStringAtIndex(0)
        frame = process.GetSelectedThread().GetSelectedFrame()
        selection = (process.GetSelectedThread().GetThreadID(), frame.GetFrameID(), frame.GetPC())
        return settings, debugger.GetAsync(), selection, target.GetNumBreakpoints()

    def what_lldb_shows_is_what_was_written(subject: Any) -> None:
        def shown() -> bytes:
            return bytes(process.ReadMemory(subject.entry, 16, lldb.SBError()))

        assert shown() == subject.code
        subject.inferior.write(subject.entry, b"\xe9\1\2\3\4")
        try:
            assert shown()[:5] == b"\xe9\1\2\3\4"
        finally:
            subject.inferior.write(subject.entry, subject.code)
        assert shown() == subject.code

    checks = (
        announces_symbols,
        return_addresses_are_those_of_frames,
        what_lldb_shows_is_what_was_written,
        leaves_the_users_things_alone,
    )
    inside_debugger.run(inferior, address_of, break_at, {check.__name__: check for check in checks})
    if JOB["pid"]:
        process.Detach()
    else:
        process.Kill()
