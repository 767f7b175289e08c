"""A program that waits in a system call does not notice that it was stopped and made to map memory: no EINTR."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from debuggers import Gdb, Lldb

from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

HERE = Path(__file__).parent
LIMIT = 2000  # milliseconds, as in blocked.c
TIMED = {"nanosleep": 0, "clock_nanosleep": 0, "epoll_wait": 0, "poll": 0, "select": 0, "futex": -1}
ETIMEDOUT = 110
FOR_EVER = {
    "epoll_wait for ever": 1,
    "poll for ever": 1,
    "select for ever": 1,
    "read": 1,
    "futex for ever": 0,
    "sem_wait": 0,
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Path:
    path = tmp_path_factory.mktemp("blocked") / "blocked"
    source = HERE.parent / "programs" / "blocked.c"
    subprocess.run([gcc, "-g", "-D_GNU_SOURCE", source, "-o", path, "-pthread"], check=True)
    return path


@contextmanager
def waiting(program: Path, mode: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, once it waits; afterwards what came of it is looked at."""
    process = subprocess.Popen([program, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wait_until_blocked(process.pid)
        yield process
        assert_undisturbed(mode, process)
    finally:
        process.kill()
        process.communicate()


def wait_until_blocked(pid: int) -> None:
    # All of its threads sleep in the kernel.
    while any(state(task) != "S" for task in Path(f"/proc/{pid}/task").iterdir()):
        pass


def state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("mode", [*TIMED, *FOR_EVER])
def test_gdb(gdb: str, program: Path, mode: str) -> None:
    with Gdb(gdb) as debugger:
        debugger.tell(load_line("gdb"))
        debugger.tell(f"source {HERE / 'patching_motions.py'}")
        with waiting(program, mode) as process:
            debugger.tell(f"attach {process.pid}")
            debugger.wait_until(lambda: debugger.stopped)
            assert "motions done" in debugger.tell("python motions_stopped()")
            debugger.tell("continue &")
            debugger.tell("python motions_running(3)")
            debugger.wait_for("motions done:")
            debugger.tell("interrupt")
            debugger.wait_until(lambda: debugger.stopped)
            assert "motions done" in debugger.tell("python motions_stopped()")
            debugger.tell("detach")


@pytest.mark.parametrize("mode", [*TIMED, *FOR_EVER])
def test_lldb(lldb: str, program: Path, mode: str) -> None:
    with Lldb(lldb) as debugger:
        debugger.tell(load_line("lldb"))
        debugger.tell(f"command script import {HERE / 'patching_motions.py'}")
        with waiting(program, mode) as process:
            debugger.tell(f"process attach -p {process.pid}")
            debugger.wait_for("stopped")
            assert "motions done" in debugger.tell("script patching_motions.motions_stopped()")
            debugger.tell("process continue")
            assert "motions done:" in debugger.tell("script patching_motions.motions_running(3)")
            debugger.tell("process interrupt")
            debugger.wait_for("stopped")
            assert "motions done" in debugger.tell("script patching_motions.motions_stopped()")
            debugger.tell("process detach")


def assert_undisturbed(mode: str, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    if mode in FOR_EVER:
        wait_until_blocked(process.pid)  # again: a futex that changes before the kernel repeats the call is EAGAIN
        process.stdin.write(b"x")
    result, error, elapsed = map(int, process.stdout.readline().split())
    assert (result, error) == ({**TIMED, **FOR_EVER}[mode], ETIMEDOUT if mode == "futex" else 0)
    if mode in TIMED:
        assert elapsed >= LIMIT
