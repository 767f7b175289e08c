"""A process behind gdb's remote protocol: another machine, a board, an emulator.

Nothing of it is asked from this machine's kernel, and nothing that a stub need not have: memory, registers, single
steps and the auxiliary vector are all there is (gdb manual, "Remote Protocol"). Which files are mapped where follows
from the vector and from gdb's list of libraries; what else the process has mapped is not known, so memory for patches
is asked for at places that the kernel may refuse. Of each stack as much counts as can be read.
"""

from __future__ import annotations

import re
import struct
from typing import Callable, Iterable, Iterator, Optional

import gdb

from gdb_ipbp.settings import breakpoints_off, changed, kept_selection, without_interrupts
from ipbp.errors import IpbpError
from ipbp.host import inject
from ipbp.host.inferior import Frame, Inferior, Thread
from ipbp.protocol import Description, Region

_MASK = (1 << 64) - 1
_PAGE = 4096
_PT_LOAD = 1
_STACK_LIMIT = 1 << 20
_KINDS = ("remote", "extended-remote")


def is_remote() -> bool:
    """Whether the selected inferior is such a process."""
    connection = gdb.selected_inferior().connection
    return connection is not None and connection.type in _KINDS


def name_of_process() -> str:
    """What tells this process from others of this gdb: for the folder of its journal."""
    connection = gdb.selected_inferior().connection
    return f"{connection.num}.{gdb.selected_inferior().num}.{_entry()}"


class RemoteProcess:
    """What `GdbInferior` asks about threads and memory, by the protocol alone. `mapped`: what ipbp has mapped."""

    def __init__(self) -> None:
        self.mapped: dict[int, Region] = {}

    def describe(self, pid: int, stopped: bool) -> Description:
        architecture = gdb.selected_inferior().architecture().name()
        return Description(
            pid=pid,
            triple="aarch64-linux" if architecture.startswith("aarch64") else "x86_64-linux",
            debugger=f"gdb {gdb.VERSION}",
            executable=_executable(),
            stopped=stopped,
            attached=True,
            local=False,
            debug_folders=gdb.parameter("debug-file-directory").split(":"),
            remote=name_of_process(),
        )

    def regions(self) -> list[Region]:
        found = [*_files(), *self.mapped.values()]
        for thread in self.threads():
            pointer = thread.stack_pointer
            if pointer and not any(row.start <= pointer < row.end for row in found):
                found += _stack(pointer, min((row.start for row in found if row.start > pointer), default=_MASK))
        return sorted(found, key=lambda row: row.start)

    def threads(self) -> list[Thread]:
        found = []
        with kept_selection():
            for thread in gdb.selected_inferior().threads():
                thread.switch()
                frame = gdb.newest_frame()
                found.append(Thread(thread.ptid[1], frame.pc(), int(frame.read_register("sp")) & _MASK))
        return sorted(found, key=lambda row: row.id)

    def is_alive(self, number: int) -> bool:
        return any(thread.ptid[1] == number for thread in gdb.selected_inferior().threads())

    def registers(self, number: int, names: Iterable[str]) -> dict[str, int]:
        with _selected(number):
            frame, found = gdb.newest_frame(), {}
            for name in names:
                try:
                    found[name] = int(frame.read_register(name)) & _MASK
                except ValueError:  # not one of this machine's, or not of this stub's
                    continue
            return found

    def set_registers(self, number: int, values: dict[str, int]) -> None:
        with _selected(number), changed(language="c"):
            gdb.newest_frame().select()
            for name, value in values.items():
                gdb.execute(f"set ${name} = {value:#x}", to_string=True)

    def step(self, number: int) -> None:
        with _selected(number), breakpoints_off(), changed(scheduler_locking="on", suppress_cli_notifications="on"):
            gdb.execute("stepi", to_string=True)

    def write_protected(self, inferior: Inferior, address: int, content: bytes) -> bool:
        """Whether these bytes could be written by making their pages writable for a moment: some stubs write where the
        program itself may write, and nowhere else (qemu-user 7.2)."""
        end = address + len(content)
        regions = [row for row in self.regions() if row.start < end and address < row.end]
        covered = sum(min(row.end, end) - max(row.start, address) for row in regions)
        if covered != len(content) or all("w" in row.protection for row in regions):
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

    def selected_frame(self) -> Frame:
        raise IpbpError("frame-machine", "frames of a process behind a remote stub stay in old code", "Let it return.")

    def while_stopped(self, stopped: bool, act: Callable[[], None], then: Callable[[float], None]) -> None:
        if not stopped:
            fact = "the program runs, and behind a remote stub ipbp does not stop it by itself"
            raise IpbpError("inferior-running", fact, "Stop it (Ctrl-C, or `interrupt`), then `hotpatch`.")
        if _others_run():
            fact = "the stub stops one thread of the program and lets the others run (qemu-user does)"
            raise IpbpError("inferior-running", fact, "Debug it on a machine or in an emulator that stops all.")
        with without_interrupts(), kept_selection():
            act()
        then(0.0)


def _others_run() -> bool:
    """Whether the stub says of threads that gdb takes for stopped that they run."""
    text = gdb.execute("info threads", to_string=True)
    threads = gdb.selected_inferior().threads()
    return len(threads) > 1 and text.count(" [running])") > 0


class _selected:
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


def _executable() -> str:
    name = gdb.current_progspace().filename
    if not name:
        raise IpbpError("inferior-remote", "gdb does not know which program runs", "`file PROGRAM`, then try again.")
    return str(name)


def _entry() -> int:
    # AT_ENTRY of the auxiliary vector: where the program begins. A static program of a bare machine has none.
    try:
        text = gdb.execute("info auxv", to_string=True)
    except gdb.error:
        return 0
    found = re.search(r"^9 .*?(0x[0-9a-f]+)$", text, re.MULTILINE)
    return int(found[1], 16) if found else 0


def _files() -> Iterator[Region]:
    """The segments of the program and its libraries, as they are mapped."""
    program, entry = _executable(), _entry()
    header = _Header(program)
    yield from header.regions(entry - header.entry if header.is_pie and entry else 0)
    for start, path in _libraries():
        library = _Header(path)
        text = library.section(".text")
        if text is not None:
            yield from library.regions(start - text)


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
