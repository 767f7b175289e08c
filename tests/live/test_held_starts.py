"""Programs are held from their start to their `main`, however they are made and started, and nobody else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipbp.cli.starts import main_of
from ipbp.host import procfs

pytestmark = pytest.mark.live

PROGRAM = """
#include <pthread.h>
#include <unistd.h>
static void *wait_for_ever(void *nothing) { for (;;) pause(); return nothing; }
__attribute__((constructor)) static void begin(void) { pthread_t thread; pthread_create(&thread, 0, wait_for_ever, 0); }
int main(void) { return write(1, "main\\n", 5) == 5 ? 0 : 1; }
"""
WAYS = {"pie": (), "fixed": ("-no-pie",), "static": ("-static",)}
TOO_MANY = "import os; os.execv({0!r}, ['x'] * 3_000_000)"  # E2BIG, when the file has been opened


class Holder:
    """What `ipbp.cli.holder` says. Its parent, whose children it does not hold, is a shell."""

    def __init__(self, *named: int) -> None:
        line = " ".join([sys.executable, "-m", "ipbp.cli.holder", *map(str, named)])
        self.process = subprocess.Popen(["sh", "-c", f"{line}; :"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.hear() == "ready"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def watch(self, program: Path) -> None:
        self.tell(f"watch {main_of(str(program)):x} {os.fsencode(program).hex()}")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        self.process.stdout.close()


@pytest.fixture
def holder() -> Iterator[Holder]:
    found = Holder()
    yield found
    found.close()


def build(folder: Path, gcc: str, *options: str) -> Path:
    (folder / "a.c").write_text(PROGRAM)
    subprocess.run([gcc, *options, "a.c", "-o", "a", "-pthread"], cwd=folder, check=True)
    return folder / "a"


def start(holder: Holder, program: Path) -> subprocess.Popen[bytes]:
    """The program once it is watched: before that it runs to its end."""
    deadline = time.monotonic() + 30
    while True:
        process = subprocess.Popen([program], stdout=subprocess.PIPE)
        if _waits_or_ends(process) != 0:
            return process
        process.communicate()
        assert time.monotonic() < deadline


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _waits_or_ends(process: subprocess.Popen[bytes]) -> int | None:
    # None when it is stopped.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return process.returncode
        if procfs.state(process.pid, process.pid) == "T":
            return None
        time.sleep(0.001)
    raise AssertionError("it neither stops nor ends")


@pytest.mark.parametrize("way", WAYS)
def test_a_program_is_held_at_main_with_its_libraries(tmp_path: Path, gcc: str, way: str, holder: Holder) -> None:
    program = build(tmp_path, gcc, *WAYS[way])
    holder.watch(program)
    process = start(holder, program)
    assert holder.hear() == f"held {process.pid}"
    where = procfs.system_call(process.pid, process.pid)
    assert where is not None
    start_of_file = min(row.start for row in procfs.regions(process.pid) if row.path == str(program))
    assert where.pc == main_of(str(program)) + (start_of_file if way == "pie" else 0)
    assert len(os.listdir(f"/proc/{process.pid}/task")) == 2  # its constructor has run
    assert procfs.status(process.pid, process.pid)["TracerPid"] == "0"
    holder.tell(f"go {process.pid}")
    assert process.communicate()[0] == b"main\n"
    assert process.returncode == 0


def test_what_has_no_main_runs_and_is_told(tmp_path: Path, gcc: str, holder: Holder) -> None:
    named = build(tmp_path, gcc)
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, named], check=True)
    holder.watch(stripped)
    holder.watch(named)
    end(start(holder, named))
    assert holder.hear().startswith("held ")
    process = subprocess.Popen([stripped], stdout=subprocess.PIPE)
    assert process.communicate()[0] == b"main\n"
    assert holder.hear() == f"runs {process.pid}"


def test_an_exec_that_fails_goes_on_in_its_old_program(tmp_path: Path, gcc: str, holder: Holder) -> None:
    program = build(tmp_path, gcc)
    holder.watch(program)
    end(start(holder, program))
    assert holder.hear().startswith("held ")
    failing = [sys.executable, "-c", TOO_MANY.format(str(program))]
    done = subprocess.run(failing, capture_output=True, text=True, timeout=60)
    assert "Argument list too long" in done.stderr
    process = start(holder, program)
    assert holder.hear() == f"held {process.pid}"  # and nothing of the other one
    end(process)


def test_strangers_are_not_held_and_all_are_let_go_in_the_end(tmp_path: Path, gcc: str) -> None:
    program = build(tmp_path, gcc)
    of_nobody = Holder(1 << 22)  # no process has that number: kernel.pid_max is no larger
    of_nobody.watch(program)
    ours = Holder(os.getpid())
    ours.watch(program)
    process = start(ours, program)
    assert ours.hear() == f"held {process.pid}"
    ours.close()
    assert process.communicate()[0] == b"main\n"
    of_nobody.close()
