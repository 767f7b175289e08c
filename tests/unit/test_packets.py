"""What is told to lldb's server, and what is made of its answers: a server that is played, in words of the real one."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from ipbp.errors import IpbpError

PID, THREAD, RAX, RDI, RSI, RSP, RIP = 100, 0x65, 0x00, 0x04, 0x05, 0x07, 0x10


class Result:
    """lldb's SBCommandReturnObject."""

    output = ""

    def GetOutput(self) -> str:
        return self.output

    def GetError(self) -> str:
        return "no answer"


class Played:
    """The server with one thread. `stops`: what each resumption ends with, a signal and registers, or a whole reply."""

    def __init__(self, *stops: Any) -> None:
        self.stops = list(stops)
        self.packets: list[str] = []
        self.registers = {number: 0x1000 + number for number in range(0x12)}
        self.kept: dict[int, int] = {}

    def HandleCommand(self, line: str, result: Result) -> None:
        packet = line.removeprefix("process plugin packet send ")
        self.packets.append(packet)
        result.output = f"  packet: {packet}\nresponse: {self._answer(packet)}\n"

    def _answer(self, packet: str) -> str:
        if packet.startswith("vCont"):
            return self._stop(self.stops.pop(0))
        if packet.startswith("QSave"):
            self.kept = dict(self.registers)
            return "7"
        if packet.startswith("QRestore"):
            self.registers = dict(self.kept)
            return "OK"
        if packet.startswith("p"):
            return self.registers[int(packet[1:].partition(";")[0], 16)].to_bytes(8, "little").hex()
        found = re.match(r"P([0-9a-f]+)=([0-9a-f]{16});", packet)
        if found:
            self.registers[int(found[1], 16)] = int.from_bytes(bytes.fromhex(found[2]), "little")
        return "OK"

    def _stop(self, stop: Any) -> str:
        if isinstance(stop, str):
            return stop
        number, registers = stop
        self.registers.update(registers)
        shown = "".join(f"{at:02x}:{value.to_bytes(8, 'little').hex()};" for at, value in self.registers.items())
        return f"T{number:02x}thread:{THREAD:x};name:a;{shown}"


