"""What a system call and the machine's registers are called, one row for each machine.

Names of registers are the debuggers' own. Numbers of calls are the kernel's (arch/x86/entry/syscalls/syscall_64.tbl,
include/uapi/asm-generic/unistd.h). AArch64 kernels have put a thread that they stopped in a system call back before
its `svc` already, with the arguments it had (arch/arm64/kernel/signal.c, do_signal), so there is nothing to restart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ipbp.protocol import Description


@dataclass(frozen=True)
class Abi:
    """`syscall`: the instruction. `number`, `result`, `arguments`: registers of a system call; `changed`: all that one
    may change. `frame`: the registers that a signal's frame holds, in words, from `frame_at` bytes into the ucontext_t
    on; `context`: where a handler finds that. `restarts`: the debugger sees calls that are to be restarted. `timers`:
    the numbers of timer_create, timer_settime and timer_delete. `slack`: how many bytes behind the call a step over it
    may end (qemu-user 7.2 takes the next instruction along). `call_size`: of a call of a function, 0 where calls are of
    several sizes. `link`: the register that a call leaves the return address
    in, "" where it goes to the stack. `signature`: the one that says which bits of such an address may be a signature,
    which debuggers show where the processor makes some; `address_bits`: that an address has without one. `lost`: vector
    registers that are not kept, or not all of them, over a system call."""

    pc: str
    stack: str
    flags: str
    syscall: bytes
    number: str
    result: str
    arguments: tuple[str, ...]
    changed: tuple[str, ...]
    frame: tuple[str, ...]
    frame_at: int
    context: str
    restarts: bool
    mmap: int
    mprotect: int
    munmap: int
    getpid: int
    timers: tuple[int, int, int]
    slack: int = 0
    call_size: int = 0
    link: str = ""
    signature: str = ""
    address_bits: int = 64
    lost: tuple[str, ...] = ()

    def is_call(self, code: bytes) -> bool:
        """Whether this instruction of AArch64 is a call: `bl` or `blr`, with or without authentication."""
        word = int.from_bytes(code, "little")
        return word & 0xFC000000 == 0x94000000 or word & 0xFEFFF000 == 0xD63F0000

    def may_follow(self, code: bytes) -> bool:
        """Whether it does no harm when a step over a system call goes on to this code behind it: on AArch64 a `nop`, or
        a comparison (`cmp`, `cmn` with a constant), which changes the flags alone."""
        word = int.from_bytes(code[: self.slack], "little")
        return not self.slack or code[: self.slack] == NOP or word & 0x3F00001F == 0x3100001F

    @property
    def hidden(self) -> str:
        """The register that says which call a thread was stopped in, "" where there is none."""
        return "orig_rax" if self.restarts else ""


_X86_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
X86_64 = Abi(
    pc="rip",
    stack="rsp",
    flags="eflags",
    syscall=bytes([0x0F, 0x05]),  # syscall
    number="rax",
    result="rax",
    arguments=_X86_ARGUMENTS,
    changed=(*_X86_ARGUMENTS, "rax", "rcx", "r11", "rsp", "rip", "eflags"),
    # gregset_t, 40 bytes into a ucontext_t (sys/ucontext.h).
    frame=(
        *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp"),
        *("rbx", "rdx", "rax", "rcx", "rsp", "rip", "eflags"),
    ),
    frame_at=40,
    context="rdx",
    restarts=True,
    mmap=9,
    mprotect=10,
    munmap=11,
    getpid=39,
    timers=(222, 223, 226),
)
NOP = bytes([0x1F, 0x20, 0x03, 0xD5])  # nop
_A64_ARGUMENTS = tuple(f"x{number}" for number in range(6))
AARCH64 = Abi(
    pc="pc",
    stack="sp",
    flags="cpsr",
    syscall=bytes([0x01, 0x00, 0x00, 0xD4]),  # svc #0
    number="x8",
    result="x0",
    arguments=_A64_ARGUMENTS,
    changed=(*_A64_ARGUMENTS, "x8", "sp", "pc", "cpsr"),
    # struct sigcontext, 176 bytes into a ucontext_t, behind the fault's address (asm/sigcontext.h).
    frame=(*(f"x{number}" for number in range(31)), "sp", "pc", "cpsr"),
    frame_at=184,
    context="x2",
    restarts=False,
    mmap=222,
    mprotect=226,
    munmap=215,
    getpid=172,
    timers=(107, 110, 111),
    slack=4,
    call_size=4,
    link="x30",
    signature="pauth_cmask",
    address_bits=48,  # Documentation/arch/arm64/memory.rst; more only for who asks for them
    # Documentation/arch/arm64/sve.rst, "System call behaviour". Other processors have none of these.
    lost=(*(f"z{number}" for number in range(32)), *(f"p{number}" for number in range(16)), "ffr"),
)
# The numbers of its system calls are another matter for each version of Windows, so none is made: functions of its
# libraries are called instead (`virtual_memory`). What it stops in a call it takes up by itself.
WINDOWS = replace(X86_64, restarts=False)


def is_windows(description: Description) -> bool:
    """Whether the process is one of Windows (or Wine)."""
    return description.triple.endswith("-windows")


def abi_of(description: Description) -> Abi:
    """The row of the machine that the process runs on."""
    if is_windows(description):
        return WINDOWS
    return AARCH64 if description.triple.startswith("aarch64") else X86_64
