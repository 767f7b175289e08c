"""One sitting in a debugger: wherever the program is stopped, whatever dies, the user and the program can go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
from scenario import EDITS, Edit, Project, Talk, build_project
from sessions import Session, answer, build_one, debug_with, is_stopped, read_memory

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

BODY = next(edit for edit in EDITS if edit.name == "body")
GREETING = next(edit for edit in EDITS if edit.name == "new string")
SIGNALLED = Edit("edited", "signalled.c", [("return x + 1;", "return x + 1000;")], [], ["edited"])
DEBUGGERS = ("gdb", "lldb")


@contextlib.contextmanager
def debugging(debugger: str) -> Iterator[Session]:
    with debug_with(debugger, find_debugger(debugger)) as session:
        yield session


@pytest.fixture(params=DEBUGGERS)
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_project(tmp_path / "project", "gcc", ["-O0"])


@pytest.fixture
def talk(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    yield program
    program.kill()


@pytest.fixture
def session(debugger: str, talk: Talk) -> Iterator[Session]:
    """Attached to the program, which is stopped. It ends before the program: a traced one cannot be waited for."""
    with debugging(debugger) as session:
        session.attach(talk.process.pid)
        yield session


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not is_true():
        assert monotonic() < deadline


# --- where the program is stopped ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(4))
def test_in_the_first_instructions_of_the_function(session: Session, project: Project, talk: Talk, depth: int) -> None:
    entry = session.evaluate("&body")
    session.break_at(address=entry)
    session.resume()
    talk.tell("body 5")
    session.wait_until_stopped()
    session.delete_breakpoints()
    session.step(depth)
    project.edit(BODY)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome
    assert is_stopped(talk.process.pid)
    assert session.evaluate("$pc") not in range(entry + 1, entry + 5)
    # A call that has begun ends in the code in which it began.
    assert answer_once_resumed(session, talk) == ("6" if depth else "1005")
    assert answer(talk, session, "body 5") == ("1005", 0)


def answer_once_resumed(session: Session, talk: Talk) -> str:
    session.resume()
    said, stops = answer(talk, session)
    assert stops == 0
    return said


def test_in_a_system_call_and_its_state_is_kept(session: Session, project: Project, talk: Talk) -> None:
    project.edit(BODY)
    before = session.evaluate("$pc"), session.evaluate("$sp")
    assert session.call("apply")["outcome"] == "patched"
    assert is_stopped(talk.process.pid)
    # Where a debugger hides that a call was interrupted (lldb), the thread stands before the call, which is made again.
    repeated = 2 if session.name == "lldb" else 0
    assert (session.evaluate("$pc") + repeated, session.evaluate("$sp")) == before
    session.resume()
    assert talk.ask("body 5") == "1005"
    assert talk.ask("stored 5") == "1005 1"
    project.edit(GREETING)
    assert session.call("apply")["outcome"] == "patched"
    assert not is_stopped(talk.process.pid)
    assert talk.ask("greeting").startswith("hello from the new code")
    session.stop()
    session.detach()
    assert talk.ask("body 5") == "1005"
    assert talk.close() == 0


def test_in_a_signal_handler(debugger: str, tmp_path: Path) -> None:
    project = build_one(tmp_path / "project", "signalled", "-O0")
    program = Talk(project.program)
    try:
        assert program.ask("?") == "6"
        with debugging(debugger) as session:
            session.attach(program.process.pid)
            # By default both debuggers stop at the signal and pass it on.
            session.break_at(function="handler")
            session.resume()
            program.process.send_signal(signal.SIGUSR1)
            session.wait_until_stopped()
            if "handler" not in session.where():
                session.resume()
                session.wait_until_stopped()
            assert "handler" in session.where()
            session.delete_breakpoints()
            project.edit(SIGNALLED)
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", outcome
            session.resume()
            assert program.hear() == f"handled {signal.SIGUSR1 + 1000}"
            assert program.ask("?") == "1005"
            session.stop()
            session.detach()
        assert program.ask("?") == "1005"
        assert program.close() == 0
    finally:
        program.kill()


@pytest.mark.parametrize("at", ["loader", "main"])
def test_launched_and_stopped_early(debugger: str, project: Project, tmp_path: Path, at: str) -> None:
    os.mkfifo(tmp_path / "in")
    told = os.open(tmp_path / "in", os.O_RDWR)  # so that nobody waits for the other end
    try:
        with debugging(debugger) as session:
            session.launch(project.program, tmp_path, stop_at_entry=at == "loader")
            project.edit(BODY)
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", outcome
            assert is_stopped(session.pid)
            session.resume()
            os.write(told, b"body 5\nstored 5\n")
            wait_until(lambda: (tmp_path / "out").read_text() == "1005\n1005 1\n")
            assert session.call("undo")["outcome"] == "undone"
            assert not is_stopped(session.pid)
            os.write(told, b"body 5\n")
            wait_until(lambda: (tmp_path / "out").read_text() == "1005\n1005 1\n6\n")
    finally:
        os.close(told)


# --- what dies -----------------------------------------------------------------------------------------------------


def engine_of(session: Session) -> int:
    line = next(line for line in session.call("doctor")["lines"] if line["name"] == "engine")
    return int(line["text"].rpartition("process ")[2])


def test_a_killed_engine_is_one_error_and_the_next_command_works(
    session: Session, project: Project, talk: Talk
) -> None:
    session.resume()
    project.edit(BODY)
    assert session.call("apply")["outcome"] == "patched"
    engine = engine_of(session)
    os.kill(engine, signal.SIGKILL)
    project.edit(GREETING)
    outcome = session.call("apply")
    assert outcome["outcome"] == "error"
    assert outcome["error"]["code"] == "engine-died"
    assert "\n" not in outcome["error"]["fact"]
    assert talk.ask("body 5") == "1005"
    assert session.call("apply")["outcome"] == "patched"
    assert engine_of(session) != engine
    assert talk.ask("greeting").startswith("hello from the new code")
    assert session.call("undo 0")["outcome"] == "undone"
    assert talk.ask("body 5") == "6"


def test_a_killed_debugger_leaves_the_new_code_and_the_next_one_can_undo_it(
    debugger: str, project: Project, talk: Talk
) -> None:
    pid = talk.process.pid
    with debugging(debugger) as session:
        session.attach(pid)
        session.resume()
        project.edit(BODY)
        assert session.call("apply")["outcome"] == "patched"
        session.kill_debugger()
    wait_until(lambda: "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text())
    assert not is_stopped(pid)
    assert talk.ask("body 5") == "1005"
    with debugging(debugger) as session:
        session.attach(pid)
        assert [patch["patch"] for patch in session.call("status")["patches"]] == [1]
        project.edit(GREETING)
        assert session.call("apply")["outcome"] == "patched"
        assert "body" in session.tell("info symbol body" if debugger == "gdb" else "image lookup --name body")
        assert session.call("undo 0")["outcome"] == "undone"
        session.resume()
        assert talk.ask("body 5") == "6"
        assert talk.ask("greeting") == "hello from the old code"


def test_a_program_that_is_gone_is_one_clear_error(session: Session, project: Project, talk: Talk) -> None:
    session.resume()
    project.edit(BODY)
    assert session.call("apply")["outcome"] == "patched"
    talk.tell("body 5")
    talk.process.kill()
    wait_until(lambda: session.call("status")["outcome"] == "error")
    for words in ("apply", "undo", "preview", "status"):
        outcome = session.call(words)
        assert outcome["outcome"] == "error", (words, outcome)
        assert outcome["error"]["code"] in ("inferior-gone", "inferior-none"), (words, outcome)


def test_no_program_at_all_is_one_clear_error(debugger: str) -> None:
    with debugging(debugger) as session:
        outcome = session.call("apply")
        assert outcome["outcome"] == "error"
        assert outcome["error"]["code"] == "inferior-none"


# --- the other words -----------------------------------------------------------------------------------------------


def test_status_preview_doctor_and_help(session: Session, project: Project, talk: Talk) -> None:
    assert session.call("status")["patches"] == []
    assert all(line["ok"] for line in session.call("doctor")["lines"])
    project.edit(BODY)
    entry = session.evaluate("&body")
    before = read_memory(talk.process.pid, entry, 32)
    planned = session.call("preview")
    assert planned["outcome"] == "planned"
    assert [(row["name"], row["status"], row["entry"]) for row in planned["functions"]] == [("body", "changed", entry)]
    assert read_memory(talk.process.pid, entry, 32) == before
    assert session.call("status")["patches"] == []
    assert session.call("apply")["outcome"] == "patched"
    assert session.call("apply")["outcome"] == "unchanged"
    status = session.call("status")
    assert [row["name"] for row in status["patches"][0]["functions"]] == ["body"]
    assert status["memory"] > 0
    assert "undo" in session.tell("hotpatch help")
    assert "Change the running program" in session.tell("help hotpatch")
    assert session.call("undo")["outcome"] == "undone"
    assert read_memory(talk.process.pid, entry, 32) == before
    assert session.call("undo")["error"]["code"] == "nothing-to-undo"


@pytest.mark.parametrize("words", ["nonsense", "undo x", "object one.o", "apply --what", "status 'open"])
def test_wrong_usage_is_said_and_does_nothing(session: Session, talk: Talk, words: str) -> None:
    said = session.tell(f"hotpatch {words}")
    assert "hotpatch help" in said or "Close the quotes" in said, said
    assert "Traceback" not in said
    session.resume()
    assert talk.ask("body 5") == "6"


def test_gdb_completes_its_words(project: Project) -> None:
    with debugging("gdb") as session:
        assert session.tell("complete hotpatch un").split() == ["hotpatch", "undo"]
        words = {line.split()[-1] for line in session.tell("complete hotpatch ").splitlines()}
        assert {"apply", "preview", "status", "undo", "object", "doctor", "help"} <= words
        folder = str(project.folder)
        assert f"{folder}/talk.o" in session.tell(f"complete hotpatch object {folder}/talk.")


@pytest.mark.parametrize("end", ["detach", "kill", "quit"])
def test_gdb_ends_without_a_crash_after_a_patch(project: Project, talk: Talk, end: str) -> None:
    project.edit(BODY)
    lines = [f"attach {talk.process.pid}", load_line("gdb"), "hotpatch", "break body", end]
    options = [word for line in lines for word in ("-ex", line)]
    done = subprocess.run(
        [find_debugger("gdb"), "-nx", "-batch", *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert "patched 1 function" in done.stdout
    assert "atal" not in done.stderr
    assert done.returncode == 0
    if end != "kill":
        assert talk.ask("body 5") == "1005"
