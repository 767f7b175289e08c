"""A library that new code needs is offered by name, and loaded in the process when the user agrees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk, build_project
from sessions import debug_with, ipbp, read_memory

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

OLD, NEW = "return x + 1; }", "double cbrt(double); volatile double cube = (double)x; return (int)cbrt(cube); }"


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_project(tmp_path / "project", "gcc", ["-O2"])


@pytest.fixture
def talk(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    assert program.ask("body 1") == "2"
    source = project.folder / "talk.c"
    source.write_text(source.read_text().replace(OLD, NEW))
    yield program
    program.kill()


def libraries(pid: int) -> set[str]:
    """Names of the mapped files."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[5].rsplit("/", 1)[-1] for line in lines if len(line.split()) > 5}


def code_of(pid: int) -> bytes:
    """The program's code."""
    line = next(row for row in Path(f"/proc/{pid}/maps").read_text().splitlines() if " r-xp " in row)
    start, end = (int(part, 16) for part in line.split()[0].split("-"))
    return read_memory(pid, start, end - start)


def test_without_agreement_it_is_refused_by_name(talk: Talk, debugger: str) -> None:
    before = libraries(talk.process.pid), code_of(talk.process.pid)
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "refused", outcome
    (refusal,) = outcome["refusals"]
    assert (refusal["code"], refusal["symbol"]) == ("undefined-symbol", "cbrt")
    assert "--load libm.so.6" in refusal["advice"]
    assert (libraries(talk.process.pid), code_of(talk.process.pid)) == before


def test_with_agreement_the_new_code_calls_it(talk: Talk, debugger: str) -> None:
    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(talk.process.pid)
        session.resume()
        outcome = session.call("apply --load libm.so.6")
        assert outcome["outcome"] == "patched", outcome
        assert [row["name"] for row in outcome["functions"]] == ["body"]
        assert talk.ask("body 27") == "3"
        assert session.call("undo")["outcome"] == "undone"
        assert talk.ask("body 27") == "28"
        assert "libm.so.6" in libraries(talk.process.pid)
        session.stop()
        session.detach()
    assert talk.close() == 0


def test_ipbp_apply_loads_it_as_well(talk: Talk, debugger: str) -> None:
    outcome = ipbp("apply", talk.process.pid, debugger, "--load", "libm.so.6")
    assert outcome["outcome"] == "patched", outcome
    assert talk.ask("body 64") == "4"


def test_one_that_is_not_there_leaves_the_program_as_it_was(talk: Talk, debugger: str) -> None:
    before = libraries(talk.process.pid), code_of(talk.process.pid)
    outcome = ipbp("apply", talk.process.pid, debugger, "--load", "libnowhere.so.9")
    assert outcome["outcome"] == "error", outcome
    assert outcome["error"]["code"] == "library-not-loaded"
    assert "libnowhere.so.9" in outcome["error"]["detail"]
    assert (libraries(talk.process.pid), code_of(talk.process.pid)) == before
    assert talk.ask("body 7") == "8"
