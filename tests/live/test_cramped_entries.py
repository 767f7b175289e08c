"""Functions whose entry has no room for a jump of five bytes: two bytes there, and the jump in padding nearby."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import Session, build_one, code_of, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

FLAGS = ("-O1", "-fpeephole2", "-fno-inline", "-falign-functions=1", "-fno-reorder-functions", "-fno-toplevel-reorder")
OLD = "0 5 10 1036 right"
EDITS = {"return 0; }": "return 70; }", "{ return x; }": "{ return x + 70; }", "return sum;": "return sum + 70;"}


@pytest.fixture(params=["gdb", "lldb"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Session, Talk, Project]]:
    project = build_one(tmp_path / "project", "cramped", *FLAGS)
    talk = Talk(project.program)
    with debug_with(request.param, find_debugger(request.param)) as opened:
        opened.attach(talk.process.pid)
        opened.resume()
        yield opened, talk, project
    talk.kill()


def edit(project: Project, *more: tuple[str, str]) -> None:
    path = project.folder / "cramped.c"
    text = path.read_text()
    for old, new in (*EDITS.items(), *more):
        text = text.replace(old, new, 1)
    path.write_text(text)


def test_several_cramped_functions_share_padding_and_come_back(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    assert talk.ask("?") == OLD
    original = project.folder.joinpath("cramped.c").read_text()
    before = code_of(talk.process.pid)
    edit(project)
    outcome = debugger.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert {row["name"] for row in outcome["functions"]} == {"zero", "same", "looped"}
    assert talk.ask("?") == "70 75 80 1036 right"
    first = code_of(talk.process.pid)
    # A later patch changes the relay only, or the entry directly where it has room.
    edit(project, ("return x * 1000 + 19;", "return x * 1000 + 18;"))
    project.folder.joinpath("cramped.c").write_text(
        project.folder.joinpath("cramped.c").read_text().replace("return sum + 70;", "return 80;")
    )
    assert debugger.call("apply")["outcome"] == "patched"
    assert talk.ask("?") == "70 75 80 1035 right"
    assert debugger.call("undo")["outcome"] == "undone"
    assert code_of(talk.process.pid) == first
    assert debugger.call("undo")["outcome"] == "undone"
    assert code_of(talk.process.pid) == before
    assert talk.ask("?") == OLD
    for _round in range(5):
        project.folder.joinpath("cramped.c").write_text(original)
        edit(project)
        assert debugger.call("apply")["outcome"] == "patched"
        assert talk.ask("?") == "70 75 80 1036 right"
        assert debugger.call("undo")["outcome"] == "undone"
        assert talk.ask("?") == OLD
    assert code_of(talk.process.pid) == before