@pytest.fixture
def packets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, without lldb."""
    lldb = ModuleType("lldb")
    lldb.SBCommandReturnObject = Result  # type: ignore[attr-defined]
    lldb.SBCommandInterpreter = Played  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lldb", lldb)
    monkeypatch.delitem(sys.modules, "lldb_ipbp.packets", raising=False)
    from lldb_ipbp import packets

    monkeypatch.setattr(packets.procfs, "write_memory", lambda pid, address, content: None)
    monkeypatch.setattr(packets.procfs, "read_memory", lambda pid, address, size: b"\xcc")
    yield packets
    sys.modules.pop("lldb_ipbp.packets", None)


def resumptions(played: Played) -> list[str]:
    return [packet for packet in played.packets if packet.startswith("vCont")]


def test_a_step_is_one_instruction_of_one_thread(packets: Any) -> None:
    played = Played((signal.SIGTRAP, {RIP: 0x4004}))
    assert packets.Server(played, PID, lambda number: True).step(THREAD) == 0x4004
    assert played.packets == ["vCont;s:65"]


@pytest.mark.parametrize(("passes", "action"), [(True, "S0e"), (False, "s")])
def test_a_signal_that_comes_before_a_step_is_delivered_or_dropped(packets: Any, passes: bool, action: str) -> None:
    played = Played((signal.SIGALRM, {}), (signal.SIGTRAP, {RIP: 0x4004}))
    assert packets.Server(played, PID, lambda number: passes).step(THREAD) == 0x4004
    assert resumptions(played) == ["vCont;s:65", f"vCont;{action}:65"]


def test_signals_without_end_are_an_error(packets: Any) -> None:
    with pytest.raises(IpbpError) as error:
        packets.Server(Played(*[(signal.SIGALRM, {})] * 8), PID, lambda number: True).step(THREAD)
    assert error.value.code == "inferior-step"


@pytest.mark.parametrize(
    ("reply", "code"), [("W00", "inferior-gone"), ("X09", "inferior-gone"), ("E16", "inferior-step")]
)
def test_what_the_server_refuses_or_the_end_of_the_program_is_said(packets: Any, reply: str, code: str) -> None:
    with pytest.raises(IpbpError) as error:
        packets.Server(Played(reply), PID, lambda number: True).step(THREAD)
    assert error.value.code == code


def test_a_call_gives_its_result_and_leaves_the_registers_as_they_were(packets: Any) -> None:
    played = Played((signal.SIGSEGV, {RIP: 0, RAX: 42}))
    before = dict(played.registers)
    assert packets.Server(played, PID, lambda number: True).call(THREAD, 0x5000, (1, 2)) == (42, "")
    assert played.registers == before
    set_to = dict(re.findall(r"P([0-9a-f]+)=([0-9a-f]{16});", " ".join(played.packets)))
    values = {int(name, 16): int.from_bytes(bytes.fromhex(text), "little") for name, text in set_to.items()}
    assert (values[RIP], values[RDI], values[RSI]) == (0x5000, 1, 2)
    assert values[RSP] % 16 == 8
    assert values[RSP] <= before[RSP] - 128


@pytest.mark.parametrize(("is_pending", "sent"), [(False, [signal.SIGSTOP]), (True, [signal.SIGCONT, signal.SIGSTOP])])
def test_a_stop_signal_of_the_servers_own_is_not_taken_for_ours(
    packets: Any, monkeypatch: pytest.MonkeyPatch, is_pending: bool, sent: list[int]
) -> None:
    signals: list[int] = []
    monkeypatch.setattr(packets.tasks, "has_pending", lambda pid, thread, number: is_pending)
    monkeypatch.setattr(packets.tasks, "send", lambda pid, thread, number: signals.append(number))
    packets.Server(Played((signal.SIGSTOP, {})), PID, lambda number: True).rest(THREAD)
    assert signals == sent


def test_registers_have_the_servers_numbers(packets: Any) -> None:
    # lldb-server's own answer to qRegisterInfo4 and qRegisterInfo5: rdi, rsi.
    played = Played()
    server = packets.Server(played, PID, lambda number: True)
    server.set_registers(THREAD, {"rax": 1, "rdi": 2, "rsi": 3, "rsp": 4, "r15": 5, "rip": 6, "eflags": 7})
    assert [played.registers[number] for number in (RAX, RDI, RSI, RSP, 0x0F, RIP, 0x11)] == [1, 2, 3, 4, 5, 6, 7]
    assert server.registers(THREAD, ("rdi", "rsi", "orig_rax")) == {"rdi": 2, "rsi": 3}


def test_a_call_that_crashes_is_named_and_taken_back(packets: Any) -> None:
    played = Played((signal.SIGSEGV, {RIP: 0x5008}))
    before = dict(played.registers)
    assert packets.Server(played, PID, lambda number: True).call(THREAD, 0x5000, ()) == (0, "SIGSEGV")
    assert played.registers == before


def test_a_breakpoint_inside_of_a_call_is_stepped_over(packets: Any) -> None:
    played = Played(
        (signal.SIGTRAP, {RIP: 0x5008}), (signal.SIGTRAP, {RIP: 0x5009}), (signal.SIGSEGV, {RIP: 0, RAX: 7})
    )
    assert packets.Server(played, PID, lambda number: True).call(THREAD, 0x5000, ()) == (7, "")
    told = [packet for packet in played.packets if packet[0] in "zZv"]
    assert told == ["vCont;c:65", "z0,5008,1", "vCont;s:65", "Z0,5008,1", "vCont;c:65"]


@pytest.mark.parametrize(
    ("untold", "meanwhile"),
    [((14, 11), "QPassSignals:0e"), ((11,), f"QPassSignals:{signal.SIGWINCH:02x}"), ((14,), "")],
)
def test_the_signal_that_ends_a_call_is_told(packets: Any, untold: tuple[int, ...], meanwhile: str) -> None:
    """Whatever lldb lets its server pass on without a word; afterwards that is so again."""
    played = Played((signal.SIGSEGV, {RIP: 0, RAX: 42}))
    server = packets.Server(played, PID, lambda number: True, untold)
    assert server.call(THREAD, 0x5000, ()) == (42, "")
    again = "QPassSignals:" + ";".join(f"{number:02x}" for number in untold)
    told = [packet for packet in played.packets if packet.startswith(("QPass", "vCont"))]
    assert told == ([meanwhile, "vCont;c:65", again] if meanwhile else ["vCont;c:65"])
