"""The debugger is killed between any two things that ipbp does to a program: that lives on in its old or its new code,
and the next debugger puts right what is left.

`dying.py` counts what ipbp does and kills the debugger before the n-th. What the program is then, it is asked itself,
and its memory map is compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest
from scenario import EDITS, Project, Talk, build_project
from sessions import Session, code_of, debug_with

from ipbp.cli.debuggers import find_debugger
from ipbp.host.procfs import regions

pytestmark = pytest.mark.live

BODY = next(edit for edit in EDITS if edit.name == "body")
APPLY, UNDO = 22, 22
"""Operations of a first patch of the talking program, and of its undo."""
MAPPED = 15
"""Of which these get the memory, for which the program's threads are needed."""
TYPICAL = {"apply": (4, 5, 9, 20, 22), "undo": (4, 9, 10, 22)}


@dataclass(frozen=True)
class Objects:
    """The program as it was built, and the object of an edited source beside the old one."""

    project: Project
    old: Path
    new: Path

    @property
    def words(self) -> str:
        return f"object {self.old} {self.new}"


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    project = build_project(tmp_path_factory.mktemp("dying") / "project", "gcc", ["-O0"])
    folder = project.folder
    shutil.copy(folder / "talk.o", folder / "old.o")
    project.edit(BODY)
    subprocess.run(["gcc", "-O0", "-D_GNU_SOURCE", "-g", "-c", "talk.c", "-o", "new.o"], cwd=folder, check=True)
    return Objects(project, folder / "old.o", folder / "new.o")


@pytest.fixture
def talk(objects: Objects) -> Iterator[Talk]:
    program = Talk(objects.project.program)
    program.until_it_reads()
    yield program
    program.kill()


def cases() -> Iterator[object]:
    for debugger in ("gdb", "lldb"):
        for what, count in (("apply", APPLY), ("undo", UNDO)):
            for state in ("running", "stopped"):
                for number in range(1, count + 1):
                    is_slow = number not in TYPICAL[what] or (state == "stopped") != (number % 2 == 0)
                    marks = [pytest.mark.slow] if is_slow else []
                    yield pytest.param(debugger, state, what, number, marks=marks)


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
@pytest.mark.parametrize("numbers", [(5, 6, 21), pytest.param(range(1, APPLY + 1), marks=pytest.mark.slow)])
def test_a_program_that_is_killed_is_one_clear_error_and_the_next_one_is_patched(
    objects: Objects, tmp_path: Path, debugger: str, numbers: Sequence[int]
) -> None:
    with debug_with(debugger, find_debugger(debugger)) as session:
        for number in (*numbers, 0):
            talk = Talk(objects.project.program)
            try:
                talk.until_it_reads()
                session.attach(talk.process.pid)
                if number == numbers[0]:
                    arm(session, tmp_path)
                kill_at(tmp_path, number, talk.process.pid)
                session.resume()
                outcome = session.call(objects.words)
                if number and outcome["outcome"] == "patched":  # it was, before the signal took effect
                    assert number > MAPPED, (number, outcome)
                elif number:
                    assert outcome["outcome"] == "error", (number, outcome)
                    assert outcome["error"]["code"] in ("inferior-gone", "inferior-none"), (number, outcome)
                    assert "Traceback" not in outcome["error"]["detail"], (number, outcome)
                else:
                    assert outcome["outcome"] == "patched", outcome
                    assert talk.ask("body 5") == "1005"
                    session.stop()
                    session.detach()
            finally:
                talk.kill()


@pytest.mark.parametrize(("debugger", "state", "what", "number"), list(cases()))
def test_the_program_lives_on(
    objects: Objects, talk: Talk, tmp_path: Path, debugger: str, state: str, what: str, number: int
) -> None:
    pid = talk.process.pid
    code, mapped = code_of(pid), mappings(pid)
    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(pid)
        arm(session, tmp_path)
        if state == "running":
            session.resume()
        if what == "undo":
            assert session.call(objects.words)["outcome"] == "patched"
        kill_at(tmp_path, number)
        assert dies(session, objects.words if what == "apply" else what)
    assert counted(tmp_path) == number
    assert answer_when_let_go(talk) in ("6", "1005")

    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(pid)
        session.resume()
        status = session.call("status")
        assert status["outcome"] == "ok", status
        is_patched = bool(status["patches"])
        assert talk.ask("body 5") == ("1005" if is_patched else "6")
        if not is_patched:
            assert code_of(pid) == code
            assert session.call(objects.words)["outcome"] == "patched"
            assert talk.ask("body 5") == "1005"
        undone = session.call("undo 0")
        assert undone["outcome"] == "undone", undone
        assert talk.ask("body 5") == "6"
        status = session.call("status")
        assert status["patches"] == []
        session.stop()
        session.detach()
    assert code_of(pid) == code
    left = [row for row in mappings(pid) if row not in mapped]
    # Memory of a patch that was undone is still on the books when the debugger died before it was looked at.
    assert sum(end - start for start, end, _, _ in left) == status["mapped"], left
    assert not left or (what, number) == ("undo", 6)
    assert len(mappings(pid)) - len(left) == len(mapped)
    assert talk.close() == 0


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=() if n in (4, 5, 9) else pytest.mark.slow) for n in range(1, APPLY + 1)]
)
def test_the_program_lives_on_behind_gdbserver(objects: Objects, talk: Talk, tmp_path: Path, number: int) -> None:
    """The server ends with its gdb."""
    pid = talk.process.pid
    code, mapped = code_of(pid), mappings(pid)
    with debug_with("gdbserver", find_debugger("gdb")) as session:
        session.attach(pid)
        arm(session, tmp_path)
        kill_at(tmp_path, number)
        assert dies(session, objects.words)
    assert counted(tmp_path) == number
    assert answer_when_let_go(talk) in ("6", "1005")

    with debug_with("gdb", find_debugger("gdb")) as session:
        session.attach(pid)
        status = session.call("status")
        assert status["outcome"] == "ok", status
        if status["patches"]:
            assert session.call("undo")["outcome"] == "undone"
        session.detach()
    assert code_of(pid) == code
    assert mappings(pid) == mapped
    assert talk.close() == 0


