"""A loop in optimised code that counts on what the compiler knew of the functions it calls."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import build_one, code_of, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live
MIX = "return (x + 3) * 5 ^ (x >> 2); }"
FEW = "return (x + 3) * 7 ^ (x >> 3); }"
MANY = (
    "unsigned s = 0; for (unsigned i = 1; i < (x & 7) + 2; i++) { s += (x * i) % (i + 3) + (s << 2); "
    "s ^= (x >> i) * 7u + s / (x | 1); } return s; }"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_one(tmp_path / "project", "loop", "-O2")


@pytest.fixture
def loop(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    yield program
    program.kill()


def fresh(project: Project, line: str) -> str:
    """What a fresh build of the sources answers."""
    program = project.folder / "fresh"
    subprocess.run(["gcc", "-O2", project.folder / "loop.c", "-o", program], check=True)
    again = Talk(program)
    try:
        return again.ask(line)
    finally:
        again.kill()


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_registers_that_a_running_loop_counts_on_are_not_overwritten(
    project: Project, loop: Talk, debugger: str
) -> None:
    source = project.folder / "loop.c"
    before, code = loop.ask("hello"), code_of(loop.process.pid)
    original = source.read_text()
    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(loop.process.pid)
        session.resume()
        source.write_text(original.replace(MIX, MANY))
        outcome = session.call("apply")
        assert outcome["outcome"] == "refused", outcome["text"]
        assert [(row["code"], row["symbol"]) for row in outcome["refusals"]] == [("caller-running", "mix")]
        assert "is in the old code of 'main'" in outcome["text"]
        assert code_of(loop.process.pid) == code
        assert loop.ask("hello") == before

        # What changes no more registers than before is no danger, and the loop calls it at once.
        source.write_text(original.replace(MIX, FEW))
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert loop.ask("hello") == fresh(project, "hello")
        # The loop is the same code as before, so the old version of nothing runs; undo has nothing to fear either.
        assert session.call("undo")["outcome"] == "undone"
        assert loop.ask("hello") == before
        session.stop()
        session.detach()
    assert loop.close() == 0


RETYPED = (("answer(int x)", "answer(int x, int y)"), ("x + 1", "x + y"), ("(atoi(line))", "(atoi(line), 5)"))
THROWING = ((" noexcept", ""), ("return x + 1", "if (x == 7) throw 9; return x + 1"))
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("debugger", "compiler", "level", "name", "edits", "why"),
    [
        ("gdb", "gcc", "-O0", "answer.c", RETYPED, "takes or returns something else now"),
        ("lldb", "clang-19", "-O0", "answer.c", RETYPED, "takes or returns something else now"),
        ("gdb", "clang++-19", "-O2", "silent.cpp", THROWING, "may throw now"),
        pytest.param("lldb", "g++", "-O2", "silent.cpp", THROWING, "may throw now", marks=slow),
        pytest.param("gdb", "g++", "-O0", "silent.cpp", THROWING, "may throw now", marks=slow),
        pytest.param("lldb", "clang++-19", "-O0", "silent.cpp", THROWING, "may throw now", marks=slow),
    ],
)
def test_what_a_running_caller_was_not_compiled_for_is_refused(
    debugger: str,
    compiler: str,
    level: str,
    name: str,
    edits: tuple[tuple[str, str], ...],
    why: str,
    tmp_path: Path,
) -> None:
    stem, suffix = name.split(".")
    project = build_one(tmp_path / "project", stem, level, compiler=compiler, suffix=suffix)
    source, talk = project.folder / name, Talk(project.program)
    original = edited = source.read_text()
    for before, after in edits:
        assert before in edited
        edited = edited.replace(before, after)
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            session.resume()
            assert talk.ask("7") == "8"
            source.write_text(edited)
            outcome = session.call("apply")
            assert [row["code"] for row in outcome["refusals"]] == ["caller-running"], outcome["text"]
            assert why in outcome["text"]
            assert talk.ask("7") == "8"
            source.write_text(original.replace("x + 1", "x + 2"))
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", outcome["text"]
            assert talk.ask("7") == "9"
            session.stop()
            session.detach()
        assert talk.close() == 0
    finally:
        talk.kill()
