"""A program with hooks is told of what happens to it, whatever it makes of that."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import build_one, debug_with, debugged, ipbp

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live
DOCS = Path(__file__).parents[2] / "docs"
_BOTH = "before", "after"
_BACK = "after", "before"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_one(tmp_path / "project", "told", "-O0", "-pthread", "-I", str(DOCS))


@pytest.fixture
def told(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    yield program
    program.kill()


def edit(project: Project, value: str, other: str = "x + 2") -> None:
    source = project.folder / "told.c"
    text = re.sub(r"(int value\(int x\) \{ return )[^;]*", rf"\g<1>{value}", source.read_text())
    source.write_text(re.sub(r"(int other\(int x\) \{ return )[^;]*", rf"\g<1>{other}", text))


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_hooks_hear_of_every_patch_and_cost_none(project: Project, told: Talk, debugger: str) -> None:
    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(told.process.pid)
        session.resume()
        edit(project, "x + 100", "x + 200")
        outcome = session.call("apply")
        assert (outcome["outcome"], outcome["notes"]) == ("patched", []), outcome["text"]
        before, after, _ = told.ask("heard ").split("; ")
        functions = "[2 changed] value:0:1 other:0:0"
        assert sorted(before.split()) == sorted(f"before 1 v1 undo=0 value=2 {functions}".split())
        assert sorted(after.split()) == sorted(f"after 1 v1 undo=0 value=101 {functions}".split())

        outcome = session.call("undo")
        assert (outcome["outcome"], outcome["notes"]) == ("undone", []), outcome["text"]
        before, after, _ = told.ask("heard ").split("; ")
        assert before.startswith("before 1 v1 undo=1 value=101")
        assert after.startswith("after 1 v1 undo=1 value=2")

        # One that crashes, and one that does not return: the patch goes on, and says so.
        for mood, number, hook, other in ((1, 300, *_BOTH), (2, 500, *_BOTH), (3, 700, *_BACK), (4, 900, *_BACK)):
            assert told.ask(f"mood  {mood}") == str(mood)
            edit(project, f"x + {number}")
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", (mood, outcome["text"])
            assert [note for note in outcome["notes"] if f"ipbp_{hook}_patch did not come back" in note], outcome
            assert told.ask("value 1") == str(number + 1)
            heard = told.ask("heard ")
            assert heard.startswith(f"{other} ")
            assert heard.count(";") == 1
        assert told.ask("mood  0") == "0"
        assert session.call("undo 0")["outcome"] == "undone"
        assert told.ask("value 1") == "2"
        session.stop()
        session.detach()
    assert told.close() == 0


@pytest.mark.parametrize(("debugger", "compiler"), [("gdb", "gcc"), ("gdb", "g++"), ("lldb", "gcc"), ("lldb", "g++")])
def test_a_hook_hears_which_types_have_another_layout_now(debugger: str, compiler: str, tmp_path: Path) -> None:
    project = build_one(tmp_path / "project", "told", "-O0", "-I", str(DOCS), compiler=compiler)
    source = project.folder / "told.c"
    with debugged(project.program, debugger) as (session, told):
        assert told.ask("pair  100") == "107"
        text = source.read_text()
        source.write_text(text.replace("int x, y;", "int y, x;"))
        outcome = session.call("apply")
        assert [(row["code"], row["symbol"]) for row in outcome["refusals"]] == [("layout-changed", "pair")]
        assert (told.ask("pair  100"), told.ask("heard ")) == ("107", "")
        outcome = session.call("apply --allow-layout pair")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert told.ask("pair  100") == "109"
        assert told.ask("heard ").count(" +pair;") == 2
        assert session.call("undo")["outcome"] == "undone"
        assert told.ask("pair  100") == "107"
        assert told.ask("heard ").count(" +pair;") == 2
        # Of all that are allowed those that changed.
        assert session.call("apply --allow-layout all")["outcome"] == "patched"
        assert told.ask("heard ").count(" +pair;") == 2


def test_a_hook_may_come_with_a_patch(project: Project, told: Talk) -> None:
    source = project.folder / "told.c"
    source.write_text(source.read_text().replace("void ipbp_before_patch", "void not_that"))
    assert ipbp("apply", told.process.pid, "gdb")["outcome"] == "patched"
    told.ask("heard ")
    edit(project, "x + 100")
    assert ipbp("apply", told.process.pid, "gdb")["outcome"] == "patched"
    assert told.ask("heard ").count("after 2") == 1


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_the_snippet_for_rust_is_what_a_program_needs(tmp_path: Path, debugger: str) -> None:
    (snippet,) = re.findall(r"```rust\n(.*?)```", (DOCS / "hooks.md").read_text(), re.DOTALL)
    project = tmp_path / "listener"
    (project / "src").mkdir(parents=True)
    (project / "Cargo.toml").write_text('[package]\nname = "listener"\nversion = "0.1.0"\nedition = "2021"\n')
    main = """
#[inline(never)]
fn value(x: u64) -> u64 { x + 1 }

fn main() {
    for line in std::io::stdin().lines() {
        println!("{}", value(line.unwrap().parse().unwrap()));
    }
}
"""
    (project / "src/main.rs").write_text(snippet + main)
    subprocess.run(["cargo", "build", "--quiet"], cwd=project, check=True)
    program = Talk(project / "target/debug/listener")
    try:
        assert program.ask("1") == "2"
        (project / "src/main.rs").write_text(snippet + main.replace("x + 1", "x + 10"))
        outcome = ipbp("apply", program.process.pid, debugger)
        assert (outcome["outcome"], outcome["notes"]) == ("patched", []), outcome["text"]
        assert program.ask("1") == "patch 1: 1 changed"
    finally:
        program.kill()
