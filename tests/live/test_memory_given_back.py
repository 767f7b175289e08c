"""Memory of undone patches is used again when nothing leads there, and kept when something does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import EDITS, Edit, Project, Talk, build_project
from sessions import Session, debug_with

from ipbp.cli.debuggers import find_debugger
from ipbp.host import procfs

pytestmark = pytest.mark.live

BODY = next(edit for edit in EDITS if edit.name == "body")
GREETING = next(edit for edit in EDITS if edit.name == "new string")
ON_STACK = Edit(
    "on stack", "talk.c", [("    return x + 1;\n}\n\noperation", "    return x + 70;\n}\n\noperation")], [], []
)


@pytest.fixture(params=["gdb", "lldb"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Session, Talk, Project]]:
    project = build_project(tmp_path / "project", "gcc", ["-O2"])
    talk = Talk(project.program)
    with debug_with(request.param, find_debugger(request.param)) as opened:
        opened.attach(talk.process.pid)
        opened.resume()
        yield opened, talk, project
    talk.kill()


def patch(debugger: Session, project: Project, edit: Edit) -> int:
    """The place of the new code."""
    project.edit(edit)
    outcome = debugger.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    return int(outcome["functions"][0]["address"])


def undo(debugger: Session, project: Project, original: str) -> dict[str, int]:
    assert debugger.call("undo")["outcome"] == "undone"
    (project.folder / "talk.c").write_text(original)
    return {key: debugger.call("status")[key] for key in ("memory", "mapped")}


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_rounds_of_patch_and_undo_do_not_take_more_and_more(
    session: tuple[Session, Talk, Project], rounds: int
) -> None:
    debugger, talk, project = session
    original = (project.folder / "talk.c").read_text()
    places = set()
    for _round in range(rounds):
        places.add(patch(debugger, project, BODY))
        assert talk.ask("body 5") == "1005"
        assert undo(debugger, project, original) == {"memory": 0, "mapped": 0}
        assert talk.ask("body 5") == "6"
    assert len(places) == 1
    # The same behind a patch that stays.
    patch(debugger, project, GREETING)
    before = debugger.call("status")
    kept = (project.folder / "talk.c").read_text()
    places = set()
    for _round in range(3):
        places.add(patch(debugger, project, BODY))
        assert talk.ask("body 5") == "1005"
        assert undo(debugger, project, kept) == {key: before[key] for key in ("memory", "mapped")}
    assert len(places) == 1
    assert talk.ask("greeting") == "hello from the new code, which is longer"


def test_a_thread_inside_keeps_the_code_that_it_is_in_until_it_has_left(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    original = (project.folder / "talk.c").read_text()
    first = patch(debugger, project, ON_STACK)
    assert talk.ask("on_stack 1") == "waiting"
    assert undo(debugger, project, original)["memory"] > 0
    second = patch(debugger, project, BODY)
    assert second != first
    assert talk.ask("go on") == "71"
    assert talk.ask("body 5") == "1005"
    assert undo(debugger, project, original) == {"memory": 0, "mapped": 0}


def test_a_pointer_in_the_programs_data_keeps_what_it_points_to(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    original = (project.folder / "talk.c").read_text()
    patch(debugger, project, GREETING)
    # `stored` is a variable of the program: the debugger puts the string's address there, as code might have done.
    assert talk.ask("greeting") == "hello from the new code, which is longer"
    debugger.stop()
    before = debugger.evaluate("stored")
    place = _place_of(talk.process.pid, b"hello from the new code, which is longer\0")
    debugger.tell(f"{'print' if debugger.name == 'gdb' else 'expression'} stored = (operation) {place:#x}")
    assert debugger.evaluate("stored") == place != before
    debugger.resume()
    assert undo(debugger, project, original)["memory"] > 0


@pytest.mark.parametrize("server", ["remote", "extended-remote", "lldb-server", "lldb-gdbserver"])
def test_behind_a_server_as_well(tmp_path: Path, gcc: str, server: str) -> None:
    project = build_project(tmp_path / "project", gcc, ["-O2"])
    original = (project.folder / "talk.c").read_text()
    talk = Talk(project.program)
    is_lldb = server.startswith("lldb")
    try:
        with debug_with(server if is_lldb else "gdbserver", find_debugger("lldb" if is_lldb else "gdb")) as debugger:
            debugger.kind = server  # which lldb has no use for
            debugger.attach(talk.process.pid)
            places = set()
            for _round in range(3):
                places.add(patch(debugger, project, BODY))
                assert undo(debugger, project, original) == {"memory": 0, "mapped": 0}
            assert len(places) == 1
            patch(debugger, project, ON_STACK)
            debugger.resume()
            assert talk.ask("on_stack 1") == "waiting"
            debugger.stop()
            assert undo(debugger, project, original)["memory"] > 0
            assert patch(debugger, project, BODY) not in places
            debugger.resume()
            assert talk.ask("go on") == "71"
            assert talk.ask("body 5") == "1005"
            debugger.stop()
            assert undo(debugger, project, original) == {"memory": 0, "mapped": 0}
    finally:
        talk.kill()


def _place_of(pid: int, content: bytes) -> int:
    """Where memory of no file has this, once."""
    found = []
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for region in procfs.regions(pid):
            if region.path == "" and "r" in region.protection:
                memory.seek(region.start)
                inside = memory.read(region.end - region.start)
                found += [region.start + row.start() for row in re.finditer(re.escape(content), inside)]
    assert len(found) == 1, found
    return found[0]
