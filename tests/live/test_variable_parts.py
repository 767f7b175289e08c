"""A static array that clang keeps in parts: after an edit the numbers of the parts mean others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import build_one, ipbp

pytestmark = pytest.mark.live
LEVELS = ("-O1", "-O2", "-Os")


@pytest.fixture(params=LEVELS)
def running(request: pytest.FixtureRequest, clang: str, tmp_path: Path) -> Iterator[tuple[Talk, Project]]:
    project = build_one(tmp_path / "project", "parts", request.param, compiler=clang)
    talk = Talk(project.program)
    assert [talk.ask("count 1"), talk.ask("last 1")] == ["6008", "8"]
    yield talk, project
    talk.kill()


def edit(project: Project, *edits: tuple[str, str]) -> None:
    path = project.folder / "parts.c"
    text = path.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_the_same_machine_code_that_means_other_parts_is_patched(running: tuple[Talk, Project]) -> None:
    """`t.0` and `t.1` are t[1] and t[2] in the new object, and `count` has the bytes that it had."""
    talk, project = running
    edit(project, ("t[1]", "t[ 2 ]"), ("t[0]", "t[ 1 ]"))
    outcome = ipbp("apply", talk.process.pid, "gdb")
    assert outcome["outcome"] == "patched", outcome
    assert talk.ask("count 1") == str((8 + 1) * 1000 + 8 + 2)
    assert talk.ask("last 1") == "11"


def test_an_edit_elsewhere_leaves_each_part_its_value(running: tuple[Talk, Project]) -> None:
    talk, project = running
    edit(project, ("t[1] += 2 * x", "t[1] += 3 * t[0]"))
    outcome = ipbp("apply", talk.process.pid, "gdb")
    assert outcome["outcome"] == "patched", outcome
    assert talk.ask("count 1") == str(7 * 1000 + 8 + 3 * 7)


def test_a_part_that_was_left_out_is_refused(running: tuple[Talk, Project]) -> None:
    talk, project = running
    edit(
        project, ("unsigned t[3] = {5, 6, 7}", "unsigned t[3] = {5, 6, 7}"), ("t[2] += x;\n    return t[2]", "return x")
    )
    assert ipbp("apply", talk.process.pid, "gdb")["outcome"] == "patched"
    edit(project, ("return x;", "t[2] += x;\n    return t[2];"))
    outcome = ipbp("apply", talk.process.pid, "gdb")
    assert outcome["outcome"] == "refused"
    assert [row["code"] for row in outcome["refusals"]] == ["variable-split"]