SPIN = """
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int answer(void) { return 1; }
static volatile int is_over;
static void end(int number) { is_over = number; }
int main(void) {
    unsigned long lanes[4] = {11, 22, 33, 44}, kept[4];
    double half = 0.5;
    signal(SIGUSR1, end);
    write(1, "ready\\n", 6);
    __asm__ volatile("fldl %2; vmovdqu %1, %%ymm7; 1: cmpl $0, %3; je 1b; vmovdqu %%ymm7, %0; fstpl %2"
                     : "=m"(kept) : "m"(lanes), "m"(half), "m"(is_over) : "xmm7", "memory");
    printf("%lu %lu %lu %lu %.1f\\n", kept[0], kept[1], kept[2], kept[3], half);
    return answer();
}
"""


@pytest.mark.parametrize("debugger", ["gdb", "lldb", "gdbserver"])
def test_a_thread_that_computes_has_its_vector_registers_again(tmp_path: Path, gcc: str, debugger: str) -> None:
    source, program = tmp_path / "spin.c", tmp_path / "spin"
    for name, text in (("old.o", SPIN), ("new.o", SPIN.replace("return 1", "return 2"))):
        source.write_text(text)
        subprocess.run([gcc, "-g", "-O1", "-c", source, "-o", tmp_path / name], cwd=tmp_path, check=True)
    subprocess.run([gcc, tmp_path / "old.o", "-o", program], check=True)
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with debug_with(debugger, find_debugger("lldb" if debugger == "lldb" else "gdb")) as session:
            session.attach(process.pid)
            arm(session, tmp_path)
            kill_at(tmp_path, 4)  # the thread is on its way into a call of ours
            assert dies(session, f"object {tmp_path}/old.o {tmp_path}/new.o")
        until_it_is_let_go(process.pid)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "11 22 33 44 0.5\n"
        assert process.wait() == 1


def test_the_operations_are_counted(objects: Objects, talk: Talk, tmp_path: Path) -> None:
    """Else the cases above would leave some out."""
    with debug_with("gdb", find_debugger("gdb")) as session:
        session.attach(talk.process.pid)
        arm(session, tmp_path)
        assert session.call(objects.words)["outcome"] == "patched"
        assert counted(tmp_path) == APPLY
        assert session.call("undo")["outcome"] == "undone"
        assert counted(tmp_path) == APPLY + UNDO


def arm(session: Session, folder: Path) -> None:
    kill_at(folder, 0)
    session.tell("hotpatch help")  # which loads what is wrapped
    line = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import dying; dying.arm"
    name = "lldb" if session.name.startswith("lldb") else "gdb"
    said = session.tell(f"{'python' if name == 'gdb' else 'script'} {line}({name!r}, {str(folder)!r})")
    assert "rror" not in said, said


def kill_at(folder: Path, number: int, victim: int = 0) -> None:
    """From now on it is counted to this operation."""
    (folder / "at").write_text(f"{number} {victim}")
    (folder / "log").write_text("")


def counted(folder: Path) -> int:
    return len((folder / "log").read_text().splitlines())


def dies(session: Session, words: str) -> bool:
    """Whether the debugger is gone after this command."""
    with contextlib.suppress(AssertionError, BrokenPipeError):  # it tells nothing any more
        session.call(words)
        return False
    return session.has_died()


def answer_when_let_go(talk: Talk) -> str:
    """What the program says once nobody traces it. A stop of job control is lifted, as a user would with `fg`."""
    until_it_is_let_go(talk.process.pid)
    answer = talk.ask("body 5")
    assert talk.process.poll() is None, f"the program ended with {talk.process.returncode}"
    return answer


def until_it_is_let_go(pid: int) -> None:
    deadline = monotonic() + 20
    while not re.search("TracerPid:\t0\n", Path(f"/proc/{pid}/status").read_text()):
        assert monotonic() < deadline, "it is still traced"
        sleep(0.01)
    if "State:\tT" in Path(f"/proc/{pid}/status").read_text():
        os.kill(pid, signal.SIGCONT)


def mappings(pid: int) -> list[tuple[int, int, str, str]]:
    """Without the stack and the heap, which grow."""
    return [
        (row.start, row.end, row.protection, row.path) for row in regions(pid) if row.path not in ("[stack]", "[heap]")
    ]
