"""The contract suite inside gdb: `gdb -x inside_gdb.py program`, launched or attached."""

# ruff: noqa: UP035

from __future__ import annotations

import os
import sys
from typing import Any, Callable

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import inside_debugger

JOB = inside_debugger.JOB


def main() -> None:
    for setting in ("pagination off", "confirm off", "breakpoint pending on"):
        gdb.execute(f"set {setting}")
    for line in JOB.get("settings", []):
        gdb.execute(line)
    gdb.execute(f"source {JOB['plugin']}")
    if JOB.get("remote"):
        gdb.execute(f"target remote {JOB['remote']}")
        gdb.execute("tbreak ready_for_contract")
        gdb.execute("continue")
    elif JOB["pid"]:
        gdb.execute(f"attach {JOB['pid']}")
    else:
        gdb.execute("tbreak ready_for_contract")
        gdb.execute("run </dev/null")
    from gdb_ipbp.inferior import GdbInferior

    inferior = GdbInferior(lambda error: None)
    checks = (announces_symbols, return_addresses_are_those_of_frames, steps_silently, leaves_the_users_things_alone)
    inside_debugger.run(inferior, address_of, break_at, {check.__name__: check for check in checks})
    gdb.execute("detach" if JOB["pid"] else "kill")


def address_of(name: str) -> int:
    return int(gdb.parse_and_eval(f"(unsigned long)&{name}"))


def break_at(address: int) -> Callable[[], None]:
    return gdb.Breakpoint(f"*{address:#x}").delete


def leaves_the_users_things_alone(subject: Any) -> None:
    gdb.selected_inferior().threads()[1].switch()
    gdb.execute("up", to_string=True)
    before = what_is_the_users()
    inside_debugger.do_a_bit_of_everything(subject)
    assert what_is_the_users() == before


def what_is_the_users() -> Any:
    names = ("scheduler-locking", "language", "unwindonsignal", "suppress-cli-notifications", "confirm")
    frame = gdb.selected_frame()
    selection = (gdb.selected_thread().num, frame.level(), frame.pc())
    return [gdb.parameter(name) for name in names], selection, len(gdb.breakpoints())


def announces_symbols(subject: Any) -> None:
    where = gdb.Breakpoint("patched_for_contract")
    try:
        assert where.pending
        with inside_debugger.mapped_image(subject):
            subject.inferior.exchange([], [JOB["image"]])
            assert address_of("patched_for_contract") == JOB["image_symbol"]
            assert [location.address for location in where.locations]
            assert gdb.find_pc_line(JOB["image_symbol"]).symtab.filename.endswith("patch.c")
            subject.inferior.exchange([JOB["image"]], [])
        assert "<PENDING>" in gdb.execute("info breakpoints", to_string=True)
        assert not any(objfile.filename == JOB["image"] for objfile in gdb.objfiles())
    finally:
        where.delete()


def return_addresses_are_those_of_frames(subject: Any) -> None:
    for thread in gdb.selected_inferior().threads():
        addresses = subject.inferior.return_addresses(thread.ptid[1])
        assert len(addresses) >= 1
        assert all(any(r.start <= a < r.end for r in subject.inferior.regions()) for a in addresses)


def steps_silently(subject: Any) -> None:
    """No stop handler runs, no breakpoint is hit, and the step of a thread is that thread's alone."""
    stops = []
    point = gdb.Breakpoint(f"*{subject.entry + subject.inner:#x}")
    gdb.events.stop.connect(stops.append)
    try:
        sys.modules["inferior_contract"].steps_one_thread_and_no_other(subject)
    finally:
        gdb.events.stop.disconnect(stops.append)
        hits = point.hit_count
        point.delete()
    assert not stops
    assert hits == 0


main()
