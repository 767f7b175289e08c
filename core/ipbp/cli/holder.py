"""Holds programs that are started until they are let go: a process of its own, `python -m ipbp.cli.holder`.

Before a file is opened to be executed the kernel asks, and waits for the answer (fanotify(7), FAN_OPEN_EXEC_PERM). From
then on we trace the thread that executes it (ptrace(2)). When the new program is there, a debug register of the
processor stops it at the first instruction of `main`, so no byte of it is changed: the dynamic loader has loaded all
libraries by then, and nothing of the program has run but its constructors. It is stopped there by a SIGSTOP and traced
no more, so that a debugger may attach to it.

Why a process of its own: Python cannot answer while it starts a program itself (vfork(2)), and whatever becomes of the
one that wants programs held, they are let go when it is gone. It is told by lines on the standard input:

    watch ADDRESS PATH      hold what runs this file; the link address of its `main` and the path in hex, 0 where no
                            `main` is known
    go PID                  let it go

and says `ready`, or `no REASON` once, and then for each program that was started `held PID`, or `runs PID` where it
cannot be held. What the asker's own children execute is not held: it would wait for them. Nor is what is started
outside the families of the processes that are named on the command line, when there are any.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

_FAN_CLOEXEC, _FAN_CLASS_CONTENT, _FAN_REPORT_TID = 0x1, 0x4, 0x100  # linux/fanotify.h
_FAN_MARK_ADD, _FAN_OPEN_EXEC_PERM, _FAN_ALLOW = 0x1, 0x40000, 0x1
_EVENT, _ANSWER = struct.Struct("<IBBHQii"), struct.Struct("<iI")  # fanotify_event_metadata, fanotify_response
_EVENTS = 1 << 12  # bytes
_AT_FDCWD = -100
_OLDEST_KERNEL = (6, 8)
"""Before that execve(2) opened the file with a lock held that ptrace(2) takes, too, and we would wait for each other
(fs/exec.c, "execve: open the executable file before doing anything else")."""

_PEEKUSER, _POKEUSER, _CONT, _DETACH = 3, 6, 7, 17  # linux/ptrace.h
_SEIZE, _INTERRUPT, _LISTEN, _TRACE_EXEC = 0x4206, 0x4207, 0x4208, 0x10
_EVENT_EXEC, _EVENT_STOP = 4, 128
_WALL = 0x40000000  # wait(2), __WALL: threads, too
_GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# struct user (sys/user.h): where the pc and the debug registers are. In DR7 bit 0 alone makes DR0 a breakpoint for the
# execution of one byte (Intel SDM vol. 3, 18.2).
_PC, _DR0, _DR7, _ON_EXECUTION = 16 * 8, 848, 848 + 7 * 8, 1
_AT_ENTRY = 9  # elf.h
_ENTRY_AT = 24  # e_entry of Elf64_Ehdr


@dataclass
class _Start:
    """A program that is being started. `pc`: of its `main`, 0 until it is there."""

    process: int
    thread: int
    pc: int = 0


class Holder:
    """`asker`: the process whose children are not held. `named`: see above. Errors: OSError where the kernel does not
    let us hold anything."""

    def __init__(self, asker: int, named: Collection[int]) -> None:
        self._asker, self._named = asker, frozenset(named)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.restype = ctypes.c_long
        self._libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        self._libc.fanotify_mark.argtypes = (
            *(ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p),
        )
        if os.uname().machine != "x86_64":
            raise OSError(0, f"no debug registers are known of {os.uname().machine}")
        if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < _OLDEST_KERNEL:
            raise OSError(0, f"Linux {os.uname().release} is older than 6.8")
        flags = _FAN_CLASS_CONTENT | _FAN_CLOEXEC | _FAN_REPORT_TID
        self._events = self._checked(self._libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC))
        self._mains: dict[tuple[int, int], int] = {}
        self._starts: dict[int, _Start] = {}  # by thread, and by process
        self._held: set[int] = set()
        self._unread = b""

    def serve(self) -> None:
        """Until the asker is gone, and everything is let go."""
        wake, to_wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(to_wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *unused: None)
        is_wanted = True
        try:
            while is_wanted or self._starts:
                ready, _, _ = select.select([wake, *([0, self._events] if is_wanted else [])], [], [])
                if wake in ready:
                    os.read(wake, _EVENTS)
                    self._look_after(is_wanted)
                if self._events in ready:
                    self._answer()
                if 0 in ready and not self._obey():
                    is_wanted = False
                    os.close(self._events)  # whoever waits for an answer goes on
                    self._go_all()
        finally:
            self._go_all()

    def _go_all(self) -> None:
        for pid in list(self._held):
            self._go(pid)

    def _obey(self) -> bool:
        content = os.read(0, 1 << 16)
        *lines, self._unread = (self._unread + content).split(b"\n")
        for line in lines:
            word, _, rest = line.partition(b" ")
            if word == b"go":
                self._go(int(rest))
            else:
                address, _, path = rest.partition(b" ")
                self._watch(bytes.fromhex(path.decode()), int(address, 16))
        return bool(content)

    def _watch(self, path: bytes, main: int) -> None:
        try:
            status = os.stat(path)
            mark = self._libc.fanotify_mark(self._events, _FAN_MARK_ADD, _FAN_OPEN_EXEC_PERM, _AT_FDCWD, path)
            self._checked(mark)
        except OSError:  # the process whose file it was has ended
            return
        self._mains[status.st_dev, status.st_ino] = main

    def _go(self, pid: int) -> None:
        if pid in self._held:
            self._held.discard(pid)
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                return

    def _answer(self) -> None:
        """Whoever executes a file that is watched goes on, traced by us where it is to be held."""
        for file, thread in self._asked():
            try:
                process = _process_of(thread)
                if thread not in self._starts and self._is_meant(process):
                    self._trace(process, thread)
            except OSError:  # it may not be traced (a debugger traces it), or was killed meanwhile
                _say(f"runs {thread}")
            finally:
                os.write(self._events, _ANSWER.pack(file, _FAN_ALLOW))
                os.close(file)

    def _asked(self) -> Iterator[tuple[int, int]]:
        content = os.read(self._events, _EVENTS)
        while content:
            length, _version, _, _, _mask, file, thread = _EVENT.unpack_from(content)
            content = content[length:]
            yield file, thread

    def _is_meant(self, process: int) -> bool:
        family = list(_ancestors(process))
        return self._asker not in family and (not self._named or not self._named.isdisjoint(family))

    def _trace(self, process: int, thread: int) -> None:
        self._ptrace(_SEIZE, thread, 0, _TRACE_EXEC)
        # Comes when the exec has failed, too: then the thread is still in its old program.
        self._ptrace(_INTERRUPT, thread, 0, 0)
        self._starts[thread] = self._starts[process] = _Start(process, thread)

    def _look_after(self, is_wanted: bool) -> None:
        while self._starts:
            try:
                thread, status = os.waitpid(-1, os.WNOHANG | _WALL)
            except ChildProcessError:
                return
            if not thread:
                return
            start = self._starts.get(thread)
            if start is None:
                continue
            try:
                if os.WIFSTOPPED(status):
                    self._stopped(start, thread, status >> 16, os.WSTOPSIG(status), is_wanted)
                else:
                    self._forget(start)
            except OSError:  # it was killed
                self._forget(start)

    def _stopped(self, start: _Start, thread: int, event: int, number: int, is_wanted: bool) -> None:
        if event == _EVENT_STOP and number in _GROUP_STOPS:
            self._ptrace(_LISTEN, thread, 0, 0)
        elif event == _EVENT_STOP and not start.pc:
            self._let_go(start, thread, 0)  # the exec has failed
        elif event == _EVENT_EXEC:
            self._begin(start, thread)
        elif not event and number == signal.SIGTRAP and self._peek(thread, _PC) == start.pc:
            self._poke(thread, _DR7, 0)
            if is_wanted:
                self._held.add(thread)
                _say(f"held {thread}")  # before it is traced no more: whoever sees that has been told
            self._let_go(start, thread, signal.SIGSTOP if is_wanted else 0)
        else:
            self._ptrace(_CONT, thread, 0, 0 if event else number)

    def _begin(self, start: _Start, thread: int) -> None:
        """The new program is there; it is to stop at `main`. It may be another one than the file that was opened."""
        status = os.stat(f"/proc/{thread}/exe")
        main = self._mains.get((status.st_dev, status.st_ino))
        if main:
            start.pc = main + _bias(thread)
            with suppress(OSError):  # no debug registers, in some virtual machines
                self._poke(thread, _DR0, start.pc)
                self._poke(thread, _DR7, _ON_EXECUTION)
                self._ptrace(_CONT, thread, 0, 0)
                return
        self._let_go(start, thread, 0)
        if main is not None:
            _say(f"runs {thread}")

    def _let_go(self, start: _Start, thread: int, number: int) -> None:
        self._forget(start)
        self._ptrace(_DETACH, thread, 0, number)

    def _forget(self, start: _Start) -> None:
        self._starts.pop(start.thread, None)
        self._starts.pop(start.process, None)

    def _peek(self, thread: int, place: int) -> int:
        ctypes.set_errno(0)
        value = int(self._libc.ptrace(_PEEKUSER, thread, place, None))
        if ctypes.get_errno():
            self._checked(-1)
        return value & (1 << 64) - 1

    def _poke(self, thread: int, place: int, value: int) -> None:
        self._ptrace(_POKEUSER, thread, place, value)

    def _ptrace(self, request: int, thread: int, place: int, value: int) -> None:
        self._checked(self._libc.ptrace(request, thread, place, value))

    def _checked(self, result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # the asker is gone, which its end of our input tells, too
        print(line, flush=True)


def _process_of(thread: int) -> int:
    return int(_status(thread)["Tgid"])


def _ancestors(process: int) -> Iterator[int]:
    """The process, its parent, and so on."""
    while process:
        yield process
        try:
            process = int(_status(process)["PPid"])
        except OSError:
            return


def _status(thread: int) -> dict[str, str]:
    with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _bias(process: int) -> int:
    with open(f"/proc/{process}/auxv", "rb") as vector, open(f"/proc/{process}/exe", "rb") as file:
        entry = dict(struct.iter_unpack("<QQ", vector.read()))[_AT_ENTRY]
        return int(entry) - int.from_bytes(os.pread(file.fileno(), 8, _ENTRY_AT), "little")


def main() -> None:
    try:
        holder = Holder(os.getppid(), [int(word) for word in sys.argv[1:]])
    except OSError as error:
        _say(f"no {error.strerror}")
        return
    _say("ready")
    holder.serve()


if __name__ == "__main__":
    main()
