"""`GdbInferior`: the debugged process by means of gdb's Python interface (gdb 13 and newer).

Memory goes through gdb's own reading and writing: it hides the traps of breakpoints in what it reads and keeps them
when it writes, also with `breakpoint always-inserted on`, where a write past gdb's back would leave it with a stale
byte that it puts back later. Where threads are, their registers and their steps are the kernel's (`ptrace`, and why).
Everything that the user has set or selected is put back by the contexts of `settings`.
"""

from __future__ import annotations

import re
import signal
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Callable, Iterable, Iterator, Optional, Sequence

import gdb

from gdb_ipbp import by_line, large_state, old_frames, old_sources, ptrace, remote, retired
from gdb_ipbp.background import limited, require_alive, run_in_silent_stop
from gdb_ipbp.remote import RemoteProcess, is_remote
from gdb_ipbp.settings import (
    breakpoints_off,
    changed,
    kept_selection,
    quoted,
    tell,
    with_interrupts,
    without_interrupts,
)
from gdb_ipbp.stub_processes import process_behind_stub
from ipbp.errors import IpbpError
from ipbp.host import inject, procfs, tasks
from ipbp.host.inferior import CALL_SECONDS, FAULTS, HANDLER, KEPT, Breakpoint, Frame, OldCode, OldText, Ranges, Thread
from ipbp.host.kernel_words import kept_words
from ipbp.host.plain_path import plain_path
from ipbp.protocol import Description, Region

_MASK = (1 << 64) - 1
_OLDEST = 13  # the first with gdb.Breakpoint.locations
_VERSION = int((re.findall(r"\d+", gdb.VERSION) or ["0"])[0])
_NEEDED = ("may-write-memory", "may-write-registers")  # gdb's permissions without which nothing can be patched


