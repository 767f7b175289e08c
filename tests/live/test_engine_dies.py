"""The engine is killed at every message of a patch: one clear error each time, and the program is untouched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scenario import EDITS, build_project
from sessions import code_of, debugged

pytestmark = pytest.mark.live

BODY = next(edit for edit in EDITS if edit.name == "body")
FEW = (1, 2, 4, 9)


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_at_every_message(debugger: str, every: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = tmp_path / "messages"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{Path(__file__).parent / 'dying_engine.py'}' \"$@\"\n")
    python.chmod(0o755)
    monkeypatch.setenv("IPBP_PYTHON", str(python))
    monkeypatch.setenv("IPBP_TEST_MESSAGES", str(counted))
    counted.write_text("0 0")
    project = build_project(tmp_path / "project", "gcc", ["-O0"])
    with debugged(project.program, debugger) as (session, talk):
        project.edit(BODY)
        code = code_of(talk.process.pid)
        assert session.call("apply")["outcome"] == "patched"
        symbols = int(counted.read_text().split()[1]) - 1  # what is asked for at last, when the patch is in force
        assert session.call("undo")["outcome"] == "undone"
        count = symbols - 1
        assert count > max(FEW)
        for number in range(1, count + 1) if every else FEW:
            counted.write_text(f"{number} 0")
            outcome = session.call("apply")
            if counted.read_text().startswith("0") and outcome["outcome"] == "patched":
                pytest.fail(f"message {number} was the last one: {outcome}")
            assert outcome["outcome"] == "error", (number, outcome)
            assert outcome["error"]["code"] == "engine-died", (number, outcome)
            assert "\n" not in outcome["error"]["fact"]
            assert talk.ask("body 5") == "6"
            assert code_of(talk.process.pid) == code
        counted.write_text(f"{symbols} 0")
        outcome = session.call("apply")
        assert (outcome["outcome"], "engine-died" in "".join(outcome["notes"])) == ("patched", True), outcome
        assert talk.ask("body 5") == "1005"
        assert session.call("undo")["outcome"] == "undone"
        counted.write_text("0 0")
        assert session.call("apply")["outcome"] == "patched"
        assert talk.ask("body 5") == "1005"
        assert len(session.call("status")["patches"]) == 1
        assert session.call("undo")["outcome"] == "undone"
        assert code_of(talk.process.pid) == code
        session.stop()
        session.detach()
