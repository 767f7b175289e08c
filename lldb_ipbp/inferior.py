"""`LldbInferior`: the debugged process by means of lldb's Python interface.

Memory goes through /proc, which is up to a hundred times faster than lldb. Two things make lldb necessary there: the
traps of its breakpoints stay in memory while the program is stopped, and only lldb's reading hides them; and what lldb
has cached goes stale by writes past its back, until the program runs again. lldb shows no orig_rax, and asks for the
whole innermost frame to tell a pc, which can take a third of a second: where threads are is asked of the kernel.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Callable, Iterable, Iterator, Optional, Sequence

import lldb

from ipbp.errors import IpbpError
from ipbp.host import inject, procfs, tasks
from ipbp.host.inferior import CALL_SECONDS, FAULTS, HANDLER, KEPT, Breakpoint, Frame, OldCode, OldText, Ranges, Thread
from ipbp.host.kernel_words import kept_words
from ipbp.host.plain_path import plain_path
from ipbp.host.remote_kernel import RemoteKernel
from ipbp.protocol import Description, Region
from lldb_ipbp import old_sources
from lldb_ipbp.background import AlreadyStopped, run_in_silent_stop, stop_hooks_off
from lldb_ipbp.fresh import forget_frames, pc_of, with_true_frames
from lldb_ipbp.packets import CommandsOf, Server
from lldb_ipbp.remote import is_traced_from_here, kernel_behind_platform, kernel_behind_server, not_here, runs
from lldb_ipbp.states import RUNNING, STOPPED, stands_still
from lldb_ipbp.stops import is_seen

_MASK = (1 << 64) - 1
_TRAP = 0xCC  # int3
_SMALL = 1 << 12  # bytes
_NO_RESULT = 0x1001  # lldb's kNoResult: a void expression, no error
_UNCACHED = "target.process.disable-memory-cache"
_POST_MORTEM = ("elf-core", "mach-o-core", "minidump")  # lldb's plugins for files of dead processes

_announced: list[tuple[int, str]] = []
"""Process id and image: symbols of patches end with the process, in the next one other code is at their addresses."""


class LldbInferior:
    """The process of a target. It implements `ipbp.host.inferior.Inferior`, where each method is explained."""

    def __init__(
        self, debugger: lldb.SBDebugger, target: lldb.SBTarget, until_running: Optional[Callable[[], None]] = None
    ) -> None:
        """`until_running`: for a thread of ours, to which a stopped program does not belong; waits until it runs."""
        self._debugger = debugger
        self._target = target
        self._until_running = until_running
        self._is_in_hook = False  # on lldb's thread that handles stops
        self._local = 0  # process id that was found to be of this machine
        self._resumes_soon = False  # then lldb forgets its caches by itself
        self._settled = -1  # stop that lldb is done with, by its count; the program stays stopped
        self._described: Optional[Description] = None  # while `_resumes_soon`
        self._code: list[tuple[int, int]] = []  # where code is, while `_resumes_soon`
        self._written: dict[int, bytes] = {}  # by us, without traps, while `_resumes_soon`
        self._kernel: Optional[RemoteKernel] = None  # of another machine's process
        self._regions: tuple[int, list[Region]] = (0, [])  # of that, at which stop
        self._owed: dict[int, int] = {}  # signals that a step of ours swallowed, by thread

    def describe(self) -> Description:
        if self._described is not None:
            return self._described
        pid = self._pid()
        version = re.search(r"\d+(\.\d+)*", lldb.SBDebugger.GetVersionString())
        kernel = self._kernel
        return Description(
            pid=pid,
            triple=self._target.GetTriple(),
            debugger=f"lldb {version[0] if version else ''}".rstrip(),
            executable=tasks.executable(pid) if kernel is None else kernel.program(self.regions()),
            stopped=self._is_stopped(),
            attached=kernel is not None or tasks.is_attached(pid),
            local=kernel is None,
            debug_folders=self._debug_folders(),
            remote="" if kernel is None else kernel.name,
        )

    def _debug_folders(self) -> list[str]:
        name = self._debugger.GetInstanceName()
        shown = lldb.SBDebugger.GetInternalVariableValue("target.debug-file-search-paths", name)
        # lldb 19 gives the lines that it would show: "  [0]: /folder".
        return [re.sub(r"^\s*\[\d+\]: ", "", shown.GetStringAtIndex(row)) for row in range(shown.GetSize())]

    def regions(self) -> list[Region]:
        pid = self._pid()
        if self._kernel is None:
            return procfs.regions(pid)
        stop = self._process().GetStopID(True)  # calls of ours, too
        if self._regions[0] != stop or not self._is_stopped():
            self._regions = (stop, self._kernel.regions())
        return self._regions[1]

    def threads(self) -> list[Thread]:
        pid = self._pid()
        if self._kernel is None:
            return tasks.stopped_threads(pid)
        frames = [(thread.GetThreadID(), thread.GetFrameAtIndex(0)) for thread in self._process()]
        return sorted((Thread(number, row.GetPC(), row.GetSP()) for number, row in frames), key=lambda row: row.id)

    def return_addresses(self, thread: int) -> list[int]:
        frames = list(with_true_frames(self._thread(thread)))
        # An inlined function has no frame of its own: it returns nowhere.
        return [older.GetPC() for frame, older in zip(frames, frames[1:]) if not frame.IsInlined()]

    def read(self, address: int, size: int) -> bytes:
        pid = self._pid()
        if self._kernel is not None:
            return self._read_without_traps(address, size) if size else b""
        content = procfs.read_memory(pid, address, size)
        if _TRAP not in content or content == self._written.get(address) or not self._holds_code(address, size):
            return content
        if self._is_stopped():
            return self._read_without_traps(address, size)
        if not any(content[point.address - address] == _TRAP for point in self._armed([(address, address + size)])):
            return content
        # Only a stop tells what is under a trap.
        found: list[bytes] = []
        self.while_stopped(lambda: found.append(self._read_without_traps(address, size)), lambda _: None)
        return found[0]

    def write(self, address: int, content: bytes) -> None:
        self._write(address, content)

    def write_all(self, places: Sequence[tuple[int, bytes]]) -> None:
        if self._resumes_soon:
            procfs.write_places(self._pid(), places)
            return
        for address, content in places:
            self._write(address, content)

    def _write(self, address: int, content: bytes) -> None:
        pid = self._pid()
        if self._resumes_soon or (len(content) > 1 << 16 and self._kernel is None):
            procfs.write_memory(pid, address, content)
            if self._resumes_soon:
                self._written[address] = content
            return
        if content:
            error = lldb.SBError()
            written = self._process().WriteMemory(address, content, error)
            if error.Fail() or written != len(content):
                raise _memory_error("write", address, len(content))

    def registers(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        frame = self._thread(thread).GetFrameAtIndex(0)
        if not frame.IsValid() and self._resumes_soon:
            return self._server().registers(thread, names)
        values = {}
        for name in names:
            register = _register(frame, name)
            if register.IsValid():
                values[name] = register.GetValueAsUnsigned() & _MASK
        return values

    def set_registers(self, thread: int, values: dict[str, int]) -> None:
        found = self._thread(thread)
        frame = found.GetFrameAtIndex(0)
        if not frame.IsValid() and self._resumes_soon:
            # A script command while the program runs makes lldb see no frame at the next stop.
            self._server().set_registers(thread, values)
            return
        for name, value in values.items():
            register = _register(frame, name)
            error = lldb.SBError()
            if not register.IsValid() or not 0 <= value <= _MASK or not register.SetValueFromCString(hex(value), error):
                raise IpbpError("inferior-register", f"{name} cannot be {value}: {error}", "Report this as a bug.")
        # The only way of setting a register that also makes lldb forget the frames that it has unwound.
        pc = values.get("rip", pc_of(frame))
        if pc is None or not frame.SetPC(pc):
            raise IpbpError("inferior-register", f"lldb cannot set the pc of thread {thread}", "Report this as a bug.")

    def vectors(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        frame = self._thread(thread).GetFrameAtIndex(0)
        values = {}
        for name in names:
            error = lldb.SBError()
            content = _register(frame, name).GetData().ReadRawData(error, 0, 16)
            if content is None:
                raise IpbpError("inferior-register", f"{name} cannot be read: {error}", "Report this as a bug.")
            values[name] = int.from_bytes(content, "little")
        return values

    def set_vectors(self, thread: int, values: dict[str, int]) -> None:
        frame = self._thread(thread).GetFrameAtIndex(0)
        for name, value in values.items():
            error, halves = lldb.SBError(), [value & _MASK, value >> 64]
            octets = lldb.SBData.CreateDataFromUInt64Array(lldb.eByteOrderLittle, 8, halves)
            if not _register(frame, name).SetData(octets, error):
                raise IpbpError("inferior-register", f"{name} cannot be set: {error}", "Report this as a bug.")

    def extended_state(self, thread: int) -> bytes:
        self._thread(thread)
        return self._server().extended_state(thread)

    def register_bytes(self, thread: int) -> bytes:
        self._thread(thread)
        return self._server().all_registers(thread)

    def step(self, thread: int) -> None:
        found = self._thread(thread)
        if self._may_step_unseen() and not self._is_at_trap(found):
            self._step_unseen(found)
            return
        if self._kernel is not None and self._fault(found) in _SENT:
            fact = f"thread {thread} was stopped by {self._fault(found)}, which a step would swallow"
            raise IpbpError("inferior-step", fact, "Continue and try again.")
        error = lldb.SBError()
        with self._kept_selection(), self._synchronous(), stop_hooks_off(self._debugger), self._fault_held(found):
            found.StepInstruction(False, error)
        if error.Fail():
            self._pid()  # when it is gone, that is the error
            raise IpbpError("inferior-step", f"lldb cannot step thread {thread}: {error}", "Try again.")
        self._pid()
        if self._kernel is None:
            self._server().rest(thread)

    def _step_unseen(self, thread: lldb.SBThread) -> None:
        server = self._server()
        pc = server.step(thread.GetThreadID())
        if self._kernel is None:
            server.rest(thread.GetThreadID())
        self._regions = (0, [])  # lldb knows of no stop
        thread.GetFrameAtIndex(0).SetPC(pc)  # lldb forgets what it knew of its registers

    def _may_step_unseen(self) -> bool:
        """Whether a step need not be lldb's. Such a one is a stop of its own: where `hotpatch` is a command of a
        breakpoint, who waits for the stop that it belongs to would wait for ever."""
        return self._is_unseen() or not any(map(self._fault, self._process()))

    def _is_unseen(self) -> bool:
        """Whether lldb has not shown this stop, and must not see the program go on and stop once more: it would show
        its prompt then, before the stop. With a fault it has to, since that would be delivered (`_fault_held`)."""
        return self._resumes_soon or (self._is_in_hook and not any(map(self._fault, self._process())))

    def _is_at_trap(self, thread: lldb.SBThread) -> bool:
        pc = thread.GetFrameAtIndex(0).GetPC()
        if self._kernel is not None:
            return any(self._armed([(pc, pc + 1)]))
        return not self._resumes_soon and _TRAP in procfs.read_memory(self._pid(), pc, 1)

    def _server(self) -> Server:
        process = self._process()
        signals, interpreter = process.GetUnixSignals(), self._debugger.GetCommandInterpreter()
        numbers = [signals.GetSignalAtIndex(index) for index in range(signals.GetNumSignals())]
        untold = [
            number
            for number in numbers
            if not signals.GetShouldSuppress(number)
            and not signals.GetShouldStop(number)
            and not signals.GetShouldNotify(number)
        ]
        return Server(
            CommandsOf(interpreter, process),
            int(process.GetProcessID()),
            lambda number: not signals.GetShouldSuppress(number),
            untold,
        )

    def interrupted_call(self, thread: int) -> Optional[int]:
        pid = self._pid()
        where = procfs.system_call(pid, thread) if self._kernel is None else self._kernel.system_call(thread)
        return None if where is None else where.number

    def filters_calls(self, thread: int) -> bool:
        pid = self._pid()
        return procfs.seccomp_mode(pid, thread) == 2 if self._kernel is None else self._kernel.filters_calls(thread)

    def blocked_signals(self, thread: int) -> Optional[int]:
        # Another machine's server that lldb leaves has the SIGTRAP of a step end the program in any case.
        pid = self._pid()
        return tasks.blocked_signals(pid, thread) if self._kernel is None else None

    def kept_words(self, seconds: float) -> Optional[list[int]]:
        pid = self._pid()
        return kept_words(pid) if self._kernel is None else self._kernel.kept_words(seconds)

    def selected_frame(self) -> Frame:
        self._pid()
        thread = self._process().GetSelectedThread()
        chosen = thread.GetSelectedFrame()
        if not chosen.IsValid():
            raise IpbpError("frame-none", "no frame is selected", "Select one with `frame select N`.")
        frames = _frames_up_to(thread, chosen.GetFrameID())
        level = len(frames) - 1
        names_above = (frame.GetFunctionName() or "?" for frame in frames[:level])
        above = tuple(HANDLER if name == _RESTORER else name for name in names_above)
        names = KEPT if level else (*_GENERAL, "rip")
        values = {}
        for name in names:
            register = _register(frames[level], name)
            if register.IsValid() and register.GetValue() is not None:
                values[name] = register.GetValueAsUnsigned() & _MASK
        if "rip" not in values:  # lldb has not seen yet that the program was replaced (execve)
            raise IpbpError("frame-none", "the selected frame has no registers", "Select one with `frame select N`.")
        return Frame(thread.GetThreadID(), level, values, above, self._fault(thread))

    @contextmanager
    def _fault_held(self, thread: lldb.SBThread) -> Iterator[None]:
        """lldb delivers what a thread was stopped by with its next resumption, and a step of ours is one: a fault would
        end the program there. It is held back meanwhile. A fault of an instruction comes again by itself; what was sent
        is sent again (`_pay`)."""
        name = self._fault(thread)
        if not name:
            yield
            return
        number = thread.GetStopReasonDataAtIndex(0)
        signals = self._process().GetUnixSignals()
        before = signals.GetShouldSuppress(number)
        signals.SetShouldSuppress(number, True)
        try:
            yield
        finally:
            signals.SetShouldSuppress(number, before)
        if name in _SENT:  # of which behind a remote server nothing is stepped (`step`)
            self._owed[int(thread.GetThreadID())] = number

    def _pay(self) -> None:
        for thread, number in self._owed.items():
            tasks.send(self._pid(), thread, number)
        self._owed.clear()

    def _fault(self, thread: lldb.SBThread) -> str:
        if thread.GetStopReason() != lldb.eStopReasonSignal:
            return ""
        signals = self._process().GetUnixSignals()
        name = str(signals.GetSignalAsCString(thread.GetStopReasonDataAtIndex(0)) or "")
        return name if name in FAULTS else ""

    def forget_signal(self, thread: int) -> None:
        if self._fault(self._thread(thread)):
            inject.step_aside(self, thread)
        self._owed.pop(thread, None)
        self._process().SetSelectedThreadByID(thread)
        self._thread(thread).SetSelectedFrame(0)

    def call(self, address: int, arguments: Sequence[int]) -> int:
        process = self._process()
        if self._is_unseen() and not self._is_loaders(address):
            result, left = self._server().call(process.GetSelectedThread().GetThreadID(), address, arguments)
            if left:
                fact = f"the call of {address:#x} in the program did not come back: {left}"
                raise IpbpError("inferior-call", fact, "Look at the program's state before you go on.")
            return result
        words = ", ".join(f"{argument & _MASK:#x}UL" for argument in arguments)
        types = ", ".join(["unsigned long"] * len(arguments)) or "void"
        options = lldb.SBExpressionOptions()
        options.SetLanguage(lldb.eLanguageTypeC99)
        options.SetStopOthers(True)
        options.SetTryAllThreads(False)
        options.SetTimeoutInMicroSeconds(int(CALL_SECONDS * 1_000_000))
        options.SetUnwindOnError(True)
        options.SetIgnoreBreakpoints(True)
        options.SetTrapExceptions(False)
        options.SetSuppressPersistentResult(True)
        with self._kept_selection():
            frame = process.GetSelectedThread().GetFrameAtIndex(0)
            value = frame.EvaluateExpression(f"((unsigned long (*)({types})) {address:#x}UL)({words})", options)
        error = value.GetError()
        if error.Fail() and error.GetError() != _NO_RESULT:
            self._pid()
            name = re.search(r"signal (SIG[A-Z0-9]+)", str(error))
            fact = f"the call of {address:#x} in the program did not come back: {name[1] if name else error}"
            raise IpbpError("inferior-call", fact, "Look at the program's state before you go on.")
        return int(value.GetNonSyntheticValue().GetValueAsUnsigned()) & _MASK

    def _is_loaders(self, address: int) -> bool:
        # Of libraries that are loaded and closed lldb wants to hear.
        name = self._target.ResolveLoadAddress(address).GetSymbol().GetName() or ""
        return name.lstrip("_").startswith(("dlopen", "dlmopen", "dlclose"))

    def disarm(self, ranges: Ranges) -> list[Breakpoint]:
        self._pid()
        points = list(self._armed(ranges))
        for point in points:
            self._location(point).SetEnabled(False)
        return points

    def rearm(self, breakpoints: Iterable[Breakpoint]) -> None:
        self._pid()
        for point in breakpoints:
            location = self._location(point)
            if location.IsValid() and location.GetLoadAddress() == point.address:  # not deleted meanwhile
                location.SetEnabled(True)

    def retire(self, ranges: Ranges) -> None:
        """Nothing. lldb sets a breakpoint behind a function's prologue, where nobody comes in old code; at its very
        first byte, as in optimised code, it stops there once more. To switch that place off would outlive the process,
        and lldb does not tell of its end."""

    def mark(self, code: Sequence[OldCode], texts: Sequence[OldText]) -> None:
        old_sources.follow(self._target, texts, code)
        if texts and (self._until_running is None or self._is_in_hook) and self._is_stopped():
            process = self._process()
            chosen = {process.GetSelectedThread().GetThreadID(), *(thread for row in code for thread in row.threads)}
            with self._kept_selection():
                for thread in filter(lambda row: row.GetThreadID() in chosen, process):
                    old_sources.settle(thread)

    def note_mapping(self, region: Region, is_there: bool) -> None:
        """The kernel knows."""

    def exchange(self, gone: Sequence[str], come: Sequence[str]) -> float:
        pid = self._pid()
        modules = [(image, self._module(image)) for image in map(plain_path, come)]
        errors: list[str] = []
        stopped: list[float] = []

        def change() -> None:
            for image in map(plain_path, gone):
                self._forget(pid, image)
            for other, old in [row for row in _announced if modules and row[0] != pid]:
                self._forget(other, old)
            for image, module in modules:
                self._target.AddModule(module)
                _announced.append((pid, image))
                error = self._target.SetModuleLoadAddress(module, 0)
                errors.extend([f"{image}: {error}"] if error.Fail() else [])

        # By a command of the user's, or in a stop, by lldb's thread that handles stops. lldb (19) takes its locks of
        # modules and of language runtimes in one order when a module comes, and in the other when it unwinds a stack,
        # as at each stop: were the program to stop meanwhile, both threads would wait for ever.
        self.while_stopped(change, stopped.append)
        if errors:
            raise IpbpError("inferior-symbols", f"lldb cannot place {'; '.join(errors)}", "Report this as a bug.")
        return sum(stopped)

    def _module(self, image: str) -> lldb.SBModule:
        """Symbols and debug information, while the program runs."""
        specification = lldb.SBModuleSpec()
        specification.SetFileSpec(lldb.SBFileSpec(image, False))
        module = lldb.SBModule(specification)
        if not module.IsValid():
            raise IpbpError("inferior-symbols", f"lldb cannot load {image}", "Report this as a bug.")
        if self._target.GetNumBreakpoints():
            _read(module)
        return module

    def while_stopped(self, action: Callable[[], None], then: Callable[[float], None]) -> None:
        process = self._process()
        if self._until_running is not None and not self._is_in_hook:
            self._until_running()
        elif self._resumes_soon or self._is_stopped():
            self._act_stopped(action, then)
            return

        described = replace(self.describe(), stopped=True)
        is_over = False

        def act(stop_is_ours: bool) -> None:
            nonlocal is_over
            self._is_in_hook = True
            self._resumes_soon, self._code, self._written = stop_is_ours, [], {}
            self._described = described if stop_is_ours else None
            # A program that was running has no selected frame, only a thread.
            with self._kept_thread() if stop_is_ours else self._kept_selection():
                if stop_is_ours:
                    forget_frames(process.GetSelectedThread())
                    # Before anything else runs in a thread: what it waited in is not known afterwards.
                    inject.restartable(self)
                try:
                    action()
                finally:
                    if stop_is_ours:
                        self._forget_registers()
                if not stop_is_ours:  # before lldb shows it: at its prompt it is the user's
                    then(0.0)
                    is_over = True

        try:
            milliseconds = run_in_silent_stop(self._debugger, process, act)
        except AlreadyStopped:
            if self._until_running is not None or not self._is_stopped():
                raise IpbpError("inferior-busy", "the program has just stopped", "Try again.") from None
            self._act_stopped(action, then)
            return
        finally:
            self._is_in_hook, self._resumes_soon, self._described = False, False, None
        if not is_over:
            then(milliseconds)

    def _act_stopped(self, action: Callable[[], None], then: Callable[[float], None]) -> None:
        """In a stop of the user's."""
        try:
            with self._kept_selection():
                action()
            then(0.0)
        finally:
            if self._owed:
                self._pay()

    def _forget_registers(self) -> None:
        # After a stop hook has resumed the program lldb would still look at it: its lock against that stays open. Each
        # script command asks for the selected frame. Where lldb believes to know the registers it goes on to read the
        # stack, and for that it interrupts the program: a tenth of a second, and an EINTR in epoll_wait(2). Registers
        # that it does not know it does not ask for. Setting one makes it forget them.
        forget_frames(self._target.GetProcess().GetSelectedThread())

    def _process(self) -> lldb.SBProcess:
        """Of the target, when ipbp can work with it; the error that says why not otherwise."""
        process = self._target.GetProcess() if self._target.IsValid() else lldb.SBProcess()
        state = process.GetState() if process.IsValid() else lldb.eStateUnloaded
        if self._resumes_soon and state in STOPPED:  # it was looked at before it was stopped
            return process
        if process.IsValid() and process.GetPluginName() in _POST_MORTEM:
            fact, advice = "this is a core file, not a process", "`run` the program, or `process attach` to it."
            raise IpbpError("inferior-core", fact, advice)
        if state in (lldb.eStateExited, lldb.eStateDetached):
            raise IpbpError("inferior-gone", "the program has ended", "Start it again.")
        if state not in STOPPED and state not in RUNNING:
            raise IpbpError("inferior-none", "no program is running", "`run` it, or `process attach` to it.")
        if not self._target.GetTriple().startswith("x86_64"):
            fact = f"the program is for {self._target.GetTriple()}"
            raise IpbpError("inferior-architecture", fact, "Build the program for x86-64: ipbp knows no other so far.")
        return process

    def _pid(self) -> int:
        if self._described is not None:
            return self._described.pid
        pid = int(self._process().GetProcessID())
        if pid != self._local and (self._kernel is None or self._kernel.pid != pid):
            is_here = is_traced_from_here(pid)
            self._kernel = None if is_here else self._kernel_there()
            if self._kernel is None and not is_here and not self._has_ended_here(pid):
                raise not_here(pid) if stands_still(self._target.GetProcess()) else runs()
        if self._kernel is not None and self._target.GetProcess().GetState() not in STOPPED:
            raise runs()
        self._local = pid
        return pid

    def _kernel_there(self) -> Optional[RemoteKernel]:
        kernel = kernel_behind_platform(self._target)
        if kernel is None and stands_still(self._target.GetProcess()):  # else it would be interrupted for that
            kernel = kernel_behind_server(self._target)
        return kernel

    def _has_ended_here(self, pid: int) -> bool:
        # That will be said.
        return not os.path.isdir(f"/proc/{pid}") and bool(self._target.GetPlatform().GetName() == "host")

    def _is_stopped(self) -> bool:
        if self._resumes_soon:
            return True
        process = self._target.GetProcess()
        return stands_still(process) and self._stays_stopped(process)

    def _stays_stopped(self, process: lldb.SBProcess) -> bool:
        stop = process.GetStopID()
        if stop != self._settled and not is_seen(process):
            return False
        self._settled = stop
        return True

    def _thread(self, number: int) -> lldb.SBThread:
        self._pid()
        if not self._is_stopped():
            raise IpbpError("inferior-running", "the program is running", "Stop it and try again.")
        thread = self._process().GetThreadByID(number)
        if not thread.IsValid():
            raise IpbpError("inferior-thread", f"the program has no thread {number}", "It has ended; try again.")
        return thread

    def _holds_code(self, address: int, size: int) -> bool:
        # lldb puts its traps into code only. In a silent stop no code comes or goes but our own, without traps.
        if not self._resumes_soon or not self._code:
            self._code = [(r.start, r.end) for r in procfs.regions(self._pid()) if "x" in r.protection]
        return any(start < address + size and address < end for start, end in self._code)

    def _read_without_traps(self, address: int, size: int) -> bytes:
        if self._resumes_soon and size <= _SMALL:  # in a tenth of the time that lldb takes
            return self._server().read(address, size)
        name = self._debugger.GetInstanceName()
        before = self._debugger.GetInternalVariableValue(_UNCACHED, name).GetStringAtIndex(0)
        error = lldb.SBError()
        lldb.SBDebugger.SetInternalVariable(_UNCACHED, "true", name)
        try:
            content = self._process().ReadMemory(address, size, error)
        finally:
            lldb.SBDebugger.SetInternalVariable(_UNCACHED, before, name)
        if error.Fail() or content is None or len(content) != size:
            raise _memory_error("read", address, size)
        return bytes(content)

    def _armed(self, ranges: Ranges) -> Iterator[Breakpoint]:
        for point in self._target.breakpoint_iter():
            if not point.IsEnabled() or point.IsHardware():
                continue
            for location in point:
                address = location.GetLoadAddress()
                if location.IsEnabled() and any(start <= address < end for start, end in ranges):
                    yield Breakpoint(f"{point.GetID()}.{location.GetID()}", address, 1)

    def _location(self, point: Breakpoint) -> lldb.SBBreakpointLocation:
        number, _, location = point.location.partition(".")
        return self._target.FindBreakpointByID(int(number)).FindLocationByID(int(location))

    def _forget(self, pid: int, image: str) -> None:
        if (pid, image) in _announced:
            _announced.remove((pid, image))
        module = self._target.FindModule(lldb.SBFileSpec(image))
        if module.IsValid():
            self._target.RemoveModule(module)
            del module
            lldb.SBModule.GarbageCollectAllocatedModules()  # else lldb keeps it for a target to come

    @contextmanager
    def _kept_selection(self) -> Iterator[None]:
        # The user's thread and frame.
        process = self._target.GetProcess()
        thread = process.GetSelectedThread()
        frame = thread.GetSelectedFrame().GetFrameID()
        try:
            with self._kept_thread():
                yield
        finally:
            if process.GetSelectedThread().GetThreadID() == thread.GetThreadID():
                process.GetSelectedThread().SetSelectedFrame(frame)

    @contextmanager
    def _kept_thread(self) -> Iterator[None]:
        process = self._target.GetProcess()
        selected = process.GetSelectedThread().GetThreadID()
        try:
            yield
        finally:
            if process.GetSelectedThread().GetThreadID() != selected:
                process.SetSelectedThreadByID(selected)

    @contextmanager
    def _synchronous(self) -> Iterator[None]:
        before = self._debugger.GetAsync()
        self._debugger.SetAsync(False)
        try:
            yield
        finally:
            self._debugger.SetAsync(before)


