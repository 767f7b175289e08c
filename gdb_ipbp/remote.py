"""A process behind gdb's remote protocol: another machine, a board, an emulator.

Nothing of it is asked from this machine's kernel. gdbserver gives files of its machine, among them what its kernel
tells about the process (`ipbp.host.remote_kernel`), and steps one thread in one packet (`packets`). Of a stub that does
neither (qemu-user), memory, registers, single steps and the auxiliary vector are all there is (gdb manual, "Remote
Protocol"): which files are mapped where follows from the vector and from gdb's list of libraries; what else the process
has mapped is not known, so memory for patches is asked for at places that the kernel may refuse, and of each stack as
much counts as can be read.
"""

from __future__ import annotations

import errno
import re
import signal
import struct
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Callable, Iterable, Iterator, Optional

import gdb

from gdb_ipbp.packets import Packets
from gdb_ipbp.remote_link import entry_of_program
from gdb_ipbp.settings import breakpoints_off, changed, kept_selection, without_interrupts
from ipbp.errors import IpbpError
from ipbp.host import inject
from ipbp.host.abi import AARCH64, X86_64, Abi, abi_of
from ipbp.host.inferior import Inferior, Thread
from ipbp.host.lifeline import xsave_image
from ipbp.host.memory import mappings_of
from ipbp.host.remote_kernel import RemoteKernel
from ipbp.protocol import Description, Region

_MASK = (1 << 64) - 1
_PAGE = 4096
_PT_LOAD = 1
_STACK_LIMIT = 1 << 20
_SIGEV_THREAD_ID, _CLOCK_MONOTONIC = 4, 1  # timer_create(2)
_KINDS = ("remote", "extended-remote")


def is_remote() -> bool:
    """Whether the selected inferior is such a process."""
    connection = gdb.selected_inferior().connection
    return connection is not None and connection.type in _KINDS


