"""What a session leaves on disk is the user's alone, and the engine talks to its debugger and to nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from scenario import EDITS, Talk, build_project
from sessions import debug_with, ipbp

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

BODY = next(edit for edit in EDITS if edit.name == "body")


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_nobody_else_can_read_what_a_session_leaves(
    debugger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    before = os.umask(0)  # as careless as it can be
    project = build_project(tmp_path / "project", "gcc", ["-O0"])
    talk = Talk(project.program)
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            session.resume()
            project.edit(BODY)
            assert session.call("apply")["outcome"] == "patched"
            engine = next(row["text"] for row in session.call("doctor")["lines"] if row["name"] == "engine")
            kinds = descriptors(int(engine.rpartition("process ")[2]))
            session.stop()
            session.detach()
        assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
        assert ipbp("apply", talk.process.pid, debugger)["outcome"] == "patched"
    finally:
        os.umask(before)
        talk.kill()

    assert not [kind for kind in kinds if kind.startswith("socket:")], kinds
    folders, files = [], []
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        for path in (tmp_path / name / "ipbp").rglob("*"):
            (folders if path.is_dir() else files).append(path)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert {path: oct(path.stat().st_mode) for path in files if path.stat().st_mode & 0o077} == {}
    assert {path.name for path in files} >= {"journal", "session", "engine.log"}
    assert any(path.suffix == ".elf" for path in files)


def descriptors(pid: int) -> list[str]:
    return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
