"""Registers and single steps of threads behind a stub, in the packets of the remote protocol itself.

What `ptrace` is for a process of this machine, and for the same reasons: gdb's own `stepi` is a resumption of the
program in all respects. It also takes many packets, and so does each register that gdb sets, while a link may take
20 ms for each. All registers of a thread are one packet here, read or written, and a step is one (gdb manual,
"Packets": `g`, `G`, `vCont`). gdb knows nothing of it, so it is told to forget what it knows of registers, and
the stub is left with the thread selected that gdb believes it has.
"""

from __future__ import annotations

import re
from typing import Callable, Iterable, Optional

import gdb

from gdb_ipbp.settings import kept_selection
from ipbp.errors import IpbpError

Layout = dict[str, tuple[int, int]]
"""Name of a register -> its offset and size in the reply to `g`."""

_TRAP = 5
_NOT_FOR_THE_PROGRAM = (2, 5, 17)  # SIGINT, SIGTRAP, SIGSTOP in gdb's numbers (include/gdb/signals.def)
_LOST = "Connect to the stub again; when this comes once more, report it."


class Packets:
    """The threads of one stopped process. What was read is kept until the thread moves, or `forget`."""

    def __init__(self, send: Callable[[str], Optional[bytes]], pid: int, layout: Layout, prefix: str) -> None:
        self._send = send
        self._pid = pid
        self._layout = layout
        self._prefix = prefix
        self._kept: dict[int, str] = {}  # thread -> its registers, in hex
        self._home: Optional[int] = None  # the thread that gdb believes to be selected
        self._selected = 0  # the one that is

    def read(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        """Registers by name, those that there are."""
        content = self._content(thread)
        found = {}
        for name in names:
            if name in self._layout:
                offset, size = self._layout[name]
                text = content[2 * offset : 2 * (offset + size)]
                if len(text) == 2 * size and "x" not in text:  # an x: not to be had
                    found[name] = int.from_bytes(bytes.fromhex(text), "little")
        return found

    def read_all(self, thread: int) -> bytes:
        """All registers as the stub tells them; zeros for those that are not to be had."""
        return bytes.fromhex(self._content(thread).replace("x", "0"))

    def write(self, thread: int, values: dict[str, int]) -> None:
        """Some of them; the others keep their values."""
        before = content = self._content(thread)
        for name, value in values.items():
            if name not in self._layout or not 0 <= value < 1 << 8 * self._layout[name][1]:
                raise IpbpError("inferior-register", f"{name} cannot be {value}", "Report this as a bug.")
            offset, size = self._layout[name]
            content = content[: 2 * offset] + value.to_bytes(size, "little").hex() + content[2 * (offset + size) :]
        if content == before:
            return
        self._select(thread)
        self._expect_ok(f"G{content}")
        self._kept[thread] = content

    def step(self, thread: int) -> None:
        """One instruction. A signal that comes instead is delivered: the thread is at its handler then."""
        self._go_raw()
        number = self._step(thread, "s")
        if number not in _NOT_FOR_THE_PROGRAM:
            self._step(thread, f"S{number:02x}")

    def forget(self) -> None:
        """The program ran."""
        self._kept.clear()
        self._home = None

    def go_home(self) -> None:
        """gdb's own commands may be used again."""
        if self._home is None:
            return
        if self._selected != self._home:
            self._expect_ok(f"Hg{self._name(self._home)}")
        self._home = None
        self._kept.clear()
        gdb.execute("maintenance flush register-cache", to_string=True)

    def _content(self, thread: int) -> str:
        self._go_raw()
        if thread not in self._kept:
            self._select(thread)
            content = (self._send("g") or b"").decode("ascii", "replace")
            if len(content) % 2 or not re.fullmatch("[0-9a-fx]+", content):
                raise IpbpError("inferior-remote", f"the stub does not tell registers: {content[:40]!r}", _LOST)
            self._kept[thread] = content
        return self._kept[thread]

    def _step(self, thread: int, action: str) -> int:
        # The number of the signal that it stopped with.
        self._kept.pop(thread, None)
        said = (self._send(f"vCont;{action}:{self._name(thread)}") or b"").decode("ascii", "replace")
        self._selected = 0  # the stub chooses the thread that it tells of
        stopped = re.match("[TS]([0-9a-f]{2})", said)
        if stopped is not None:
            return int(stopped[1], 16)
        if said[:1] in ("W", "X", "N"):
            raise IpbpError("inferior-gone", "the program ended while it was patched", "Start it again.")
        raise IpbpError("inferior-step", f"thread {thread} did not make a step: {said[:40]!r}", _LOST)

    def _go_raw(self) -> None:
        """Have gdb select a thread in the stub that we know of."""
        if self._home is not None:
            return
        thread = gdb.selected_thread()
        gdb.execute("maintenance flush register-cache", to_string=True)
        gdb.parse_and_eval("$pc").fetch_lazy()
        self._home = self._selected = thread.ptid[1]

    def _select(self, thread: int) -> None:
        if self._selected != thread:
            self._expect_ok(f"Hg{self._name(thread)}")
            self._selected = thread

    def _name(self, thread: int) -> str:
        return f"{self._prefix}{thread:x}"

    def _expect_ok(self, packet: str) -> None:
        said = self._send(packet)
        if said != b"OK":
            fact = f"the stub answers {said!r} to {packet[:20]!r}"
            raise IpbpError("inferior-remote", fact, _LOST)


def packets_of(pid: int) -> Optional[Packets]:
    """None where the stub cannot step one thread and leave the others, or gdb does not say how registers lie; nor in
    non-stop mode, in which stops are told in another way."""
    if gdb.parameter("non-stop") or re.search(r"is on|currently on", _target_non_stop()):
        return None
    send = gdb.selected_inferior().connection.send_packet
    actions = (send("vCont?") or b"").split(b";")
    layout = _layout()
    if not layout or not {b"s", b"S"} <= set(actions):
        return None
    current = send("qC") or b""  # "QCp1f4.1f4" or "QC1f4"
    return Packets(send, pid, layout, f"p{pid:x}." if current.startswith(b"QCp") else "")


def _target_non_stop() -> str:
    return str(gdb.execute("maintenance show target-non-stop", to_string=True))


def _layout() -> Layout:
    # "rip 16 16 128 8 code_ptr ... 16 128": name, number, rel, offset, size, type, number in the protocol, offset in g
    with kept_selection():
        text = gdb.execute("maintenance print remote-registers", to_string=True)
    rows = re.findall(r"^\s*(\w+)\s+\d+\s+\d+\s+\d+\s+(\d+)\s.*\s\d+\s+(\d+)\s*$", text, re.MULTILINE)
    return {name: (int(offset), int(size)) for name, size, offset in rows}
