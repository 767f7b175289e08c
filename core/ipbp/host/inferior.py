"""The debugged process, as ipbp sees it: one small protocol with three implementations.

`gdb_ipbp.inferior.GdbInferior`, `lldb_ipbp.inferior.LldbInferior` and `ipbp.host.fake.FakeInferior` pass one
contract suite. The protocol holds primitives only; what is built from them (obtaining memory by an injected
system call, stepping a thread out of bytes, applying a plan) lives once, in `inject`, `safepoint` and
`transaction`. Debugger objects never leave an implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, Optional, Protocol, Sequence

from ipbp.errors import IpbpError
from ipbp.protocol import Description, Region

CALL_SECONDS = 5.0
"""How long a called function may take."""
Ranges = Sequence[tuple[int, int]]
"""Half-open address ranges."""


@dataclass(frozen=True)
class Thread:
    """A thread of the stopped inferior. `id` is the kernel's thread id (gettid(2)). `stack_pointer`, and the number of
    the `system_call` that it is in: where they are known without asking for registers."""

    id: int
    pc: int
    stack_pointer: Optional[int] = None
    system_call: Optional[int] = None


@dataclass(frozen=True)
class Breakpoint:
    """An enabled software breakpoint location. `location` is the implementation's own handle, as text."""

    location: str
    address: int
    length: int


@dataclass(frozen=True)
class Frame:
    """A frame of a stopped thread, `level` 0 the innermost; inlined functions have none of their own. `registers`: as
    they are when it goes on, of an outer frame those that can be told. `above`: functions of the frames inside of it,
    innermost first. `fault`: the signal of a fault or an abort that the thread was stopped by and that is still to be
    delivered, "" for none."""

    thread: int
    level: int
    registers: dict[str, int]
    above: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class OldCode:
    """Old code that still runs, [start, end), what to say of it, and threads that are in it or will come back to it."""

    start: int
    end: int
    text: str
    threads: tuple[int, ...] = ()


@dataclass(frozen=True)
class OldText:
    """Code in [start, end) was compiled from a text of the source `path` that the file may not have any more. `digest`:
    sha256 of that text and the name of a copy in `folder`, "" where nobody has it; `when` it was the text, in words."""

    start: int
    end: int
    path: str
    digest: str
    folder: str
    when: str

    @property
    def copy(self) -> str:
        return f"{self.folder}/{self.digest}" if self.digest else ""


class NotYet(IpbpError):
    """Raised by the action of `Inferior.while_stopped`: the program is to run on until a thread comes to one of
    `addresses`, or `seconds` have passed; then the action is tried again. Where the program does not run, an error."""

    def __init__(self, code: str, fact: str, advice: str, addresses: Sequence[int], seconds: float) -> None:
        super().__init__(code, fact, advice)
        self.addresses = tuple(dict.fromkeys(addresses))
        self.seconds = seconds


HANDLER = "<signal handler called>"
"""In `Frame.above`: what the kernel put between a signal's handler and what it interrupted."""
FAULTS = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS")
"""Signals that say that the program cannot go on where it is."""
KEPT = ("rbx", "rbp", "rsp", "r12", "r13", "r14", "r15", "rip")
"""Registers of an outer frame that unwinding tells (psABI, "Register Usage")."""


