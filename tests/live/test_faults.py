"""What a machine, a user or a program may do to a patch: each ends in the old or the new code and a clear message, and
when the cause is gone the next patch works.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest
from scenario import Edit, Project, Talk
from sessions import Session, build_one, code_of, debug_with, ipbp

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

EDIT = Edit("body", "restless.c", [("return x + 1; }", "return x + 1000; }")], [], ["body"])
NOBODY = 65534


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build_one(tmp_path_factory.mktemp("faults") / "project", "restless", "-O0", link=["-ldl"])


@pytest.fixture
def project(built: Project) -> Iterator[Project]:
    """With the edit made."""
    source, kept = built.folder / "restless.c", built.folder.parent / "restless.c"
    if not kept.exists():
        shutil.copy2(source, kept)
    built.edit(EDIT)
    yield built
    shutil.copy2(kept, source)


@contextlib.contextmanager
def running(*words: str | Path) -> Iterator[Talk]:
    talk = Talk(*map(str, words))  # type: ignore[arg-type]
    try:
        assert ask(talk) == "6"
        yield talk
    finally:
        talk.kill()


def ask(talk: Talk, question: str = "?") -> str:
    assert talk.process.stdin is not None
    talk.process.stdin.write(question.encode())
    talk.process.stdin.flush()
    return talk.hear()


@contextlib.contextmanager
def attached(debugger: str, talk: Talk, path: str | Path = "") -> Iterator[Session]:
    """`path`: what starts the debugger."""
    with debug_with(debugger, str(path or find_debugger(debugger))) as session:
        session.attach(talk.process.pid)
        session.resume()
        yield session


def is_said(outcome: dict[str, object], *codes: str) -> str:
    """The code of an error or of the only refusal, which says what to do and is no bug."""
    errors = outcome.get("refusals") or [outcome["error"]]
    assert isinstance(errors, list)
    for error in errors:
        assert error["code"] in codes, json.dumps(outcome)
        assert error["fact"], json.dumps(outcome)
        assert error["advice"], json.dumps(outcome)
    return str(errors[0]["code"])


def is_patched(session: Session, talk: Talk, code: bytes, pid: int = 0) -> None:
    """It works now, and back. `pid`: where the program is another process than the one that was started."""
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", json.dumps(outcome)
    assert ask(talk) == "1005"
    assert session.call("undo")["outcome"] == "undone"
    assert ask(talk) == "6"
    assert code_of(pid or talk.process.pid) == code


# --- what the machine is short of ----------------------------------------------------------------------------------


def within(tmp_path: Path, name: str, script: str) -> Path:
    """A program that starts a debugger in mounts of its own, after this shell script."""
    if os.geteuid() != 0:
        pytest.skip("only root may have mounts of its own here")
    path = tmp_path / "within"
    path.write_text(f"#!/bin/sh\n{script}\nexec '{find_debugger(name)}' \"$@\"\n")
    path.chmod(0o755)
    outer = tmp_path / "debugger"
    outer.write_text(f"#!/bin/sh\nexec unshare --mount '{path}' \"$@\"\n")
    outer.chmod(0o755)
    return outer


SHORT = {
    "cache full": ("mount -t tmpfs -o size=4k none $XDG_CACHE_HOME", "machine-short"),
    "cache read-only": (
        "mount --bind $XDG_CACHE_HOME $XDG_CACHE_HOME; mount -o remount,ro,bind $XDG_CACHE_HOME",
        "folder-unwritable",
    ),
    "state full": ("mount -t tmpfs -o size=4k none $XDG_STATE_HOME", "machine-short journal-unwritable"),
    "state read-only": (
        "mount --bind $XDG_STATE_HOME $XDG_STATE_HOME; mount -o remount,ro,bind $XDG_STATE_HOME",
        "journal-unwritable",
    ),
    "no /proc": ("mount -t tmpfs none /proc", "proc-missing"),
}


@pytest.mark.parametrize("what", SHORT)
def test_what_is_short_is_said_and_then_it_works(
    debugger: str, what: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).mkdir(mode=0o700)
    if (debugger, what) == ("lldb", "no /proc"):
        pytest.skip("lldb's server does not attach where /proc is missing")
    path = within(tmp_path, debugger, SHORT[what][0])
    with running(project.program) as talk:
        code = code_of(talk.process.pid)
        with debug_with(debugger, str(path)) as session:
            session.attach(talk.process.pid)
            session.resume()
            outcome = session.call("apply")
            is_said(outcome, *SHORT[what][1].split())
            assert ask(talk) == "6"
        with attached(debugger, talk) as session:
            is_patched(session, talk, code)
            session.stop()
            session.detach()
        assert ask(talk) == "6"


def test_few_descriptors(debugger: str, project: Project, tmp_path: Path) -> None:
    path = tmp_path / "few"
    path.write_text(f"#!/bin/sh\nexec prlimit --nofile=64:64 '{find_debugger(debugger)}' \"$@\"\n")
    path.chmod(0o755)
    with running(project.program) as talk:
        code = code_of(talk.process.pid)
        with attached(debugger, talk, path) as session:
            line = "import os; taken = [os.open('/dev/null', 0) for _ in range(64 - len(os.listdir('/proc/self/fd')))]"
            said = session.tell(f"{'python' if debugger == 'gdb' else 'script'} {line}")
            assert "rror" not in said
            outcome = session.call("apply")
            is_said(outcome, "machine-short", "engine-start")
            assert ask(talk) == "6"
            session.tell(f"{'python' if debugger == 'gdb' else 'script'} [os.close(number) for number in taken]")
            is_patched(session, talk, code)
            session.stop()
            session.detach()


def test_an_engine_without_memory(
    debugger: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\ntest -e '{tmp_path}/enough' || ulimit -v 200000\nexec '{sys.executable}' \"$@\"\n")
    path.chmod(0o755)
    monkeypatch.setenv("IPBP_PYTHON", str(path))
    with running(project.program) as talk:
        code = code_of(talk.process.pid)
        with attached(debugger, talk) as session:
            outcome = session.call("apply")
            is_said(outcome, "engine-died", "machine-short", "engine-python")
            assert ask(talk) == "6"
            (tmp_path / "enough").touch()
            is_patched(session, talk, code)
            session.stop()
            session.detach()


def test_a_program_without_memory(debugger: str, project: Project) -> None:
    with running(project.program) as talk:
        code = code_of(talk.process.pid)
        size = int(re.findall(r"VmSize:\s+(\d+)", Path(f"/proc/{talk.process.pid}/status").read_text())[0])
        subprocess.run(["prlimit", f"--pid={talk.process.pid}", f"--as={1024 * size}:"], check=True)
        with attached(debugger, talk) as session:
            outcome = session.call("apply")
            is_said(outcome, "inject-failed")
            assert "ENOMEM" in outcome["error"]["fact"]
            assert ask(talk) == "6"
            assert code_of(talk.process.pid) == code
            subprocess.run(["prlimit", f"--pid={talk.process.pid}", "--as=unlimited:"], check=True)
            is_patched(session, talk, code)
            session.stop()
            session.detach()


@pytest.mark.slow
def test_no_address_is_free_near_the_program(debugger: str, project: Project) -> None:
    with running(project.program, "full") as talk:
        code = code_of(talk.process.pid)
        with attached(debugger, talk) as session:
            is_said(session.call("apply"), "no-near-memory")
            assert ask(talk) == "6"
            assert code_of(talk.process.pid) == code
            session.stop()
            session.detach()


# --- who may do what -----------------------------------------------------------------------------------------------


def test_a_second_debugger(debugger: str, project: Project) -> None:
    other = "lldb" if debugger == "gdb" else "gdb"
    with running(project.program) as talk:
        code = code_of(talk.process.pid)
        with attached(debugger, talk) as session:
            is_said(ipbp("apply", talk.process.pid, other), "process-traced")
            assert ask(talk) == "6"
            is_patched(session, talk, code)
            session.stop()
            session.detach()


def test_a_program_under_seccomp(debugger: str, project: Project) -> None:
    with running(project.program, "filtered") as talk, attached(debugger, talk) as session:
        is_said(session.call("apply"), "seccomp")
        assert ask(talk) == "6"
        session.stop()
        session.detach()


def test_a_program_without_new_privileges(debugger: str, project: Project) -> None:
    with running("/usr/bin/setpriv", "--no-new-privs", project.program) as talk:
        code = code_of(talk.process.pid)
        with attached(debugger, talk) as session:
            is_patched(session, talk, code)
            session.stop()
            session.detach()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_a_program_of_another_user(debugger: str, project: Project) -> None:
    os.chmod(project.folder.parent, 0o755)  # so that it can be started
    for folder in project.folder.parents:
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    words = ("/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    with running(*words, project.program) as talk:
        code = code_of(talk.process.pid)
        with attached(debugger, talk) as session:
            is_patched(session, talk, code)
            session.stop()
            session.detach()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_a_user_who_may_not_debug_it(project: Project, tmp_path: Path) -> None:
    words = ["/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "s"), "XDG_CACHE_HOME": str(tmp_path / "c")}
    with running(project.program) as talk:
        done = subprocess.run(
            [*words, "-m", "ipbp.cli.main", "apply", "--pid", str(talk.process.pid)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if "Permission denied" in done.stderr and "ipbp" not in done.stderr:
            pytest.skip("another user cannot even start this Python")
        assert "process-permission" in done.stderr, done.stderr
        assert done.returncode == 1
        assert ask(talk) == "6"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a process namespace of its own here")
def test_a_program_in_a_container(debugger: str, project: Project) -> None:
    """In namespaces of its own for processes and mounts, as containers have; the debugger is outside."""
    words = ("/usr/bin/unshare", "--pid", "--mount-proc", "--fork", "--kill-child", project.program)
    talk = Talk(*map(str, words))  # type: ignore[arg-type]
    try:
        assert ask(talk) == "6"
        children = Path(f"/proc/{talk.process.pid}/task/{talk.process.pid}/children").read_text().split()
        pid = int(children[0])
        code = code_of(pid)
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(pid)
            session.resume()
            is_patched(session, talk, code, pid)
            session.stop()
            session.detach()
    finally:
        talk.kill()


# --- what the program does meanwhile -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("debugger", "how"),
    [
        *((debugger, how) for debugger in ("gdb", "lldb") for how in ("spawns", "signals")),
        ("gdb", "forks"),
        ("gdb", "loads"),
        # lldb (19) itself now and then keeps a program stopped for good whose fork(2) it meets in a stop.
        pytest.param("lldb", "forks", marks=pytest.mark.slow),
        # lldb stops the program at each library that comes or goes, and asks for all of its symbols.
        pytest.param("lldb", "loads", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("times", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_program_that_never_rests(debugger: str, how: str, times: int, project: Project) -> None:
    with running(project.program, how) as talk:
        code = code_of(talk.process.pid)
        with attached(debugger, talk) as session:
            if debugger == "gdb":
                session.tell("handle SIGALRM nostop noprint pass")
            else:
                session.tell("process handle SIGALRM --stop false --notify false --pass true")
            if debugger == "gdb":  # which steps over its own breakpoints in a copy, at the program's entry
                session.tell("set displaced-stepping off")
            for _ in range(times):
                is_patched(session, talk, code)
            session.stop()
            session.detach()
        assert ask(talk) == "6"
        assert talk.close() == 0


ODD = ("inject-failed",)
"""lldb, for a moment after an execve(2): it sets registers of the program that was there before. It is rolled back."""


def test_a_program_that_replaces_itself(debugger: str, project: Project) -> None:
    """Every 0.7 seconds. A patch is of the program that was there; the next one begins as its file says."""
    with running(project.program, "execs") as talk, attached(debugger, talk) as session:
        if debugger == "gdb":
            session.tell("handle SIGALRM nostop noprint pass")
        else:
            session.tell("process handle SIGALRM --stop false --notify false --pass true")
        outcomes = []
        for _ in range(6):
            outcome = session.call("apply")
            outcomes.append(outcome["outcome"])
            if outcome["outcome"] == "error":
                is_said(
                    outcome,
                    "plan-outdated",
                    "inferior-gone",
                    "inferior-busy",
                    "inferior-unstoppable",
                    "program-busy",
                    *ODD,
                )
            elif outcome["outcome"] == "refused":
                is_said(
                    outcome,
                    "memory-changed",
                    "address-taken",
                    "memory-unreadable",
                    "image-unloaded",
                    "not-the-running-code",
                )
            if session.is_stopped():  # lldb stops at an execve(2)
                session.resume()
            assert ask(talk) in ("6", "1005")
            sleep(0.3)
        assert {"patched", "unchanged"} & set(outcomes), outcomes


def test_a_program_that_ends_meanwhile(debugger: str, project: Project) -> None:
    ended = 0
    with debug_with(debugger, find_debugger(debugger)) as session:
        for _ in range(8):
            with running(project.program) as talk:
                session.attach(talk.process.pid)
                if debugger == "gdb":
                    session.tell("handle SIGALRM nostop noprint pass")
                else:
                    session.tell("process handle SIGALRM --stop false --notify false --pass true")
                session.resume()
                assert ask(talk, "e") == "6"
                outcome = session.call("apply")
                if outcome["outcome"] != "patched":
                    ended += 1
                    is_said(outcome, "inferior-gone", "inferior-none", "inferior-unstoppable", "process-ended")
                talk.process.kill()
    assert ended
