"""A process of Windows behind gdbserver.exe, on Windows or under Wine.

No file of that machine is read and no kernel is asked: where its images are, and its stacks, says the process's own
memory (`ipbp.host.pe_memory`), to which gdb's `$_tlb` leads. What else is mapped is not known, so Windows is asked for
memory at places that it may refuse.

gdbserver (13) knows no vector registers but SSE's there. Calls of functions may change the others, as the calling
convention lets them; so none is made by a thread that stands in code which uses such registers.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, contextmanager
from typing import Iterator, Optional

import gdb

from gdb_ipbp.remote import RemoteProcess, executable, selected
from gdb_ipbp.settings import changed, kept_selection
from ipbp.errors import IpbpError
from ipbp.host.abi import WINDOWS, Abi
from ipbp.host.memory import Readable
from ipbp.host.pe_memory import (
    LAST_ERROR,
    Module,
    base_name,
    exports,
    function_at,
    modules,
    peb_of,
    regions_of,
    stack_of,
)
from ipbp.host.quiet import BUSY
from ipbp.protocol import Description, Region

_WIDE = re.compile(r"[%\s,(](?:[yz]mm\d|k[0-7]\b)")
"""Registers that gdbserver does not keep, in a disassembly."""
_CALLS = (
    bytes([0x0F, 0x05]),  # syscall
    bytes([0xFF, 0x14, 0x25, 0x00, 0x10, 0xFE, 0x7F]),  # call [0x7ffe1000], in Wine
)


def windows_process_block() -> Optional[int]:
    """Address of the block (PEB) of the selected inferior, None when it is no process of Windows for gdb."""
    if "Windows" not in gdb.execute("show osabi", to_string=True).split("default OS ABI")[0]:
        return None
    teb = _teb()
    return peb_of(_Memory(), teb) if teb else None


def _teb() -> int:
    # Of the selected thread; 0 where the stub does not tell.
    try:
        return int(gdb.parse_and_eval("$_tlb"))
    except gdb.error:
        return 0


class _Memory(Readable):
    def read(self, address: int, size: int) -> bytes:
        try:
            return bytes(gdb.selected_inferior().read_memory(address, size)) if size else b""
        except (gdb.MemoryError, OverflowError) as error:
            fact = f"cannot read {size} bytes at {address:#x}"
            raise IpbpError("inferior-memory", fact, "Let the program run up to `main`, then patch.") from error


class WindowsProcess(RemoteProcess):
    """`RemoteProcess` of one. `block`: address of its PEB."""

    def __init__(self, name: str, block: int) -> None:
        super().__init__(name, is_process=True, kernel=None, packets=None)
        self._block = block
        self._modules: list[Module] = []

    @property
    def is_enough(self) -> bool:
        return True

    @property
    def _abi(self) -> Abi:
        return WINDOWS

    def describe(self, pid: int, stopped: bool) -> Description:
        return Description(
            pid=pid,
            triple="x86_64-windows",
            debugger=f"gdb {gdb.VERSION}",
            executable=executable(),
            stopped=stopped,
            attached=True,
            local=False,
            remote=self.name,
        )

    def forget(self) -> None:
        super().forget()
        self._modules = []

    def regions(self) -> list[Region]:
        if not self._regions:
            self._regions = list(self._told())
        return self._with_stacks([*self._regions, *self.mapped.values()])

    def _told(self) -> Iterator[Region]:
        for number, module in enumerate(self._loaded()):
            yield from regions_of(_Memory(), module, module.path if number else executable())
        with kept_selection():
            for thread in self._alive():
                thread.switch()
                yield Region(*stack_of(_Memory(), _teb()), "rw", 0, "[stack]")

    def step(self, number: int) -> None:
        """Of several threads that come to breakpoints Windows tells one after the other: the place of one that gdb is
        still to be told of is behind the trap, in the midst of an instruction.

        Errors: `safepoint-stuck`.
        """
        pc = self.registers(number, (self._abi.pc,))[self._abi.pc]
        if len(self._alive()) > 1 and any(
            row.address == pc - 1 for point in gdb.breakpoints() for row in point.locations
        ):
            fact = f"thread {number} has come to a breakpoint of which gdb has not been told yet"
            raise IpbpError("safepoint-stuck", fact, "Continue for a moment and try again.")
        super().step(number)

    def unwinding(self) -> AbstractContextManager[None]:
        """gdb ends at `main` otherwise, and what is behind that would count as not unwound."""
        return changed(**{"backtrace past-main": "on", "backtrace past-entry": "on"})

    def proved(self, addresses: list[int]) -> list[int]:
        """0 stands at the end when gdb has come to the thread's first function, and when it went wrong."""
        if addresses[-1:] == [0] and not (len(addresses) > 1 and self._is_beginning(addresses[-2])):
            return addresses[:-1]
        return addresses

    def _is_beginning(self, address: int) -> bool:
        library = next((row for row in self._loaded() if base_name(row.path) == "ntdll.dll"), None)
        start = None if library is None else exports(_Memory(), library).get("RtlUserThreadStart")
        if library is None or start is None:
            return False
        low, high = function_at(_Memory(), library, start)
        return low <= address < high

    def _loaded(self) -> list[Module]:
        self._modules = self._modules or modules(_Memory(), self._block)
        return self._modules

    def require_movable_frames(self) -> None:
        fact = "frames of Windows programs stay in old code so far"
        raise IpbpError("frame-machine", fact, "Let the function return.")

    @contextmanager
    def calling(self) -> Iterator[None]:
        """A thread that is in no system call: another one would make the call when it comes back from there. Its
        GetLastError is as before afterwards.

        Errors: `program-busy` where there is none; `inferior-register` where it uses vector registers that are not
        kept.
        """
        with kept_selection(), selected(self._caller()):
            self._require_narrow(gdb.newest_frame().pc())
            place, memory = _teb() + LAST_ERROR, gdb.selected_inferior()
            before = _Memory().read(place, 4)
            try:
                yield
            finally:
                memory.write_memory(place, before)

    def _caller(self) -> int:
        chosen = gdb.selected_thread().ptid[1]
        for thread in sorted(self.threads(), key=lambda row: row.id != chosen):
            if not _is_in_system_call(thread.pc):
                return thread.id
        raise IpbpError(
            BUSY,
            "every thread is in a system call, and one that calls a function for ipbp would do so when it comes back",
            "Stop the program by a breakpoint in its own code.",
        )

    def _require_narrow(self, pc: int) -> None:
        module = next((row for row in self._loaded() if row.start <= pc < row.start + row.size), None)
        if module is not None:
            start, end = function_at(_Memory(), module, pc)
            rows = gdb.selected_inferior().architecture().disassemble(start, end - 1)
            if not any(_WIDE.search(row["asm"]) for row in rows):
                return
        raise IpbpError(
            "inferior-register",
            f"a function is to be called by the thread at {pc:#x}, whose code may have values in vector registers that "
            "gdbserver.exe cannot put back",
            "Stop the program elsewhere: at the beginning of a function.",
        )


def _is_in_system_call(pc: int) -> bool:
    """Whether a system call's instruction is before that, or Wine's way into its own libraries."""
    try:
        before = _Memory().read(pc - 8, 8)
    except IpbpError:
        return False
    return any(before.endswith(code) for code in _CALLS)