class Inferior(Protocol):
    """Every method but `describe`, `regions`, `read` and `while_stopped` needs the inferior stopped. `read` of a
    running inferior works where /proc/PID/mem does.

    Errors: `IpbpError` with a code that starts with `inferior-`; `inferior-gone` when the process has vanished.
    """

    def describe(self) -> Description: ...

    def regions(self) -> list[Region]:
        """Mappings in address order."""

    def threads(self) -> list[Thread]: ...

    def return_addresses(self, thread: int) -> list[int]:
        """Of the frames above the innermost one, innermost first, as far as the debugger can unwind."""

    def read(self, address: int, size: int) -> bytes:
        """The program's own bytes: never a debugger's trap. `inferior-memory` when not all can be read."""

    def write(self, address: int, content: bytes) -> None:
        """Also into mappings without write permission. Called by `transaction` and `inject` alone."""

    def write_all(self, places: Sequence[tuple[int, bytes]]) -> None:
        """The same for each of these addresses and contents, in this order. Where one fails those before it are
        written."""

    def registers(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        """Values by lower-case name (x86-64: rax..r15, rip, eflags, orig_rax). A register that the debugger
        does not expose is left out: lldb has no orig_rax."""

    def set_registers(self, thread: int, values: dict[str, int]) -> None: ...

    def vectors(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        """Vector registers by name: xmm0..xmm15, 16 bytes each; on AArch64 the scalable ones, where there are any."""

    def set_vectors(self, thread: int, values: dict[str, int]) -> None: ...

    def extended_state(self, thread: int) -> bytes:
        """The floating-point and vector registers, as far as the debugger has them, in the form of XSAVE (NT_X86_XSTATE
        of ptrace(2)), b"" where it has no such thing."""

    def register_bytes(self, thread: int) -> bytes:
        """What all registers of the thread hold that the debugger has, vector registers among them, in whatever order:
        to be searched for addresses."""

    def step(self, thread: int) -> None:
        """One instruction of this thread, all others held. A signal may intervene: the caller checks the pc."""

    def interrupted_call(self, thread: int) -> Optional[int]:
        """Number of the system call in which the thread was interrupted by the stop, if any. Only asked when
        the value in rax says so, or where it stands on AArch64 (/proc/PID/task/TID/syscall, proc_pid_syscall(5))."""

    def filters_calls(self, thread: int) -> bool:
        """Whether a seccomp filter looks at the thread's system calls, as far as that can be asked."""

    def blocked_signals(self, thread: int) -> Optional[int]:
        """The thread's signal mask, bit 0 for signal 1 (proc_pid_status(5), SigBlk); None where that is not told."""

    def kept_words(self, seconds: float) -> Optional[list[int]]:
        """What the kernel will hand back to the program some day, without its being in memory or a register. None where
        there may be some that cannot be seen, or where to ask for it would take longer than so many seconds."""

    def selected_frame(self) -> Frame:
        """The frame that the user has selected. `frame-none` when there is none."""

    def forget_signal(self, thread: int) -> None:
        """The signal that the thread was stopped by is not delivered when it goes on. The innermost frame of the
        thread becomes the selected one."""

    def call(self, address: int, arguments: Sequence[int]) -> int:
        """Call a function with up to six integers; its 8-byte result. Only that thread runs. Registers, red
        zone and interrupted system calls are as before afterwards. `inferior-call` when it crashes or takes longer
        than CALL_SECONDS; the thread is then where it was."""

    def disarm(self, ranges: Ranges) -> list[Breakpoint]:
        """Take the debugger's software breakpoints inside `ranges` out of memory and out of its books, so that
        writing there is safe; what was disarmed."""

    def rearm(self, breakpoints: Iterable[Breakpoint]) -> None:
        """Put these back. Only for addresses that are still the start of an instruction."""

    def retire(self, ranges: Ranges) -> None:
        """Old code: from now on the user's breakpoints by line and by function have no place in `ranges` where they
        have one elsewhere. Where an earlier call took one away and `ranges` have it no more, it is back."""

    def mark(self, code: Sequence[OldCode], texts: Sequence[OldText]) -> None:
        """From now on frames that are in this code are marked where the debugger can, and no others; and of frames in
        the code that `texts` name that source text is shown where the file has another one now."""

    def note_mapping(self, region: Region, is_there: bool) -> None:
        """An injected call has mapped this, or unmapped it. For who cannot ask the kernel for `regions`."""

    def exchange(self, gone: Sequence[str], come: Sequence[str]) -> float:
        """Forget the symbols of the patch images that are `gone`, and load those of others, linked at their final
        addresses. The milliseconds that the program was stopped for it; 0.0 when it was stopped before anyway."""

    def while_stopped(self, action: Callable[[], None], then: Callable[[float], None]) -> None:
        """Run `action` while every thread is stopped, then `then` with the milliseconds that the program was
        stopped for it (0.0 when it was stopped before anyway).

        A stopped inferior stays stopped. A running one is stopped without the user seeing a stop, and resumed
        before `then` runs. Where the debugger's loop cannot be waited for (gdb with a program in the
        background), this returns at once and both run later from that loop. What `action` raises reaches the
        caller, or the user as an error where nobody waits; `then` does not run. `NotYet` of a running program lets it
        run on, and `action` is called again.
        """
