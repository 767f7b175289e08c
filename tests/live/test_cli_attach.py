"""`ipbp apply` and its kin drive a real gdb and a real lldb; the plugin here only pretends, and misbehaves.

Whatever it does, the program must be left running, with no debugger attached.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stub_plugins

from ipbp.cli import gdb_session, lldb_session, main
from ipbp.cli.target import is_stopped, status_field

pytestmark = pytest.mark.live

TICKING = """
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *tick(void *unused) { for (;;) { putchar('.'); fflush(stdout); usleep(2000); } return unused; }
int main(void) { pthread_t thread; pthread_create(&thread, 0, tick, 0); pthread_join(thread, 0); return 0; }
"""


@pytest.fixture(scope="module")
def ticking(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Path:
    folder = tmp_path_factory.mktemp("ticking")
    (folder / "tick.c").write_text(TICKING)
    subprocess.run([gcc, "-g", "tick.c", "-o", "tick", "-pthread"], cwd=folder, check=True)
    return folder / "tick"


@pytest.fixture
def program(ticking: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([ticking], stdout=subprocess.PIPE, bufsize=0)
    still_ticks(process)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The debugger's name; its plugin is the pretended one."""
    name: str = request.param
    request.getfixturevalue(name)
    file = tmp_path / f"{name}_stub.py"
    file.write_text({"gdb": stub_plugins.GDB, "lldb": stub_plugins.LLDB}[name] + stub_plugins.ACT)
    line = {"gdb": f"source {file}", "lldb": f"command script import {file}"}[name]
    for session in (gdb_session, lldb_session):
        monkeypatch.setattr(session, "load_line", lambda _: line)
        monkeypatch.setattr(session, "GRACE", 2.0)
    monkeypatch.setenv("IPBP_TEST_FLAG", str(tmp_path / "flag"))
    return name


def still_ticks(process: subprocess.Popen[bytes]) -> bool:
    """The program has written since we looked last (whatever the pipe held is read away first)."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    while process.stdout.read(1 << 16):
        pass
    os.set_blocking(process.stdout.fileno(), True)
    return process.stdout.read(1) == b"."


def is_left_alone(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None and status_field(process.pid, "TracerPid") == "0" and still_ticks(process)


def ipbp(verb: str, process: subprocess.Popen[bytes], debugger: str, *words: str) -> int:
    return main.main([verb, "--pid", str(process.pid), "--debugger", debugger, "--json", *words])


def test_the_outcome_comes_back_and_the_program_goes_on(
    debugger: str, program: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ipbp("undo", program, debugger) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["words"] == "undo --json --our-stop"
    assert row["times"]["stopped"] > 0
    assert ipbp("undo", program, debugger, "1") == 4
    assert is_left_alone(program)


def test_a_time_out_lets_the_program_go(
    debugger: str, program: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ipbp("undo", program, debugger, "2", "--timeout", "3") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "debugger-timeout"
    assert is_left_alone(program)


def test_a_debugger_that_dies_lets_the_program_go(
    debugger: str, program: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ipbp("undo", program, debugger, "3") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "debugger-died"
    assert is_left_alone(program)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_lets_the_program_go(
    debugger: str, program: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CTRL_C, str(tmp_path), debugger, str(program.pid)]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "flag").exists():
        assert shell.poll() is None
    shell.send_signal(number)
    printed, _ = shell.communicate(timeout=60)
    assert json.loads(printed)["error"]["code"] == "interrupted"
    assert is_left_alone(program)


def test_our_own_death_lets_the_program_go(debugger: str, program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    command = [sys.executable, "-c", CTRL_C, str(tmp_path), debugger, str(program.pid)]
    shell = subprocess.Popen(command)
    while not (tmp_path / "flag").exists():
        assert shell.poll() is None
    shell.kill()
    shell.wait()
    (tmp_path / "flag.end").touch()  # the debugger finishes what it does, and finds that nobody is there any more
    deadline = time.monotonic() + 20
    while status_field(program.pid, "TracerPid") != "0":
        assert time.monotonic() < deadline
    assert is_left_alone(program)


CTRL_C = """
import sys
from ipbp.cli import gdb_session, lldb_session, main
folder, debugger, pid = sys.argv[1:]
gdb_session.load_line = lambda name: f"source {folder}/gdb_stub.py"
lldb_session.load_line = lambda name: f"command script import {folder}/lldb_stub.py"
main.main(["undo", "2", "--json", "--pid", pid, "--debugger", debugger])
"""


def test_a_process_that_is_being_debugged_is_one_clear_error(
    gdb: str, debugger: str, program: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    other = subprocess.Popen(
        [gdb, "-nx", "-q", "-p", str(program.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while status_field(program.pid, "TracerPid") == "0":
        assert other.poll() is None
    assert ipbp("apply", program, debugger) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    other.communicate("detach\nquit\n")
    assert error["code"] == "process-traced"
    assert f"process {other.pid}" in error["fact"]
    assert is_left_alone(program)


def test_a_stopped_program_stays_stopped(debugger: str, program: subprocess.Popen[bytes]) -> None:
    program.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, program.pid, os.WSTOPPED)
    assert ipbp("undo", program, debugger) == 0
    deadline = time.monotonic() + 20
    while not is_stopped(program.pid):  # the signal is on its way
        assert time.monotonic() < deadline
    program.send_signal(signal.SIGCONT)
    assert is_left_alone(program)
