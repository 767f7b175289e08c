"""Exceptions that are nested in others, and those that end the program because nothing may let them out."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from scenario import Talk
from sessions import build_one, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live
LIBCXX = ("-stdlib=libc++",)
RUNS = [
    (debugger, compiler, level, library)
    for debugger in ("gdb", "lldb")
    for compiler, library in (("g++", ()), ("clang++-19", ()), ("clang++-19", LIBCXX))
    for level in ("-O0", "-O2")
]
SLICE = (("gdb", "g++", "-O2", ()), ("lldb", "clang++-19", "-O0", LIBCXX))


@pytest.mark.parametrize(
    ("debugger", "compiler", "level", "library"),
    [row if row in SLICE else pytest.param(*row, marks=pytest.mark.slow) for row in RUNS],
)
def test_nested_exceptions_and_what_ends_the_program(
    debugger: str, compiler: str, level: str, library: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    project = build_one(folder, "nested", level, *library, compiler=compiler, link=library, suffix="cpp")
    source, talk = project.folder / "nested.cpp", Talk(project.program)

    def edit(before: str, after: str) -> None:
        text = source.read_text()
        assert before in text
        source.write_text(text.replace(before, after))
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]

    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            session.resume()
            assert [talk.ask("n 1"), talk.ask("n 2")] == ["-inner -outer calm", "-inner -outer outer 1 < inner 1"]
            edit('"inner 1"', '"inner 2"')  # new code throws through old code
            assert talk.ask("n 2") == "-inner -outer outer 1 < inner 2"
            edit('std::logic_error("outer 1")', 'std::domain_error("outer 2")')  # and a type that is new to the file
            assert talk.ask("n 2") == "-inner -outer outer 2 < inner 2"
            edit("return x + 1 +", "outer(x); return x + 2 +")
            assert talk.ask("f 1") == "-inner -outer 3"
            session.stop()
            session.detach()
        said = talk.ask("f 2")
        assert said.endswith("ended by outer 2 < inner 2"), said
        assert talk.process.wait(timeout=20) == -signal.SIGABRT
    finally:
        talk.kill()
