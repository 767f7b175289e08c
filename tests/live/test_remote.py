"""What works in a debugger on the same machine works behind gdbserver, by the remote protocol alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from scenario import EDITS, Project, Talk, build_project
from sessions import BehindLldbServer, Session, debug_with, ipbp
from slow_link import slow_place

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live
ASKED = [row for edit in EDITS for row in edit.ask]


@pytest.fixture
def project(tmp_path: Path, gcc: str) -> Project:
    return build_project(tmp_path / "project", gcc, ["-O2"])


@pytest.fixture(params=["remote", "extended-remote", "lldb-server", "lldb-gdbserver"])
def session(request: pytest.FixtureRequest, talk: Talk) -> Iterator[Session]:
    is_lldb = request.param.startswith("lldb")
    with debug_with(request.param if is_lldb else "gdbserver", find_debugger("lldb" if is_lldb else "gdb")) as session:
        session.kind = request.param  # which lldb has no use for
        session.attach(talk.process.pid)
        yield session


def test_patch_after_patch_and_back(project: Project, talk: Talk, session: Session) -> None:
    session.resume()
    assert [talk.ask(edit.ask[0][0]) for edit in EDITS] == [edit.ask[0][1] for edit in EDITS]
    session.stop()
    for edit in EDITS:
        project.edit(edit)
        outcome = session.call("")
        assert outcome["outcome"] == "patched", outcome
        assert [row["name"] for row in outcome["functions"]] == list(edit.functions)
    session.resume()
    assert [talk.ask(line) for line, _, after in ASKED] == [after for _, _, after in ASKED]
    session.stop()
    assert session.call("undo 0")["outcome"] == "undone"
    session.resume()
    assert talk.ask("body 5") == "6"
    assert talk.ask("counted 1") == "102"
    session.stop()
    session.detach()
    assert talk.ask("recursive 10") == "55"


@pytest.mark.parametrize("more", [0, 4096], ids=["small", "large"])
def test_round_trips_are_few_whatever_the_programs_size(tmp_path: Path, gcc: str, more: int) -> None:
    """Over a link of 20 ms a packet and its answer take 20 ms."""
    project = build_project(tmp_path / "project", gcc, ["-O2"], more=_functions(more))
    log = tmp_path / "packets"
    talk = Talk(project.program)
    try:
        with debug_with("gdbserver", find_debugger("gdb")) as session:
            session.wraps = f"{sys.executable} {Path(__file__).with_name('slow_link.py')} {log} 10"
            session.attach(talk.process.pid)
            counts, stops = _counted(session, project, log, 2)
            session.resume()
            assert talk.ask("body 5") == "1005"
    finally:
        talk.kill()
    # The first one maps memory and learns what runs there. Measured: 179 and 76, of which 11 change the program.
    assert counts[0] <= 220, counts
    assert counts[1] <= 100, counts
    assert 200 < stops[1] < 1000, stops


@pytest.mark.slow
@pytest.mark.parametrize("server", ["lldb-server", "lldb-gdbserver"])
@pytest.mark.parametrize("more", [0, 4096], ids=["small", "large"])
def test_an_lldb_server_is_asked_little_whatever_the_programs_size(
    tmp_path: Path, gcc: str, server: str, more: int
) -> None:
    project = build_project(tmp_path / "project", gcc, ["-O2"], more=_functions(more))
    talk = Talk(project.program)
    try:
        with debug_with(server, find_debugger("lldb")) as session:
            session.attach(talk.process.pid)
            counts = []
            for number, edit in enumerate(EDITS[:3]):
                project.edit(edit)
                session.tell(f"log enable -f {tmp_path}/log{number} gdb-remote packets")
                assert session.call("")["outcome"] == "patched"
                session.tell("log disable gdb-remote packets")
                counts.append((tmp_path / f"log{number}").read_bytes().count(b" send packet: $"))
    finally:
        talk.kill()
    # The first one maps memory. Measured: 293 and 70 of the process alone, 325 and 71 of a platform.
    assert counts[0] <= 400, counts
    assert max(counts[1:]) <= 90, counts


@pytest.mark.parametrize("more", [0, pytest.param(4096, marks=pytest.mark.slow)], ids=["small", "large"])
def test_the_stop_behind_a_slow_lldb_server_is_as_long_whatever_the_programs_size(
    tmp_path: Path, gcc: str, more: int
) -> None:
    project = build_project(tmp_path / "project", gcc, ["-O2"], more=_functions(more))
    log = tmp_path / "packets"
    talk = Talk(project.program)
    try:
        with debug_with("lldb-gdbserver", find_debugger("lldb")) as session:
            session.passes = partial(slow_place, log=log, delay=0.01)
            session.attach(talk.process.pid)
            counts, stops = _counted(session, project, log, 3)
            session.resume()
            assert talk.ask("body 5") == "1005"
    finally:
        talk.kill()
    # The first one maps memory three times, a call of the system each. Measured: 259 and 70.
    assert counts[0] <= 350, counts
    assert max(counts[1:]) <= 90, counts
    assert all(200 < stop < 1000 for stop in stops[1:]), stops


def _counted(session: Session, project: Project, log: Path, edits: int) -> tuple[list[int], list[float]]:
    """Of the patch of each edit its packets, and the milliseconds of the step that changes the program."""
    counts, stops = [], []
    for edit in EDITS[:edits]:
        project.edit(edit)
        before = len(log.read_text().splitlines())
        outcome = session.call("")
        assert outcome["outcome"] == "patched", outcome
        counts.append(len(log.read_text().splitlines()) - before)
        stops.append(outcome["times"]["work"])
    return counts, stops


def _functions(count: int) -> str:
    return "int more_of_it;\n" + "\n".join(
        f"int more_{number}(int x) {{ return x * {number} + more_of_it; }}" for number in range(count)
    )


def test_a_debugger_of_the_same_machine_goes_on_where_that_one_stopped(
    project: Project, talk: Talk, session: Session
) -> None:
    project.edit(EDITS[0])
    assert session.call("")["outcome"] == "patched"
    session.detach()
    assert talk.ask("body 5") == "1005"
    project.edit(EDITS[1])
    assert ipbp("apply", talk.process.pid, "gdb")["patch"] == 2
    assert talk.ask("greeting").startswith("hello from the new code")
    assert ipbp("undo", talk.process.pid, "gdb", "0")["outcome"] == "undone"
    assert (talk.ask("body 5"), talk.ask("greeting")) == ("6", "hello from the old code")


def test_a_watch_is_refused(session: Session, talk: Talk) -> None:
    said = session.tell("hotpatch watch on")
    assert "[inferior-remote]" in said, said
    session.resume()
    assert talk.ask("body 5") == "6"


@pytest.mark.parametrize("session", ["remote"], indirect=True)
def test_a_program_that_runs_behind_gdbserver_is_left_alone_until_it_is_stopped(
    project: Project, session: Session, talk: Talk
) -> None:
    project.edit(EDITS[0])
    session.resume()
    said = session.tell("hotpatch")
    assert "[inferior-running]" in said, said
    assert "kill -INT" in said, said
    assert talk.ask("body 5") == "6"
    session.stop()  # as it was said
    assert session.call("")["outcome"] == "patched"
    session.resume()
    assert talk.ask("body 5") == "1005"


@pytest.mark.parametrize("session", ["lldb-server", "lldb-gdbserver"], indirect=True)
def test_a_program_that_runs_behind_lldb_server_is_stopped_for_a_patch(
    project: Project, session: BehindLldbServer, talk: Talk
) -> None:
    session.stops_first = False
    session.resume()
    assert talk.ask("body 5") == "6"
    project.edit(EDITS[0])
    outcome = session.call("")
    assert outcome["outcome"] == "patched", outcome
    assert talk.ask("body 5") == "1005"
    assert session.call("status")["patches"][0]["state"] == "applied"
    assert talk.ask("counted 1") == "101"
    assert session.call("undo")["outcome"] == "undone"
    assert talk.ask("body 5") == "6"
