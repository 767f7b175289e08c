"""A thread's steps and calls behind lldb's back, in a stop that lldb's user does not see.

When lldb itself steps a thread or calls a function, it takes the terminal from the program for that time and gives it
back too late: a prompt appears, and what the user types next goes to lldb. lldb's server does both just as well when it
is told in its own language (the GDB remote protocol, "vCont Packet"), several times as fast, and lldb goes on seeing
one stop.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator, Mapping, Sequence

import lldb

from ipbp.errors import IpbpError
from ipbp.host import procfs, tasks
from ipbp.host.lifeline import xsave_image

_TRIES = 8
_CALL_SECONDS = 4  # shorter than lldb's patience with its server, which is five seconds
_TRAP = b"\xcc"  # int3
_FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSTOP)
# lldb-server's numbers of registers, and the order of a call's arguments (psABI, "Parameter Passing").
_RAX, _RSP, _RIP, _FLAGS = 0x00, 0x07, 0x10, 0x11
_ARGUMENTS = (0x04, 0x05, 0x03, 0x02, 0x08, 0x09)  # rdi rsi rdx rcx r8 r9
_NAMES = ("rax", "rbx", "rcx", "rdx", "rdi", "rsi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip", "eflags")
_NUMBERS = {name: number for number, name in enumerate(_NAMES)}
_LEGACY, _WIDE = 224, 800  # where an FXSAVE image and ymm0 are among all registers
_RED_ZONE = 128
_NOWHERE = 0  # where a call returns to: no code is there, so the thread stops


class CommandsOf:
    """Commands about one process. Within a command lldb takes others for ones about the process that this one is about,
    whichever is selected meanwhile."""

    def __init__(self, interpreter: lldb.SBCommandInterpreter, process: lldb.SBProcess) -> None:
        self._interpreter = interpreter
        self._process = process

    def HandleCommand(self, line: str, result: lldb.SBCommandReturnObject) -> None:
        self._interpreter.HandleCommand(line, lldb.SBExecutionContext(self._process), result, False)


class Server:
    """lldb's server. `passes`: whether lldb passes a signal on to the program. `untold`: signals that the server passes
    on without a word ("QPassSignals Packet")."""

    def __init__(
        self, interpreter: CommandsOf, pid: int, passes: Callable[[int], bool], untold: Sequence[int] = ()
    ) -> None:
        self._interpreter = interpreter
        self._pid = pid
        self._passes = passes
        self._untold = untold

    def step(self, thread: int) -> int:
        """One instruction of the thread, all others held; its pc. A signal that comes before is delivered as the
        kernel would, to the first instruction of its handler. Errors: `inferior-step`, `inferior-gone`."""
        action = "s"
        for _ in range(_TRIES):
            number, registers = self._go(thread, action)
            if number == signal.SIGTRAP:
                return registers[_RIP]
            action = f"S{number:02x}" if self._passes(number) else "s"
        raise IpbpError("inferior-step", f"signals keep thread {thread} from a step", "Continue and try again.")

    def read(self, address: int, size: int) -> bytes:
        """Memory, without the traps of breakpoints."""
        return bytes.fromhex(self._tell(f"m{address:x},{size:x}"))

    def registers(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        """Values of those that the server knows; it has no orig_rax."""
        return {name: self._register(thread, _NUMBERS[name]) for name in names if name in _NUMBERS}

    def all_registers(self, thread: int) -> bytes:
        """What they hold, up to those of AVX, in the server's order."""
        return bytes.fromhex(self._tell(f"g;thread:{thread:x};").replace("x", "0"))

    def extended_state(self, thread: int) -> bytes:
        """Those of the x87 unit, of SSE and AVX in the form of XSAVE (Intel SDM vol. 1, 13.4); b"" where the server has
        them in another order than that of 19, or no AVX. It has an FXSAVE image, and whole registers of AVX behind."""
        content = self.all_registers(thread)
        legacy, wide = content[_LEGACY : _LEGACY + 512], content[_WIDE : _WIDE + 512]
        if len(wide) < 512 or any(wide[32 * n :][:16] != legacy[160 + 16 * n :][:16] for n in range(16)):
            return b""
        return xsave_image(legacy, b"".join(wide[32 * n + 16 :][:16] for n in range(16)))

    def set_registers(self, thread: int, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            self._set_register(thread, _NUMBERS[name], value)

    def rest(self, thread: int) -> None:
        """Have the thread stopped by SIGSTOP where it is. Were lldb and its server killed now, the kernel would deliver
        what it is stopped by, and the SIGTRAP of a step would end the program."""
        if tasks.has_pending(self._pid, thread, signal.SIGSTOP):
            # The server's own, left over from when it stopped all threads. Ours would be the same one, which the server
            # hides, and the thread would run on. SIGCONT takes that away, and is itself by the next SIGSTOP
            # (prepare_signal() in kernel/signal.c).
            tasks.send(self._pid, thread, int(signal.SIGCONT))
        tasks.send(self._pid, thread, int(signal.SIGSTOP))
        others = []
        for _ in range(_TRIES):
            # It comes before any instruction of the thread's: the kernel is still looking for signals for it.
            number, _registers = self._go(thread, "c")
            if number == signal.SIGSTOP:
                break
            others.append(number)
        for number in others:
            tasks.send(self._pid, thread, number)

    def call(self, thread: int, address: int, arguments: Sequence[int]) -> tuple[int, str]:
        """The result of a function with up to six integers, called by this thread while all others are held, and "";
        or the name of the signal by which it was left: it crashed, or took longer than four seconds (SIGSTOP). All
        registers are as before afterwards. Errors: `inferior-gone`."""
        with self._kept_registers(thread), self._told_of_faults(), self._limited():
            return self._called(thread, address, arguments)

    def _called(self, thread: int, address: int, arguments: Sequence[int]) -> tuple[int, str]:
        # At the function's entry rsp + 8 is a multiple of 16 (psABI, "The Stack Frame").
        stack = ((self._register(thread, _RSP) - _RED_ZONE) & ~15) - 8
        procfs.write_memory(self._pid, stack, _NOWHERE.to_bytes(8, "little"))
        values = {_RAX: 0, _RSP: stack, _RIP: address, _FLAGS: 0x202, **dict(zip(_ARGUMENTS, arguments))}
        for number, value in values.items():
            self._set_register(thread, number, value)
        action = "c"
        while True:
            stopped, registers = self._go(thread, action)
            if stopped == signal.SIGSEGV and registers[_RIP] == _NOWHERE:
                return registers[_RAX], ""
            if stopped in _FATAL:
                return 0, signal.Signals(stopped).name
            if stopped == signal.SIGTRAP:
                self._step_over(thread, registers[_RIP])
            action = f"C{stopped:02x}" if stopped != signal.SIGTRAP and self._passes(stopped) else "c"

    def _step_over(self, thread: int, pc: int) -> None:
        # A breakpoint of lldb's, which is none for a call of ours.
        if procfs.read_memory(self._pid, pc, 1) == _TRAP:
            self._tell(f"z0,{pc:x},1")
            try:
                self.step(thread)
            finally:
                self._tell(f"Z0,{pc:x},1")

    @contextmanager
    def _kept_registers(self, thread: int) -> Iterator[None]:
        # The server's own saving includes what lldb does not show: which system call was interrupted.
        kept = self._tell(f"QSaveRegisterState;thread:{thread:x};")
        try:
            yield
        finally:
            self._tell(f"QRestoreRegisterState:{kept};thread:{thread:x};")

    @contextmanager
    def _told_of_faults(self) -> Iterator[None]:
        # By one of these a call ends: passed on it would end the program.
        if not set(_FATAL) & set(self._untold):
            yield
            return
        self._pass_on([number for number in self._untold if number not in _FATAL])
        try:
            yield
        finally:
            self._pass_on(self._untold)

    def _pass_on(self, signals: Sequence[int]) -> None:
        # The server wants at least one; SIGWINCH does nothing to a program that has no handler for it.
        numbers = ";".join(f"{number:02x}" for number in signals or [signal.SIGWINCH])
        self._tell(f"QPassSignals:{numbers}")

    @contextmanager
    def _limited(self) -> Iterator[None]:
        # While lldb waits for its server none of our threads runs: somebody else has to look at the clock.
        # Whatever PATH is, and nothing is stopped where there is no `sleep`.
        script = f"PATH=/usr/bin:/bin; sleep {_CALL_SECONDS} && kill -STOP {self._pid}"
        words = ["/bin/sh", "-c", script]
        clock = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(clock.pid, signal.SIGKILL)
            clock.wait()

    def _register(self, thread: int, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self._tell(f"p{number:x};thread:{thread:x};")), "little")

    def _set_register(self, thread: int, number: int, value: int) -> None:
        self._tell(f"P{number:x}={value.to_bytes(8, 'little').hex()};thread:{thread:x};")

    def _go(self, thread: int, action: str) -> tuple[int, dict[int, int]]:
        # Let the thread go; the signal that it stops with, and the registers that come with it.
        reply = self._tell(f"vCont;{action}:{thread:x}")
        if reply[:1] in "WX":
            raise IpbpError("inferior-gone", "the program has ended", "Start it again.")
        if reply[:1] != "T":
            raise _refused(f"vCont;{action}", reply)
        rows = re.findall(r"(?<=;)([0-9a-f]{2}):([0-9a-f]{16});", reply)
        registers = {int(name, 16): int.from_bytes(bytes.fromhex(value), "little") for name, value in rows}
        return int(reply[1:3], 16), registers

    def _tell(self, packet: str) -> str:
        result = lldb.SBCommandReturnObject()
        self._interpreter.HandleCommand(f"process plugin packet send {packet}", result)
        found = re.search(r"^response: (\S+)", result.GetOutput() or "", re.MULTILINE)
        if found is None or re.fullmatch(r"E[0-9a-f]{2}", found[1]):
            raise _refused(packet, found[1] if found else result.GetError())
        return found[1]


def _refused(packet: str, reply: object) -> IpbpError:
    return IpbpError("inferior-step", f"lldb's server answers {packet.split(':')[0]} with {reply}", "Try again.")