def _read(module: lldb.SBModule) -> None:
    """When a module comes lldb looks in it for the places of all breakpoints, and for that it reads all of the debug
    information, unless it has done so."""
    for symbol in module:
        name = symbol.GetMangledName() or symbol.GetName()
        for found in module.FindFunctions(name, lldb.eFunctionNameTypeFull) if name else ():
            found.GetFunction().GetPrologueByteSize()


_FLAGS = {"eflags": "rflags"}
_RESTORER = "__restore_rt"  # of glibc and musl: what a handler returns to (sigaction(2), sa_restorer)
_SENT = ("SIGABRT", "SIGSYS")  # by raise(3) and the like, not by what an instruction did
_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))


def _frames_up_to(thread: lldb.SBThread, chosen: int) -> list[lldb.SBFrame]:
    """The innermost frames up to that one, those of inlined functions left out: they are a part of an outer one."""
    frames = []
    for index in count():  # lldb unwinds as far as it is asked to
        frame = thread.GetFrameAtIndex(index)
        if not frame.IsValid():
            break
        if not frame.IsInlined():
            frames.append(frame)
            if index >= chosen:
                break
    return frames


def _register(frame: lldb.SBFrame, name: str) -> lldb.SBValue:
    # What is shown of a value may be made up by the user's formatters: those of rust-lldb are there for every type.
    return frame.FindRegister(_FLAGS.get(name, name)).GetNonSyntheticValue()


def _memory_error(verb: str, address: int, size: int) -> IpbpError:
    fact = f"cannot {verb} {size} bytes at {address:#x}"
    return IpbpError(
        "inferior-memory",
        fact,
        "Try again; when it does not go away, report it: the memory is not mapped, or the kernel protects it.",
    )
