"""A process that exists in memory only: what transactions, safe points and injected calls are tested against.

It plays the parts of the kernel that matter here: mmap, munmap and mprotect by a stepped `syscall` instruction, the
restart of interrupted system calls, signals that divert a step and leave their frame on the stack, and breakpoints
that hide in the bytes. Every primitive can be made to fail, before, in the middle of or after its effect, so that
each point at which a debugger or a kernel may let us down is reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Callable, Iterable, Optional, Sequence, TypeVar

from ipbp.errors import IpbpError
from ipbp.host import procfs, tasks
from ipbp.host.abi import NOP, abi_of
from ipbp.host.inferior import Breakpoint, Frame, OldCode, OldText, Ranges, Thread
from ipbp.host.kernel_words import kept_words
from ipbp.protocol import Description, Region

T = TypeVar("T")

PAGE = 4096
MASK = (1 << 64) - 1
EXECUTABLE = "/fake/app"
LIBC = "/fake/libc.so.6"
CODE, DATA, LIBC_CODE, STACKS = 0x400000, 0x404000, 0x7F0000000000, 0x7FFF00000000

_X86_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13"),
    *("r14", "r15", "rip", "eflags", "orig_rax"),
)
_A64_REGISTERS = (*(f"x{number}" for number in range(31)), "sp", "pc", "cpsr")
_RESTARTS = {-512, -513, -514, -516}


@dataclass
class FakeThread:
    """`signals`: handlers of pending signals, each with when it cuts in on a step: "before" or "after" its
    instruction."""

    id: int
    registers: dict[str, int]
    signals: list[tuple[int, str]] = field(default_factory=list)
    vectors: dict[str, int] = field(default_factory=dict)


class FakeInferior:
    """Starts with an executable of one page of nops at `CODE`, a page of data at `DATA`, a C library with one
    syscall instruction at `LIBC_CODE + 16`, and one stack for each thread.

    `shows_orig_rax`: as gdb does and lldb does not. `pid`, `local`: of a real process, where /proc is to be asked.
    """

    def __init__(
        self,
        threads: int = 2,
        shows_orig_rax: bool = True,
        pid: int = 0,
        local: bool = False,
        triple: str = "x86_64-unknown-linux-gnu",
    ) -> None:
        self.memory: dict[int, bytearray] = {}
        self.mappings: list[Region] = []
        self.shows_orig_rax = shows_orig_rax
        self.instruction_lengths: dict[int, int] = {}
        self.functions: dict[int, Callable[..., int]] = {}
        self.calls: list[tuple[int, tuple[int, ...]]] = []
        self.unwound: dict[int, list[int]] = {}
        self.armed: dict[str, Breakpoint] = {}
        self.announced: list[str] = []
        self.retired: list[tuple[int, int]] = []
        self.marked: list[OldCode] = []
        self.texts: list[OldText] = []
        self.selected: Optional[Frame] = None
        self.forgotten: list[int] = []
        self.restarted: list[tuple[int, int]] = []
        self.operations = 0
        self.fails_at = 0
        self.fails_how = "before"
        self.stays_dead = False
        self._description = Description(pid, triple, "fake", EXECUTABLE, True, True, local)
        self.abi = abi_of(self._description)
        self.map(CODE, PAGE, "rx", EXECUTABLE, b"\x90" * PAGE)
        self.map(DATA, PAGE, "rw", EXECUTABLE)
        self.map(LIBC_CODE, PAGE, "rx", LIBC, b"\x90" * 16 + self.abi.syscall + (NOP if self.abi.slack else b""))
        self.all_threads = [self._make_thread(number) for number in range(threads)]

    # What a test arranges and looks at.

    def map(self, address: int, size: int, protection: str, path: str = "", content: bytes = b"") -> None:
        self.mappings.append(Region(address, address + size, protection, 0, path))
        self.mappings.sort(key=lambda region: region.start)
        for page in range(address, address + size, PAGE):
            at = page - address
            self.memory[page] = bytearray(content[at : at + PAGE].ljust(PAGE, b"\0"))

    def fail(self, at: int, how: str = "before", for_good: bool = False) -> None:
        """Let the `at`-th primitive from now on fail: "before" its effect, "after" it, or, for a write, "half"-way.
        `for_good`: and all that follow, as if the debugger were dead."""
        self.operations, self.fails_at, self.fails_how, self.stays_dead = 0, at, how, for_good

    def snapshot(self) -> dict[int, bytes]:
        """All memory, page by page."""
        return {page: bytes(content) for page, content in self.memory.items()}

    def thread(self, identifier: int) -> FakeThread:
        for thread in self.all_threads:
            if thread.id == identifier:
                return thread
        raise IpbpError("inferior-thread", f"there is no thread {identifier}", "Look at threads() again.")

    def interrupt_in_call(self, identifier: int, number: int, result: int, pc: int = LIBC_CODE + 18) -> FakeThread:
        """Put a thread where a stop leaves one that was in system call `number`."""
        thread = self.thread(identifier)
        thread.registers.update(rip=pc, rax=result & MASK, orig_rax=number)
        return thread

    def resume(self, thread: FakeThread) -> None:
        """What the kernel does first when the thread runs again: restart its system call (handle_signal() in
        arch/x86/kernel/signal.c). `restarted` gets the thread and the number of the call."""
        registers = thread.registers
        if not self.abi.restarts:
            return
        result = registers["rax"] - (1 << 64) if registers["rax"] >> 63 else registers["rax"]
        if registers["orig_rax"] != MASK and result in _RESTARTS:
            registers["rax"] = 219 if result == -516 else registers["orig_rax"]
            registers["rip"] -= 2
            self.restarted.append((thread.id, registers["orig_rax"]))
        registers["orig_rax"] = MASK

    def return_from_signal(self, thread: FakeThread, context: int) -> None:
        """The end of a handler: rt_sigreturn(2) with the frame that it was given."""
        frame = self._peek(context + self.abi.frame_at, 8 * len(self.abi.frame))
        for index, name in enumerate(self.abi.frame):
            thread.registers[name] = int.from_bytes(frame[8 * index : 8 * index + 8], "little")
        if self.abi.hidden:
            thread.registers[self.abi.hidden] = MASK

    # The protocol.

    def describe(self) -> Description:
        return self._description

    def regions(self) -> list[Region]:
        return self._counted(lambda: list(self.mappings))

    def threads(self) -> list[Thread]:
        return self._counted(lambda: [Thread(thread.id, thread.registers[self.abi.pc]) for thread in self.all_threads])

    def return_addresses(self, thread: int) -> list[int]:
        return self._counted(lambda: self.unwound.get(thread, []))

    def read(self, address: int, size: int) -> bytes:
        return self._counted(lambda: self._peek(address, size))

    def write(self, address: int, content: bytes) -> None:
        self._peek(address, len(content))
        half = content[: len(content) // 2]
        self._counted(lambda: self._poke(address, content), lambda: self._poke(address, half))

    def write_all(self, places: Sequence[tuple[int, bytes]]) -> None:
        for address, content in places:
            self.write(address, content)

    def registers(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        wanted = [name for name in names if name != "orig_rax" or self.shows_orig_rax]
        values = self.thread(thread).registers
        return self._counted(lambda: {name: values[name] for name in wanted if name in values})

    def set_registers(self, thread: int, values: dict[str, int]) -> None:
        for name, value in values.items():
            if name not in self._names or (name == "orig_rax" and not self.shows_orig_rax):
                raise IpbpError("inferior-register", f"there is no register {name}", "Leave it out.")
            if not 0 <= value <= MASK:
                raise IpbpError("inferior-register", f"{value} does not fit into {name}", "Values are unsigned.")
        self._counted(lambda: self.thread(thread).registers.update(values))

    def vectors(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        return self._counted(lambda: {name: self.thread(thread).vectors.get(name, 0) for name in names})

    def set_vectors(self, thread: int, values: dict[str, int]) -> None:
        self._counted(lambda: self.thread(thread).vectors.update(values))

    def filters_calls(self, thread: int) -> bool:
        return self._description.local and procfs.seccomp_mode(self._description.pid, thread) == 2

    def blocked_signals(self, thread: int) -> Optional[int]:
        return tasks.blocked_signals(self._description.pid, thread) if self._description.local else None

    def kept_words(self, seconds: float) -> Optional[list[int]]:
        return kept_words(self._description.pid) if self._description.local else None

    def selected_frame(self) -> Frame:
        if self.selected is None:
            raise IpbpError("frame-none", "no frame is selected", "Select one.")
        return self.selected

    def forget_signal(self, thread: int) -> None:
        self._counted(lambda: self.forgotten.append(thread))

    def extended_state(self, thread: int) -> bytes:
        return b""

    def register_bytes(self, thread: int) -> bytes:
        found = self.thread(thread)
        general = b"".join(value.to_bytes(8, "little") for value in found.registers.values())
        return self._counted(lambda: general + b"".join(row.to_bytes(16, "little") for row in found.vectors.values()))

    def step(self, thread: int) -> None:
        self._counted(lambda: self._step(self.thread(thread)))

    def interrupted_call(self, thread: int) -> Optional[int]:
        number = self._counted(lambda: self.thread(thread).registers.get("orig_rax", MASK))
        return None if number == MASK else number

    def call(self, address: int, arguments: Sequence[int]) -> int:
        return self._counted(lambda: self._call(address, tuple(arguments)))

    def disarm(self, ranges: Ranges) -> list[Breakpoint]:
        def act() -> list[Breakpoint]:
            inside = [b for b in self.armed.values() if any(start <= b.address < end for start, end in ranges)]
            for point in inside:
                del self.armed[point.location]
            return inside

        return self._counted(act)

    def rearm(self, breakpoints: Iterable[Breakpoint]) -> None:
        points = {point.location: point for point in breakpoints}
        self._counted(lambda: self.armed.update(points))

    def retire(self, ranges: Ranges) -> None:
        def act() -> None:
            self.retired = list(ranges)

        self._counted(act)

    def mark(self, code: Sequence[OldCode], texts: Sequence[OldText]) -> None:
        self.marked, self.texts = list(code), list(texts)

    def note_mapping(self, region: Region, is_there: bool) -> None:
        """Its `regions` know."""

    def exchange(self, gone: Sequence[str], come: Sequence[str]) -> float:
        for image in gone:
            self._counted(partial(self.announced.remove, image))
        for image in come:
            self._counted(partial(self.announced.append, image))
        return 0.0

    def while_stopped(self, action: Callable[[], None], then: Callable[[float], None]) -> None:
        action()
        then(0.0)

    # Behind the protocol.

    @property
    def _names(self) -> Sequence[str]:
        return _X86_REGISTERS if self.abi.restarts else _A64_REGISTERS

    def _counted(self, act: Callable[[], T], half: Optional[Callable[[], object]] = None) -> T:
        self.operations += 1
        is_dead = self.stays_dead and self.fails_at and self.operations > self.fails_at
        if not is_dead and self.operations != self.fails_at:
            return act()
        if not is_dead and self.fails_how == "after":
            act()
        if not is_dead and self.fails_how == "half" and half is not None:
            half()
        raise IpbpError("inferior-fault", f"primitive {self.operations} failed", "It was told to.")

    def _make_thread(self, number: int) -> FakeThread:
        stack = STACKS + number * 0x100000
        self.map(stack, 4 * PAGE, "rw")
        registers = {name: 0x1000 + index for index, name in enumerate(self._names)}
        registers.update({self.abi.pc: CODE + 0x800, self.abi.stack: stack + 3 * PAGE, self.abi.flags: 0x246})
        if self.abi.hidden:
            registers[self.abi.hidden] = MASK
        return FakeThread(100 + number, registers)

    def _peek(self, address: int, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            page, offset = divmod(address + len(content), PAGE)
            if page * PAGE not in self.memory:
                raise IpbpError("inferior-memory", f"cannot read {size} bytes at {address:#x}", "It is not mapped.")
            content += self.memory[page * PAGE][offset : offset + size - len(content)]
        return bytes(content)

    def _poke(self, address: int, content: bytes) -> None:
        for point in self.armed.values():
            if address <= point.address < address + len(content):
                raise AssertionError(f"written over the breakpoint at {point.address:#x}")
        for index, byte in enumerate(content):
            page, offset = divmod(address + index, PAGE)
            self.memory[page * PAGE][offset] = byte

    def _step(self, thread: FakeThread) -> None:
        self.resume(thread)
        handler, when = thread.signals.pop(0) if thread.signals else (0, "")
        if when != "before":
            self._execute(thread)
        if handler:
            self._enter_handler(thread, handler)

    def _execute(self, thread: FakeThread) -> None:
        registers, abi = thread.registers, self.abi
        pc, after = registers[abi.pc], registers[abi.pc] + len(abi.syscall)
        if self._peek(pc, len(abi.syscall)) != abi.syscall:
            registers[abi.pc] = pc + self.instruction_lengths.get(pc, 1 if abi.restarts else 4)
            return
        number = registers[abi.number]
        result = self._system_call(number, [registers[name] for name in abi.arguments])
        registers.update({abi.pc: after, abi.result: result & MASK})
        if abi.hidden:  # the instruction itself destroys these two (Intel SDM vol. 2, SYSCALL)
            registers.update({"rcx": after, "r11": registers["eflags"], abi.hidden: number})

    def _enter_handler(self, thread: FakeThread, handler: int) -> None:
        registers, abi = thread.registers, self.abi
        context = (registers[abi.stack] - 128 - 1024) & ~15  # below the red zone
        frame = b"".join(registers[name].to_bytes(8, "little") for name in abi.frame)
        self._poke(context + abi.frame_at, frame)
        registers.update({abi.pc: handler, abi.arguments[0]: 14, abi.context: context, abi.stack: context - 8})
        if abi.hidden:
            registers[abi.hidden] = MASK

    def _system_call(self, number: int, arguments: Sequence[int]) -> int:
        address, size, bits = arguments[:3]
        protection = "".join(letter for letter, bit in (("r", 1), ("w", 2), ("x", 4)) if bits & bit)
        inside = [r for r in self.mappings if r.start < address + size and address < r.end]
        if number == self.abi.mmap:
            if inside:
                return -17
            self.map(address, size, protection)
            return address
        if number == self.abi.munmap:
            self._carve(inside, address, address + size)
            for page in range(address, address + size, PAGE):
                self.memory.pop(page, None)
            return 0
        if number == self.abi.mprotect:
            if sum(min(r.end, address + size) - max(r.start, address) for r in inside) != size:
                return -12
            self._carve(inside, address, address + size)
            self.mappings.append(Region(address, address + size, protection, 0, inside[0].path))
            self.mappings.sort(key=lambda region: region.start)
            return 0
        return -38

    def _carve(self, regions: Iterable[Region], start: int, end: int) -> None:
        for region in list(regions):
            self.mappings.remove(region)
            if region.start < start:
                self.mappings.append(Region(region.start, start, region.protection, region.offset, region.path))
            if end < region.end:
                self.mappings.append(Region(end, region.end, region.protection, region.offset, region.path))
        self.mappings.sort(key=lambda region: region.start)

    def _call(self, address: int, arguments: tuple[int, ...]) -> int:
        if address not in self.functions:
            raise IpbpError("inferior-call", f"there is no function at {address:#x}", "Add it to the table.")
        self.calls.append((address, arguments))
        return self.functions[address](*arguments)