class GdbInferior:
    """gdb's selected inferior. It implements `ipbp.host.inferior.Inferior`, where each method is explained."""

    def __init__(self, report: Callable[[IpbpError], None]) -> None:
        """`report`: shows the user an error that comes up when no caller waits any more (see `while_stopped`)."""
        self._report = report
        self._is_stale = False  # whether gdb's idea of registers is out of date
        self._remote = _remote_of_inferior()

    def describe(self) -> Description:
        if _known.description is not None:
            return _known.description
        pid = _process()
        if self._remote is not None:
            return self._remote.describe(pid, not remote.is_running())
        return Description(
            pid=pid,
            triple="x86_64-linux",
            debugger=f"gdb {gdb.VERSION}",
            executable=tasks.executable(pid),
            stopped=not _is_running(),
            attached=tasks.is_attached(pid),
            debug_folders=gdb.parameter("debug-file-directory").split(":"),
        )

    def regions(self) -> list[Region]:
        pid = _process()
        return procfs.regions(pid) if self._remote is None else self._remote.regions()

    def threads(self) -> list[Thread]:
        pid = _process()
        if self._remote is not None:
            return self._remote.threads()
        if _known.description is None:
            return tasks.stopped_threads(pid)
        if _known.threads is None:
            _known.threads = tasks.stopped_threads(pid)
        return _known.threads

    def return_addresses(self, thread: int) -> list[int]:
        _process()
        self._refresh()
        addresses = []
        with _thread(thread), nullcontext() if self._remote is None else self._remote.unwinding():
            frame: Optional[gdb.Frame] = gdb.newest_frame()
            while frame is not None:
                try:
                    older = frame.older()
                    # An inlined function has no frame of its own: it returns nowhere.
                    if older is not None and frame.type() != gdb.INLINE_FRAME:
                        addresses.append(older.pc())
                except gdb.error:  # no way to unwind from here; what was found stands
                    break
                frame = older
        return addresses if self._remote is None else self._remote.proved(addresses)

    def read(self, address: int, size: int) -> bytes:
        _process()
        if size == 0:
            return b""
        try:
            return bytes(gdb.selected_inferior().read_memory(address, size))
        except (gdb.MemoryError, OverflowError) as error:
            raise _memory_error("read", address, size) from error

    def write(self, address: int, content: bytes) -> None:
        self._write([(address, content)])

    def write_all(self, places: Sequence[tuple[int, bytes]]) -> None:
        self._write(places)

    def _write(self, places: Sequence[tuple[int, bytes]]) -> None:
        _process()
        inferior = gdb.selected_inferior()
        for address, content in places:
            try:
                if content:
                    inferior.write_memory(address, content)
            except (gdb.MemoryError, OverflowError) as error:
                if self._remote is None or not self._remote.write_protected(self, address, content):
                    raise _memory_error("write", address, len(content)) from error

    def registers(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        self._require_thread(thread)
        if self._remote is not None:
            return self._remote.registers(thread, names)
        values = ptrace.read_registers(thread)
        return {name: values[name] for name in names if name in values}

    def set_registers(self, thread: int, values: dict[str, int]) -> None:
        self._require_thread(thread)
        if self._remote is not None:
            self._remote.set_registers(thread, values)
            return
        for name, value in values.items():
            if name not in ptrace.NAMES or not 0 <= value <= _MASK:
                raise IpbpError("inferior-register", f"{name} cannot be {value}", "Report this as a bug.")
        self._moves()
        ptrace.write_registers(thread, values)

    def vectors(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        self._require_thread(thread)
        if self._remote is not None:
            return self._remote.vectors(thread, names)
        values = ptrace.read_vectors(thread)
        return {name: values[name] for name in names}

    def set_vectors(self, thread: int, values: dict[str, int]) -> None:
        self._require_thread(thread)
        if self._remote is not None:
            self._remote.set_vectors(thread, values)
            return
        self._moves()
        ptrace.write_vectors(thread, values)

    def extended_state(self, thread: int) -> bytes:
        self._require_thread(thread)
        return ptrace.read_extended_state(thread) if self._remote is None else self._remote.extended_state(thread)

    def register_bytes(self, thread: int) -> bytes:
        self._require_thread(thread)
        if self._remote is not None:
            return self._remote.register_bytes(thread)
        return ptrace.read_all(thread)

    def step(self, thread: int) -> None:
        pid = self._require_thread(thread)
        self._moves()
        if self._remote is not None:
            self._remote.step(thread)
        elif gdb.parameter("breakpoint always-inserted"):
            with breakpoints_off():
                ptrace.step(pid, thread)
        else:  # gdb takes its traps out of memory at every stop
            ptrace.step(pid, thread)

    def interrupted_call(self, thread: int) -> Optional[int]:
        if self._remote is not None:
            return self._remote.interrupted_call(thread)
        where = procfs.system_call(_process(), thread)
        return None if where is None else where.number

    def filters_calls(self, thread: int) -> bool:
        pid = _process()
        return procfs.seccomp_mode(pid, thread) == 2 if self._remote is None else self._remote.filters_calls(thread)

    def blocked_signals(self, thread: int) -> Optional[int]:
        pid = _process()
        return tasks.blocked_signals(pid, thread) if self._remote is None else self._remote.blocked_signals(thread)

    def kept_words(self, seconds: float) -> Optional[list[int]]:
        pid = _process()
        return kept_words(pid) if self._remote is None else self._remote.kept_words(seconds)

    def selected_frame(self) -> Frame:
        _process()
        if self._remote is not None:
            self._remote.require_movable_frames()
        self._refresh()
        try:
            frame = gdb.selected_frame()
        except gdb.error as error:
            raise IpbpError("frame-none", f"no frame is selected: {error}", "Select one with `frame N`.") from error
        while frame.type() == gdb.INLINE_FRAME:
            frame = frame.older()
        above = []
        inner: gdb.Frame = gdb.newest_frame()
        while inner != frame:
            if inner.type() != gdb.INLINE_FRAME:
                above.append(HANDLER if inner.type() == gdb.SIGTRAMP_FRAME else inner.name() or "?")
            inner = inner.older()
        thread = gdb.selected_thread().ptid[1]
        values = (
            {name: value for name in KEPT if (value := _saved_register(frame, name)) is not None}
            if above
            else self.registers(thread, ptrace.NAMES)
        )
        signo = ptrace.stopped_by(thread) if self._remote is None else self._remote.stopped_by(thread)
        name = signal.Signals(signo).name if signo in signal.valid_signals() else ""
        return Frame(thread, len(above), values, tuple(above), name if name in FAULTS else "")

    def forget_signal(self, thread: int) -> None:
        self._refresh()
        for row in gdb.selected_inferior().threads():
            if row.ptid[1] == thread:
                row.switch()
                gdb.execute("queue-signal 0", to_string=True)
                gdb.newest_frame().select()

    def call(self, address: int, arguments: Sequence[int]) -> int:
        _process()
        _known.threads = None
        self._refresh()
        with nullcontext() if self._remote is None else self._remote.calling(), self._limited(CALL_SECONDS):
            self._refresh()
            return self._call(address, arguments)

    def _limited(self, seconds: float) -> AbstractContextManager[None]:
        if self._remote is None:
            return limited(seconds)
        return remote.limited(self, seconds) if self._remote.is_known else nullcontext()

    def _call(self, address: int, arguments: Sequence[int]) -> int:
        words = ", ".join(f"{argument & _MASK:#x}ULL" for argument in arguments)
        expression = f"((unsigned long long (*)()) {address:#x}ULL)({words})"
        safe = changed(language="c", scheduler_locking="on", unwindonsignal="on")
        kept = large_state.kept(gdb.selected_thread().ptid[1]) if self._remote is None else nullcontext()
        with kept_selection(), safe, breakpoints_off(), with_interrupts(), kept, _signals() as seen:
            try:
                return int(gdb.parse_and_eval(expression)) & _MASK
            except gdb.error as error:
                _process()
                why = seen[0] if seen else str(error)
                fact = f"the call of {address:#x} in the program did not come back: {why}"
                raise IpbpError("inferior-call", fact, "Look at the program's state before you go on.") from error
            finally:
                # gdbserver (13) ends the program by the SIGSEGV that a call came back with when it is let go next.
                if self._remote is not None and self._remote.is_known:
                    inject.step_aside(self, gdb.selected_thread().ptid[1])

    def disarm(self, ranges: Ranges) -> list[Breakpoint]:
        _process()
        disarmed = []
        for point in gdb.breakpoints():
            if not point.enabled or point.type == gdb.BP_HARDWARE_BREAKPOINT:
                continue
            for index, location in enumerate(point.locations, 1):
                if location.enabled and any(start <= location.address < end for start, end in ranges):
                    location.enabled = False
                    disarmed.append(Breakpoint(f"{point.number}.{index}", location.address, 1))
        return disarmed

    def rearm(self, breakpoints: Iterable[Breakpoint]) -> None:
        _process()
        # By address: gdb numbers the locations anew whenever symbols come or go.
        wanted = {(row.location.partition(".")[0], row.address) for row in breakpoints}
        for point in gdb.breakpoints():
            for location in point.locations:
                if (str(point.number), location.address) in wanted:
                    location.enabled = True

    def retire(self, ranges: Ranges) -> None:
        _process()
        retired.follow(ranges)

    def mark(self, code: Sequence[OldCode], texts: Sequence[OldText]) -> None:
        old_frames.mark(code)
        old_sources.follow(texts, code)
        by_line.follow(texts)

    def note_mapping(self, region: Region, is_there: bool) -> None:
        if self._remote is not None:
            self._remote.note_mapping(region, is_there)

    def exchange(self, gone: Sequence[str], come: Sequence[str]) -> float:
        _process()
        with kept_selection():
            for image in map(plain_path, gone):
                _Announced.remove(image)
            for image in map(plain_path, come):
                try:
                    # gdb shows a source as it first read it, otherwise.
                    tell("maintenance flush source-cache")
                    tell(f"add-symbol-file {quoted(image)} -o 0")
                except gdb.error as error:
                    raise IpbpError("inferior-symbols", f"gdb cannot load {image}: {error}", "Report it.") from error
                _Announced.add(image)
        return 0.0

    def while_stopped(self, action: Callable[[], None], then: Callable[[float], None]) -> None:
        def act(stop_is_ours: bool) -> None:
            _known.description = None if _process() != description.pid else replace(description, stopped=True)
            try:
                if stop_is_ours:
                    inject.restartable(self)
                action()
            finally:
                _known.description = _known.threads = None
                self._refresh()

        description = self.describe()
        if self._remote is not None:
            self._remote.while_stopped(description.stopped, lambda: act(stop_is_ours=False), then)
            return
        if not description.stopped:
            run_in_silent_stop(description.pid, act, then, self._report)
            return
        try:
            with without_interrupts(), kept_selection():
                act(stop_is_ours=False)
        except Exception as error:
            require_alive(description.pid, error)
            raise
        then(0.0)

    def _require_thread(self, thread: int) -> int:
        pid = _process()
        if not (tasks.is_alive(pid, thread) if self._remote is None else self._remote.is_alive(thread)):
            raise _no_thread(thread)
        return pid

    def _moves(self) -> None:
        self._is_stale = True
        _known.threads = None

    def _refresh(self) -> None:
        if self._remote is not None:
            self._remote.go_home()
        if self._is_stale:
            gdb.execute("maintenance flush register-cache", to_string=True)
            self._is_stale = False


class _Announced:
    """Symbols of patches end with the process: in the next one, other code will be at their addresses."""

    images: dict[str, int] = {}  # noqa: RUF012 - of this gdb, not of an instance; with the inferior's number

    @classmethod
    def add(cls, image: str) -> None:
        if not cls.images:
            gdb.events.exited.connect(cls._on_exit)
        cls.images[image] = gdb.selected_inferior().num

    @classmethod
    def remove(cls, image: str) -> None:
        if image in cls.images:  # it may have been announced by an earlier debugger
            del cls.images[image]
            if not cls.images:
                gdb.events.exited.disconnect(cls._on_exit)
        if any(_name_of(objfile) == image for objfile in gdb.objfiles()):
            tell(f"remove-symbol-file {quoted(image)}")

    @classmethod
    def _on_exit(cls, event: gdb.ExitedEvent) -> None:
        # At once and not by `post_event`: gdb crashes when it ends with something posted that it has not come to, as
        # it does after the `detach` of a script or when `quit` lets the process go.
        for image, number in list(cls.images.items()):
            if number == event.inferior.num:
                cls.remove(image)
        if cls.images:  # of other processes
            return
        old_frames.mark(())
        old_sources.follow((), ())


def _name_of(objfile: gdb.Objfile) -> str:
    try:
        return str(objfile.filename)
    except UnicodeDecodeError:  # none that we announced
        return ""


class _Known:
    """`description`: of the stopped process, while nothing but our own action runs in gdb: what `describe` and
    `_process` ask about it stays as it is, and there are hundreds of such questions in a stop. `threads`: as long as
    none of them was moved."""

    description: Optional[Description] = None
    threads: Optional[list[Thread]] = None


_known = _Known()


def _remote_of_inferior() -> Optional[RemoteProcess]:
    """What is known of the selected process, when it is behind a remote stub."""
    is_stopped = gdb.selected_inferior().pid and is_remote() and not remote.is_running()
    return process_behind_stub(is_new_command=True) if is_stopped else None


def _process() -> int:
    # The process id of an inferior that ipbp can work with; the error that says why there is none otherwise.
    inferior = gdb.selected_inferior()
    if inferior.pid == 0:
        raise IpbpError("inferior-none", "no program is running", "`run` it, or `attach` to it.")
    if _known.description is not None and inferior.pid == _known.description.pid:
        return int(inferior.pid)
    if _VERSION < _OLDEST:
        fact = f"gdb {gdb.VERSION} cannot tell where its breakpoints are"
        raise IpbpError("inferior-debugger-old", fact, "Use gdb 13 or newer, or lldb.")
    kind = inferior.connection.type
    if kind == "core":
        raise IpbpError("inferior-core", "this is a core file, not a process", "`run` the program, or `attach` to it.")
    architecture = inferior.architecture().name()
    if kind != "native" and not is_remote():
        fact = f"the program runs behind gdb's `{kind}` target"
        raise IpbpError("inferior-remote", fact, "Debug it with a gdb on the machine that it runs on.")
    if not architecture.startswith("i386:x86-64") and not (architecture.startswith("aarch64") and is_remote()):
        raise IpbpError(
            "inferior-architecture",
            f"the program is {architecture}",
            "Build the program for x86-64: of AArch64 ipbp patches what runs behind a remote stub.",
        )
    if is_remote() and remote.is_running():
        raise remote.runs()
    if is_remote() and not process_behind_stub().is_process:
        fact = "the stub debugs a machine with all that runs on it, and no process: it knows no auxiliary vector"
        raise IpbpError("inferior-remote", fact, "Run gdbserver in the system on that machine, and connect to it.")
    if is_remote() and not process_behind_stub().is_enough:
        fact = "the stub gives no files of its machine and of the process, or cannot step one thread, or is non-stop"
        raise IpbpError("inferior-remote", fact, "Use gdbserver there, without `set non-stop on`.")
    if gdb.current_recording() is not None:
        raise IpbpError("inferior-recorded", "gdb records the program's execution", "`record stop` first.")
    forbidden = next((name for name in _NEEDED if not gdb.parameter(name)), None)
    if forbidden is not None:
        fact = f"gdb is told to change nothing of the program: `{forbidden}` is off, as `set observer on` makes it"
        raise IpbpError("inferior-observed", fact, f"`set observer off`, or `set {forbidden} on` (before `run`).")
    return int(inferior.pid)


def _is_running() -> bool:
    running = [thread.is_running() for thread in gdb.selected_inferior().threads()]
    if any(running) and not all(running):
        fact = "some threads are running and others are not (non-stop mode)"
        raise IpbpError("inferior-running", fact, "Stop all threads with `interrupt -a`, or resume all.")
    return any(running)


@contextmanager
def _thread(number: int) -> Iterator[None]:
    # With this thread selected, its innermost frame.
    with kept_selection():
        for thread in gdb.selected_inferior().threads():
            if thread.ptid[1] == number:
                thread.switch()
                gdb.newest_frame().select()
                yield
                return
        raise _no_thread(number)


@contextmanager
def _signals() -> Iterator[list[str]]:
    # Names of the signals at which the program stops meanwhile: gdb's error does not say which one it was.
    seen: list[str] = []

    def note(event: gdb.StopEvent) -> None:
        if isinstance(event, gdb.SignalEvent):
            seen.append(event.stop_signal)

    gdb.events.stop.connect(note)
    try:
        yield seen
    finally:
        gdb.events.stop.disconnect(note)


def _no_thread(number: int) -> IpbpError:
    return IpbpError("inferior-thread", f"the program has no thread {number}", "It has ended; try again.")


def _saved_register(frame: gdb.Frame, name: str) -> Optional[int]:
    # None where the frames inside did not keep it.
    value = frame.read_register(name)
    return None if value.is_optimized_out else int(value) & _MASK


def _memory_error(verb: str, address: int, size: int) -> IpbpError:
    fact = f"cannot {verb} {size} bytes at {address:#x}"
    return IpbpError(
        "inferior-memory",
        fact,
        "Try again; when it does not go away, report it: the memory is not mapped, or the kernel protects it.",
    )
