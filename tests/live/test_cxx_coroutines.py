"""A coroutine of C++ that waits goes on in its new code, with the variables that it has."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import Project
from sessions import Outcome, build_one, debugged

pytestmark = [pytest.mark.live, pytest.mark.compiles]
LIBCXX = "clang++-19 -stdlib=libc++"


def build_lazy(folder: Path, compiler: str, level: str) -> Project:
    command, *library = compiler.split()
    return build_one(folder, "lazy", level, "-std=c++20", *library, compiler=command, link=library, suffix="cpp")


def edit(project: Project, old: str, new: str) -> str:
    """The text before."""
    path = project.folder / "lazy.cpp"
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
    return text


@pytest.mark.parametrize(
    ("debugger", "compiler", "level"),
    [
        ("gdb", "g++", "-O2"),
        ("lldb", "clang++-19", "-O0"),
        pytest.param("lldb", "g++", "-O0", marks=pytest.mark.slow),
        pytest.param("gdb", "clang++-19", "-O0", marks=pytest.mark.slow),
        pytest.param("gdb", LIBCXX, "-O0", marks=pytest.mark.slow),
        pytest.param("lldb", LIBCXX, "-O0", marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_in_new_code_where_its_frame_was_kept(
    debugger: str, compiler: str, level: str, tmp_path: Path
) -> None:
    project = build_lazy(tmp_path / "lazy", compiler, level)
    with debugged(project.program, debugger) as (session, talk):
        # It waits at a co_yield, then at a co_await.
        assert [talk.ask("next") for _ in range(3)] == ["1", "1", "3"]
        edit(project, "sum += i;", "sum += scaled(i);")
        assert (outcome := session.call("apply"))["outcome"] == "patched", outcome["text"]
        assert [talk.ask("next") for _ in range(2)] == ["3", "33"]
        assert talk.ask("fresh 7") == "70"
        edit(project, "sum += co_await Pause{0};", "sum -= co_await Pause{0} - 1000;")
        assert (outcome := session.call("apply"))["outcome"] == "patched", outcome["text"]
        # What was given to the one that waits is what it gets.
        assert [talk.ask("next") for _ in range(2)] == ["33", "1073"]
        for old, new, words in (
            ("int sum = 0;", "long sum = 0;", "the frame is another one (member 'sum"),
            ("co_yield sum;", "co_yield sum; co_yield sum;", "the frame is another one (member '"),
            (
                "co_yield scaled(from);\n    co_yield scaled(from + 1);",
                "co_yield from + 1;\n    co_yield scaled(from);",
                "several of its places to wait are alike",
            ),
        ):
            text = edit(project, old, new)
            refused(session.call("apply"), words)
            (project.folder / "lazy.cpp").write_text(text)
        assert talk.ask("word") == "10"
        assert session.call("undo 0")["outcome"] == "undone"
        assert [talk.ask("next") for _ in range(2)] == ["1073", "1078"]
        assert talk.ask("end") == "sums sums "
        assert talk.close() == 0


@pytest.mark.parametrize(("debugger", "compiler"), [("gdb", LIBCXX), ("lldb", "clang++-19")])
def test_where_its_frame_is_not_described_all_else_is_patched(debugger: str, compiler: str, tmp_path: Path) -> None:
    project = build_lazy(tmp_path / "lazy", compiler, "-O2")
    with debugged(project.program, debugger) as (session, talk):
        assert [talk.ask("next") for _ in range(3)] == ["1", "1", "3"]
        assert talk.ask("word") == "10"
        # What it calls, though it waits.
        edit(project, "return x * 10;", "return x * 100;")
        assert (outcome := session.call("apply"))["outcome"] == "patched", outcome["text"]
        assert [talk.ask("word"), talk.ask("next")] == ["200", "3"]
        edit(project, "sum += i;", "sum += scaled(i);")
        refused(session.call("apply"), "the debug information does not describe the frame")
        assert [talk.ask("next"), talk.ask("fresh 7")] == ["6", "7"]
        # When none is left of the one that changed, the user may say so.
        assert talk.ask("end") == "sums sums "
        assert (outcome := session.call("apply --allow-layout all"))["outcome"] == "patched", outcome["text"]
        assert talk.ask("fresh 7") == "700"
        assert session.call("undo 0")["outcome"] == "undone"
        assert talk.ask("fresh 7") == "7"
        assert talk.process.poll() is None


def refused(outcome: Outcome, words: str) -> None:
    assert outcome["outcome"] == "refused", outcome
    (row,) = outcome["refusals"]
    assert row["code"] == "coroutine-changed"
    assert words in row["fact"]
