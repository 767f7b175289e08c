"""The user's breakpoints are never lost and never spoil the patch, wherever in the function they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Edit, Project, Talk, build_project
from sessions import Session, answer, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

TAIL = "}\n\n__attribute__((noinline)) int counted_too"
EDIT = Edit("counted", "talk.c", [(f"return count;\n{TAIL}", f"return count + 1000;\n{TAIL}")], [], ["counted"])
JUMP = 0xE9
PLACES = ["first byte", "after the frame is set up", "name", "line", "condition"]


@pytest.fixture(params=["gdb", "gdb always inserted", "lldb"])
def session(request: pytest.FixtureRequest, talk: Talk) -> Iterator[Session]:
    # After the program, so that it is ended before it: a program that is being traced cannot be waited for.
    name = request.param.split()[0]
    with debug_with(name, find_debugger(name)) as session:
        if "always" in request.param:
            session.tell("set breakpoint always-inserted on")
        yield session


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_project(tmp_path / "project", "gcc", ["-O0"])


@pytest.fixture
def talk(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    yield program
    program.kill()


def set_breakpoint(session: Session, place: str, project: Project) -> int:
    """The function's address."""
    entry = session.evaluate("&counted")
    lines = (project.folder / "talk.c").read_text().splitlines()
    line = next(n for n, text in enumerate(lines, start=1) if text == "    count += x;")
    if place == "first byte":
        session.break_at(address=entry)
    elif place == "after the frame is set up":
        session.break_at(address=entry + 4)
    elif place == "name":
        session.break_at(function="counted")
    elif place == "line":
        session.break_at(line=line)
    else:
        session.break_at(line=line, condition="x > 3")
    return entry


def assert_jump(session: Session, entry: int, target: int) -> None:
    shown = session.read(entry, 5)
    assert shown[0] == JUMP
    assert entry + 5 + int.from_bytes(shown[1:], "little", signed=True) == target


@pytest.mark.parametrize("place", PLACES)
def test_it_is_hit_before_the_patch_after_it_and_after_undo(
    session: Session, project: Project, talk: Talk, place: str
) -> None:
    session.attach(talk.process.pid)
    entry = set_breakpoint(session, place, project)
    before = session.read(entry, 16)
    session.resume()
    assert answer(talk, session, "counted 5") == ("105", 1)

    project.edit(EDIT)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome
    said, stops = answer(talk, session, "counted 5")
    assert said == "1110"
    # An address is the user's own choice: inside the jump there is no instruction any more to stop at.
    assert stops >= (place != "after the frame is set up")
    session.stop()
    assert_jump(session, entry, outcome["functions"][0]["address"])
    session.resume()

    assert session.call("undo")["outcome"] == "undone"
    assert answer(talk, session, "counted 5") == ("115", 1)
    session.stop()
    assert session.read(entry, 16) == before
    session.delete_breakpoints()
    session.resume()
    assert answer(talk, session, "counted 5") == ("120", 0)
    session.stop()
    session.detach()
    assert talk.ask("counted 5") == "125"
    assert talk.close() == 0


@pytest.mark.parametrize("place", PLACES)
def test_a_patch_while_the_program_is_stopped_at_it(session: Session, project: Project, talk: Talk, place: str) -> None:
    session.attach(talk.process.pid)
    entry = set_breakpoint(session, place, project)
    session.resume()
    talk.tell("counted 5")
    session.wait_until_stopped()
    assert "counted" in session.where()
    project.edit(EDIT)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome
    assert session.is_stopped()
    assert "counted" in session.where()
    assert_jump(session, entry, outcome["functions"][0]["address"])
    # A call that had begun ends in the code in which it began; one that is at the very first byte has not begun.
    session.resume()
    said, _stops = answer(talk, session)
    assert said == ("1105" if place == "first byte" else "105")
    said, stops = answer(talk, session, "counted 5")
    assert said == "1110"
    assert stops >= (place != "after the frame is set up")
    session.stop()
    session.delete_breakpoints()
    assert_jump(session, entry, outcome["functions"][0]["address"])
    session.resume()
    assert answer(talk, session, "counted 5") == ("1115", 0)
    assert session.call("undo")["outcome"] == "undone"
    assert answer(talk, session, "counted 5") == ("120", 0)


def test_one_that_is_set_on_the_new_code_goes_with_it(session: Session, project: Project, talk: Talk) -> None:
    session.attach(talk.process.pid)
    session.resume()
    project.edit(EDIT)
    assert session.call("apply")["outcome"] == "patched"
    session.stop()
    session.break_at(function="counted")
    session.resume()
    said, stops = answer(talk, session, "counted 5")
    assert said == "1105"
    assert stops >= 1
    assert session.call("undo")["outcome"] == "undone"
    assert answer(talk, session, "counted 5") == ("110", 1)
    session.stop()
    session.detach()
    assert talk.ask("counted 5") == "115"
