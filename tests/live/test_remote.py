"""What works in a debugger on the same machine works behind gdbserver, by the remote protocol alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import EDITS, Project, Talk, build_project
from sessions import GdbserverSession, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live
ASKED = [row for edit in EDITS for row in edit.ask]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Project:
    return build_project(tmp_path_factory.mktemp("remote") / "project", gcc, ["-O2"])


@pytest.fixture
def project(tmp_path: Path, gcc: str) -> Project:
    return build_project(tmp_path / "project", gcc, ["-O2"])


@pytest.fixture(params=["remote", "extended-remote"])
def session(request: pytest.FixtureRequest, talk: Talk) -> Iterator[GdbserverSession]:
    with debug_with("gdbserver", find_debugger("gdb")) as session:
        session.kind = request.param
        session.attach(talk.process.pid)
        yield session


def test_patch_after_patch_and_back(project: Project, talk: Talk, session: GdbserverSession) -> None:
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
