"""A running program is stopped, worked on and resumed many times over; its user sees nothing of it."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from debuggers import Gdb, GdbConsole, Lldb

from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

HERE = Path(__file__).parent
MOTIONS = HERE / "patching_motions.py"
COUNT = 50
NOISE = ("stopped", "signal", "Switching", "Catchpoint", "Continuing", "Thread", "Hook")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Path:
    path = tmp_path_factory.mktemp("busy") / "busy"
    source = HERE.parent / "programs" / "contract.c"
    subprocess.run([gcc, "-g", source, "-o", path, "-pthread"], check=True)
    return path


@pytest.fixture
def process(program: Path) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    yield running
    end(running)


def test_gdb_shows_nothing_of_it(gdb: str, process: subprocess.Popen[bytes]) -> None:
    with GdbConsole(gdb) as debugger:
        attach_gdb(debugger, process.pid)
        debugger.tell("break entry_of_contract")
        before = users_things(debugger)
        debugger.tell("continue &")
        debugger.tell(f"python motions_running({COUNT})")
        printed = debugger.wait_for("motions done:")
        assert f"{COUNT} times, {COUNT} silent" in printed
        assert not [word for word in NOISE if word in printed], printed
        assert "(running)" in debugger.tell("info threads")
        debugger.tell("interrupt")
        debugger.wait_for("SIGINT")
        debugger.tell("info inferiors")  # whatever follows the stop has been printed after this
        assert users_things(debugger) == before
        debugger.tell("detach")
    assert ends_well(process)


def end(running: subprocess.Popen[bytes]) -> None:
    running.kill()
    running.wait()
    for stream in (running.stdin, running.stdout):
        assert stream is not None
        stream.close()


def users_things(debugger: GdbConsole) -> list[str]:
    lines = ("info signals SIGWINCH", "info breakpoints", "show suppress-cli-notifications", "print $bpnum")
    return [debugger.tell(line).replace("(gdb) ", "").replace("$1 = ", "$2 = ") for line in lines]


def attach_gdb(debugger: GdbConsole | Gdb, pid: int) -> None:
    debugger.tell(load_line("gdb"))
    debugger.tell(f"source {MOTIONS}")
    debugger.tell(f"attach {pid}")


def test_lldb_shows_nothing_of_it(lldb: str, process: subprocess.Popen[bytes]) -> None:
    with Lldb(lldb) as debugger:
        attach_lldb(debugger, process.pid)
        debugger.tell("target stop-hook add -o \"script print('my', 'hook')\"")
        assert "my hook" not in debugger.tell("script patching_motions.motions_stopped()")
        debugger.tell("process continue")
        printed = debugger.tell(f"script patching_motions.motions_running({COUNT})").partition("\n")[2]
        assert f"{COUNT} times, {COUNT} silent" in printed
        assert "is running" in debugger.tell("process status")
        debugger.tell("process detach")
    assert ends_well(process)


def attach_lldb(debugger: Lldb, pid: int) -> None:
    debugger.tell(load_line("lldb"))
    debugger.tell(f"command script import {MOTIONS}")
    debugger.tell(f"process attach -p {pid}")
    debugger.wait_for("stopped")


def ends_well(process: subprocess.Popen[bytes]) -> bool:
    """The program does what it did, to its end."""
    assert process.stdin is not None
    process.stdin.close()
    return process.wait(timeout=20) == 0


@pytest.fixture
def hot(tmp_path: Path, gcc: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program all of whose threads are in and out of one function for ever."""
    yield from started(tmp_path / "hot", HOT, gcc)