class RemoteProcess:
    """What `GdbInferior` asks about threads and memory. `name` tells it from others of this gdb. `mapped`: what ipbp
    has mapped, where nobody else tells. `is_process`: else the stub debugs a machine (a probe's, an emulator's own),
    which gives no auxiliary vector, as kernels give each process. `kernel`: what is told of the one there, `packets`:
    how threads are read and stepped past gdb, where the stub gives that."""

    def __init__(self, name: str, is_process: bool, kernel: Optional[RemoteKernel], packets: Optional[Packets]) -> None:
        self.is_process = is_process
        self.mapped: dict[int, Region] = {}
        self.name = name
        self._kernel = kernel
        self._packets = packets
        self._regions: list[Region] = []  # as the kernel told them, while nothing ran since
        self._threads: list[gdb.InferiorThread] = []  # likewise: gdb asks the stub for them each time
        self._unfiltered: set[int] = set()  # threads without a seccomp filter
        self._in_stop = False

    @property
    def is_known(self) -> bool:
        """Whether the stub is one that tells of its kernel, and steps one thread."""
        return self._packets is not None

    @property
    def is_enough(self) -> bool:
        """Whether what the stub does is all that a patch needs."""
        return self.is_known or self._abi is AARCH64

    def describe(self, pid: int, stopped: bool) -> Description:
        architecture = gdb.selected_inferior().architecture().name()
        return Description(
            pid=pid,
            triple="aarch64-linux" if architecture.startswith("aarch64") else "x86_64-linux",
            debugger=f"gdb {gdb.VERSION}",
            executable=executable() if self._kernel is None else self._kernel.program(self.regions()),
            stopped=stopped,
            attached=True,
            local=False,
            debug_folders=gdb.parameter("debug-file-directory").split(":"),
            remote=self.name if self._kernel is None else self._kernel.name,
        )

    def forget(self) -> None:
        """The program ran."""
        self._regions = []
        self._threads = []
        self._unfiltered.clear()
        if self._packets is not None:
            self._packets.forget()

    def regions(self) -> list[Region]:
        if self._kernel is not None:
            self._regions = self._regions or self._kernel.regions()
            return self._regions
        return self._with_stacks([*_files(), *self.mapped.values()])

    def _with_stacks(self, found: list[Region]) -> list[Region]:
        """These regions and, of stacks that are in none of them, as much as can be read; in address order."""
        for thread in self.threads():
            pointer = thread.stack_pointer
            if pointer and not any(row.start <= pointer < row.end for row in found):
                found += _stack(pointer, min((row.start for row in found if row.start > pointer), default=_MASK))
        return sorted(found, key=lambda row: row.start)

    def threads(self) -> list[Thread]:
        alive = self._alive()
        found = []
        with self._raw() as packets:
            if packets is not None:
                for thread in alive:
                    values = packets.read(thread.ptid[1], (self._abi.pc, self._abi.stack))
                    found.append(Thread(thread.ptid[1], values[self._abi.pc], values[self._abi.stack]))
                return sorted(found, key=lambda row: row.id)
        with kept_selection():
            for thread in alive:
                thread.switch()
                frame = gdb.newest_frame()
                found.append(Thread(thread.ptid[1], frame.pc(), int(frame.read_register("sp")) & _MASK))
        return sorted(found, key=lambda row: row.id)

    @property
    def _abi(self) -> Abi:
        is_arm = gdb.selected_inferior().architecture().name().startswith("aarch64")
        return AARCH64 if is_arm else X86_64

    def is_alive(self, number: int) -> bool:
        return any(thread.ptid[1] == number for thread in self._alive())

    def _alive(self) -> list[gdb.InferiorThread]:
        self._threads = self._threads or list(gdb.selected_inferior().threads())
        return self._threads

    def registers(self, number: int, names: Iterable[str]) -> dict[str, int]:
        with self._raw() as packets:
            if packets is not None:
                return packets.read(number, names)
        with selected(number):
            frame, found = gdb.newest_frame(), {}
            for name in names:
                try:
                    found[name] = int(frame.read_register(name)) & _MASK
                except ValueError:  # not one of this machine's, or not of this stub's
                    continue
            return found

    def register_bytes(self, number: int) -> bytes:
        """All that the stub tells, in its order; of one that tells of each alone (qemu-user) the general ones."""
        with self._raw() as packets:
            if packets is not None:
                return packets.read_all(number)
        return b"".join(value.to_bytes(8, "little") for value in self.registers(number, self._abi.frame).values())

    def interrupted_call(self, number: int) -> Optional[int]:
        """The system call that a thread is in, None for none, or where that is not told."""
        hidden = self._abi.hidden
        if hidden:
            call = self.registers(number, (hidden,)).get(hidden, _MASK)
            return call if call < 1 << 63 else None
        where = self._kernel.system_call(number) if self._kernel is not None else None
        return None if where is None else where.number

    def set_registers(self, number: int, values: dict[str, int]) -> None:
        with self._raw() as packets:
            if packets is not None:
                packets.write(number, values)
                return
        with selected(number), changed(language="c"):
            gdb.newest_frame().select()
            for name, value in values.items():
                gdb.execute(f"set ${name} = {value:#x}", to_string=True)

    def step(self, number: int) -> None:
        self._regions = []  # it may be a system call
        with self._raw() as packets:
            if packets is not None:
                packets.step(number)
                return
        with selected(number), breakpoints_off(), changed(scheduler_locking="on", suppress_cli_notifications="on"):
            gdb.execute("stepi", to_string=True)

    @contextmanager
    def _raw(self) -> Iterator[Optional[Packets]]:
        # Outside of a stop of ours gdb's own commands follow at once.
        try:
            yield self._packets
        finally:
            if not self._in_stop:
                self.go_home()

    def go_home(self) -> None:
        """gdb's own commands about threads and frames may follow."""
        if self._packets is not None:
            self._packets.go_home()

    def unwinding(self) -> AbstractContextManager[None]:
        """While frames are asked for."""
        return nullcontext()

    def proved(self, addresses: list[int]) -> list[int]:
        """Of the return addresses that gdb has found those that it may be believed."""
        return addresses

    def filters_calls(self, thread: int) -> bool:
        if self._kernel is None or thread in self._unfiltered:
            return False
        if self._kernel.filters_calls(thread):
            return True
        self._unfiltered.add(thread)
        return False

    def blocked_signals(self, thread: int) -> Optional[int]:
        return None if self._kernel is None else self._kernel.blocked_signals(thread)

    def kept_words(self, seconds: float) -> Optional[list[int]]:
        return None if self._kernel is None else self._kernel.kept_words(seconds)

    def vectors(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        """Those that there are. gdb itself gives them in parts only."""
        return self.registers(thread, names) if self._packets is not None else {}

    def extended_state(self, thread: int) -> bytes:
        """b"" where the stub does not tell all registers, or the processor has no AVX."""
        names = [f"{kind}{number}" for kind, count in (("st", 8), ("xmm", 16)) for number in range(count)]
        halves = [f"ymm{number}h" for number in range(16)]
        control = ("fctrl", "fstat", "ftag", "mxcsr")
        values = self.registers(thread, (*control, *names, *halves)) if self._packets is not None else {}
        if not all(name in values for name in (*control, *names, *halves)):
            return b""
        # A bit for each register that is in use, where `ftag` has two (Intel SDM vol. 1, 10.5.1.1).
        used = sum(1 << number for number in range(8) if values["ftag"] >> 2 * number & 3 != 3)
        head = struct.pack("<HHB19xII", values["fctrl"], values["fstat"], used, values["mxcsr"], 0xFFFF)
        legacy = head + b"".join(values[name].to_bytes(16, "little") for name in names)
        return xsave_image(legacy.ljust(512, b"\0"), b"".join(values[name].to_bytes(16, "little") for name in halves))

    def set_vectors(self, thread: int, values: dict[str, int]) -> None:
        """gdbserver (13) cannot write them where the processor has AMX (`large_state`), and says so to nobody.

        Errors: `inferior-register`.
        """
        if self._has_matrix_registers() and self.registers(thread, values) != values:
            raise IpbpError(
                "inferior-register",
                f"gdbserver cannot set vector registers of thread {thread}: the processor has AMX",
                "Type `hotpatch` without `--frame restart`: the call that is under way ends in its old code.",
            )
        self.set_registers(thread, values)

    def _has_matrix_registers(self) -> bool:
        return self._kernel is not None and self._abi is X86_64 and self._kernel.has_matrix_registers()

    def require_movable_frames(self) -> None:
        """Errors: `frame-machine`."""
        if self._packets is None or self._abi is AARCH64:
            why = "of AArch64 code" if self._abi is AARCH64 else "behind a stub such as this one"
            raise IpbpError("frame-machine", f"frames {why} stay in old code so far", "Let the function return.")

    @contextmanager
    def calling(self) -> Iterator[None]:
        """With the thread selected that is to call a function of the program. On AArch64 gdb has functions come back to
        the program's entry.

        Errors: `inferior-remote` when gdb does not know where that is; `inferior-register` as `_require_vectors_kept`.
        """
        if self._abi is AARCH64:
            executable()
        self._require_vectors_kept(gdb.selected_thread().ptid[1])
        yield

    def _require_vectors_kept(self, thread: int) -> None:
        """After a call they are to be as they were (`set_vectors`). In a system call nothing in them must
        be kept (psABI, "Register Usage").

        Errors: `inferior-register`.
        """
        if self._kernel is None or not self._has_matrix_registers():
            return
        where = self._kernel.system_call(thread)
        if where is None or where.number is None:
            raise IpbpError(
                "inferior-register",
                f"gdbserver cannot put back vector registers of thread {thread} after a call: the processor has AMX",
                "Continue, and stop the program again while that thread waits for something.",
            )

    def write_protected(self, inferior: Inferior, address: int, content: bytes) -> bool:
        """Whether these bytes could be written by making their pages writable for a moment: some stubs write where the
        program itself may write, and nowhere else (qemu-user 7.2)."""
        end = address + len(content)
        regions = mappings_of(address, end, self.regions())
        if all("w" in row.protection for row in regions):
            return False
        for row in regions:
            start, stop = max(row.start, address & -_PAGE), min(row.end, -(-end // _PAGE) * _PAGE)
            part = content[max(start, address) - address : min(stop, end) - address]
            inject.protect(inferior, start, stop - start, row.protection.replace("w", "") + "w")
            try:
                gdb.selected_inferior().write_memory(max(start, address), part)
            except gdb.MemoryError:
                return False
            finally:
                inject.protect(inferior, start, stop - start, row.protection)
        return True

    def note_mapping(self, region: Region, is_there: bool) -> None:
        if is_there:
            self.mapped[region.start] = region
        else:
            self.mapped.pop(region.start, None)

    def stopped_by(self, number: int) -> int:
        """Number of the signal that the thread was stopped by, 0 for none."""
        try:
            with selected(number):
                return int(gdb.parse_and_eval("$_siginfo.si_signo"))
        except gdb.error:  # a stub that does not tell, or no signal
            return 0

    def while_stopped(self, stopped: bool, act: Callable[[], None], then: Callable[[float], None]) -> None:
        if not stopped:
            raise runs()
        if _others_run():
            fact = "the stub stops one thread of the program and lets the others run (qemu-user does)"
            raise IpbpError("inferior-running", fact, "Debug it on a machine or in an emulator that stops all.")
        self._in_stop = True
        try:
            with without_interrupts(), kept_selection():
                act()
        finally:
            self._in_stop = False
            self.go_home()
        then(0.0)


def is_running() -> bool:
    """All-stop: whether all of its threads run, or none. gdb's list of them cannot be had then."""
    thread = gdb.selected_thread()
    return thread is not None and bool(thread.is_running())


def runs() -> IpbpError:
    """The error that says why nothing is done while the program runs. gdbserver's only answer to an interrupt is a
    SIGINT for the whole process group, and nothing when the program leads none (gdbserver, "linux-low.cc",
    `request_interrupt`)."""
    fact = (
        "the program runs, and ipbp does not stop it behind a remote stub: gdbserver would send a SIGINT to its whole "
        "process group, to processes that gdb does not hold, too"
    )
    advice = "Stop it (Ctrl-C, `interrupt`; where these do nothing, `kill -INT PID` on its machine), then `hotpatch`."
    return IpbpError("inferior-running", fact, advice)


def _others_run() -> bool:
    """Whether the stub says of threads that gdb takes for stopped that they run."""
    text = gdb.execute("info threads", to_string=True)
    threads = gdb.selected_inferior().threads()
    return len(threads) > 1 and text.count(" [running])") > 0


@contextmanager
def limited(inferior: Inferior, seconds: float) -> Iterator[None]:
    """A call in the program, by the selected thread, that takes longer ends as by a signal, which gdb takes for the
    program's and forgets together with the call. What gdb would interrupt it by does not arrive everywhere: gdbserver
    (13) signals the process group that the process would lead. So a timer of the program's own does it."""
    abi = abi_of(inferior.describe())
    create, settime, delete = abi.timers
    thread = gdb.selected_thread().ptid[1]
    # Below what is in use of the stack, and below the frame that a system call has there (`host.lifeline`).
    at = (inferior.registers(thread, (abi.stack,))[abi.stack] - 2048) & -64
    event = struct.pack("<QiiI44x", 0, signal.SIGSTOP, _SIGEV_THREAD_ID, thread)  # struct sigevent (sigevent(3type))
    content = event + struct.pack("<4Q", 0, 0, int(seconds), 0) + bytes(8)  # struct itimerspec; where the id comes
    covered = inferior.read(at, len(content))
    inferior.write(at, content)
    try:
        _require(inject.system_call(inferior, create, (_CLOCK_MONOTONIC, at, at + len(content) - 8)))
        timer = int.from_bytes(inferior.read(at + len(content) - 8, 4), "little")
        _require(inject.system_call(inferior, settime, (timer, 0, at + len(event), 0)))
    finally:
        inferior.write(at, covered)
    try:
        yield
    finally:
        inject.system_call(inferior, delete, (timer,))


def _require(result: int) -> None:
    if result < 0:
        fact = f"the kernel does not make a timer: {errno.errorcode.get(-result, result)}"
        raise IpbpError("inferior-call", fact, "Look at the process's limits (ulimit -i).")


class selected:
    """With this thread selected."""

    def __init__(self, number: int) -> None:
        self._number, self._kept = number, kept_selection()

    def __enter__(self) -> None:
        self._kept.__enter__()
        for thread in gdb.selected_inferior().threads():
            if thread.ptid[1] == self._number:
                thread.switch()
                return
        raise IpbpError("inferior-thread", f"the program has no thread {self._number}", "It has ended; try again.")

    def __exit__(self, *what: object) -> None:
        self._kept.__exit__(*what)  # type: ignore[arg-type]


def executable() -> str:
    """The program's file, as gdb knows it."""
    name = gdb.current_progspace().filename
    if not name:
        raise IpbpError("inferior-remote", "gdb does not know which program runs", "`file PROGRAM`, then try again.")
    return str(name)


def _files() -> Iterator[Region]:
    """The segments of the program and its libraries, as they are mapped."""
    program, entry = executable(), entry_of_program()
    header = _Header(program)
    yield from header.regions(entry - header.entry if header.is_pie and entry else 0)
    for at, path in _libraries():
        library = _Header(path)
        text = library.section(".text")
        if text is not None:
            yield from library.regions(at - text)


def _libraries() -> list[tuple[int, str]]:
    """Load address of the code section, and file, of each library that gdb knows of."""
    text = gdb.execute("info sharedlibrary", to_string=True)
    rows = re.findall(r"^(0x[0-9a-f]+)\s+0x[0-9a-f]+\s+\S+(?: \(\*\))?\s+(/.*)$", text, re.MULTILINE)
    return [(int(start, 16), path) for start, path in rows]


class _Header:
    """What an ELF file says of its parts (gABI, chapters 4 and 5)."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self._content = file.read()
        except OSError as error:
            raise IpbpError("image-unreadable", f"{path}: {error.strerror}", "`set sysroot` to its files.") from error
        self.is_pie = self._number(16, 2) == 3
        self.entry = self._number(24, 8)

    def regions(self, bias: int) -> Iterator[Region]:
        at, count = self._number(32, 8), self._number(56, 2)
        for row in range(count):
            kind, flags, offset, address, _, _, size, _ = struct.unpack_from("<IIQQQQQQ", self._content, at + 56 * row)
            if kind == _PT_LOAD:
                start, end = (bias + address) & -_PAGE, -(-(bias + address + size) // _PAGE) * _PAGE
                letters = "".join(letter for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if flags & bit)
                yield Region(start, end, letters, offset & -_PAGE, self.path)

    def section(self, name: str) -> Optional[int]:
        at, count, names = self._number(40, 8), self._number(60, 2), self._number(62, 2)
        rows = [struct.unpack_from("<IIQQQQ", self._content, at + 64 * row) for row in range(count)]
        if not rows:
            return None
        table = rows[names][4]
        wanted = name.encode() + b"\0"
        return next((row[3] for row in rows if self._content[table + row[0] :].startswith(wanted)), None)

    def _number(self, at: int, width: int) -> int:
        return int.from_bytes(self._content[at : at + width], "little")


def _stack(pointer: int, limit: int) -> Iterator[Region]:
    """As much as can be read from a stack pointer on, up to `limit`."""
    start = end = pointer & -_PAGE
    size = _STACK_LIMIT
    while size >= _PAGE:
        if end + size <= min(limit, start + _STACK_LIMIT) and _is_readable(end, size):
            end += size
        else:
            size //= 2
    if end > start:
        yield Region(start, end, "rw", 0, "[stack]")


def _is_readable(address: int, size: int) -> bool:
    try:
        gdb.selected_inferior().read_memory(address, size)
    except (gdb.MemoryError, OverflowError):
        return False
    return True