@pytest.fixture
def forking(tmp_path: Path, gcc: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that forks until it reads a dot, beside two threads; asked by a byte, it tells of its children."""
    yield from started(tmp_path / "forking", FORKING, gcc)


def started(path: Path, source: str, compiler: str) -> Iterator[subprocess.Popen[bytes]]:
    path.with_suffix(".c").write_text(source)
    subprocess.run([compiler, "-g", path.with_suffix(".c"), "-o", path, "-pthread"], check=True)
    running = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    yield running
    end(running)


HOT = """
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
volatile unsigned long count;
__attribute__((noinline)) void hot(void) { count++; }
static void *spin(void *unused) { for (;;) hot(); return unused; }
int main(void)
{
    char byte;
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, 0, spin, 0);
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
"""


FORKING = """
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile long count, strange, over;
static void *rest(void *unused) { for (;;) usleep(300); return unused; }
static void *forks(void *unused)
{
    for (; !over; count++) {
        int status;
        pid_t child = fork();
        if (!child)
            _exit(42);
        if (child < 0 || waitpid(child, &status, 0) != child || status != 42 << 8)
            strange++;
        usleep(1000);
    }
    return unused;
}
int main(void)
{
    char byte;
    pthread_t thread;
    pthread_create(&thread, 0, rest, 0);
    pthread_create(&thread, 0, rest, 0);
    pthread_create(&thread, 0, forks, 0);
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {
        if (byte == '.') {
            over = 1;
            pthread_join(thread, 0);
        }
        printf("%ld %ld\\n", count, strange);
        fflush(stdout);
    }
    return 0;
}
"""


def test_lldb_stops_a_program_that_forks_all_the_time(lldb: str, forking: subprocess.Popen[bytes]) -> None:
    with Lldb(lldb) as debugger:
        attach_lldb(debugger, forking.pid)
        # Else it interrupts the program for a command, and forgets a fork that comes just then.
        debugger.tell(f"script patching_motions.motions_meanwhile({COUNT})")
        debugger.tell("process continue")
        debugger.wait_until(lambda: "motions done" in debugger.history or "motions failed" in debugger.history)
        assert f"{COUNT} times, {COUNT} silent" in debugger.history
        before, _ = children(debugger, forking, b"?")
        debugger.wait_until(lambda: children(debugger, forking, b"?")[0] > before + 10)
        _, strange = children(debugger, forking, b".")  # lldb may hang when it detaches from one that forks just then
        assert strange == 0
        debugger.tell("process detach")
    assert ends_well(forking)


def children(debugger: Lldb, program: subprocess.Popen[bytes], byte: bytes) -> tuple[int, int]:
    """How many it has had, and how many of these were not what they should be."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(byte)
    debugger.wait_until(lambda: bool(select.select([program.stdout], [], [], 0)[0]))
    count, strange = program.stdout.readline().split()
    return int(count), int(strange)


def test_gdb_keeps_a_breakpoints_stop_that_comes_first(gdb: str, hot: subprocess.Popen[bytes]) -> None:
    with Gdb(gdb) as debugger:
        attach_gdb(debugger, hot.pid)
        debugger.wait_until(lambda: debugger.stopped)
        for _ in range(5):
            debugger.tell("continue &")
            debugger.wait_until(lambda: not debugger.stopped)
            debugger.tell("python gdb.Breakpoint('hot'); motions_running(1)")
            debugger.wait_for("motions done:")
            debugger.wait_until(lambda: debugger.stopped)
            assert "hot ()" in debugger.tell("frame")
            debugger.tell("delete")
        debugger.tell("detach")
    assert ends_well(hot)


def test_lldb_keeps_a_breakpoints_stop_that_comes_first(lldb: str, hot: subprocess.Popen[bytes]) -> None:
    with Lldb(lldb) as debugger:
        attach_lldb(debugger, hot.pid)
        debugger.tell("hotpatch status")  # adds the stop hook before a stop may come, which crashes lldb (19)
        for _ in range(5):
            debugger.tell("process continue")
            assert "motions done:" in debugger.tell("script patching_motions.motions_at('hot')")
            debugger.wait_until(lambda: "hot" in debugger.tell("process status"))
            debugger.tell("breakpoint delete")
        debugger.tell("process detach")
    assert ends_well(hot)


def test_a_program_that_ends_instead_of_stopping_is_gone(gdb: str, process: subprocess.Popen[bytes]) -> None:
    with GdbConsole(gdb) as debugger:
        attach_gdb(debugger, process.pid)
        debugger.tell("continue &")
        debugger.tell(f"python import os; os.kill({process.pid}, 9); motions_running(1)")
        assert "inferior-gone" in debugger.wait_for("inferior-gone")
