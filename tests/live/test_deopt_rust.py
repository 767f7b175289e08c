"""An optimised crate is compiled without optimisation while its program runs, and put back; all of its state stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cargo_project import CargoProject, build_cargo_project
from scenario import Talk
from sessions import Session, debug_with
from ticker import wait_until

from ipbp.cli.debuggers import find_debugger

pytestmark = [pytest.mark.live, pytest.mark.compiles]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> CargoProject:
    folder = tmp_path_factory.mktemp("release") / "market"
    return build_cargo_project(folder, "--release", settings="\n[profile.release]\ndebug = true\n")


@pytest.fixture
def talk(project: CargoProject) -> Iterator[Talk]:
    talk = Talk(project.program)
    yield talk
    talk.kill()


@pytest.fixture(params=["gdb", pytest.param("lldb", marks=pytest.mark.slow)])
def session(request: pytest.FixtureRequest, talk: Talk) -> Iterator[Session]:
    with debug_with(request.param, find_debugger(request.param)) as session:
        session.attach(talk.process.pid)
        session.resume()
        yield session


def test_a_crate_can_be_stepped_through_and_is_put_back(session: Session, project: CargoProject, talk: Talk) -> None:
    assert [talk.ask(line) for line in ("price 4", "tally a", "twice ab")] == ["40", "100 a 1", "abab"]
    outcome = session.call("deopt parts/src/lib.rs")
    assert outcome["outcome"] == "patched", outcome
    assert any("tally" in row["name"] for row in outcome["functions"])
    assert [talk.ask(line) for line in ("price 4", "tally b", "twice ab")] == ["40", "101 a 2", "abab"]
    lines = (project.folder / "parts/src/lib.rs").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "items * 10" in text)
    session.stop()
    session.tell(f"break lib.rs:{line}" if session.name == "gdb" else f"breakpoint set --file lib.rs --line {line}")
    session.resume()
    talk.tell("price 6")
    session.wait_until_stopped()
    wait_until(lambda: f"lib.rs:{line}" in session.where(), session.where)
    shown = session.tell("print items" if session.name == "gdb" else "frame variable items")
    assert "= 6" in shown, shown
    session.delete_breakpoints()
    session.resume()
    assert talk.hear() == "60"
    assert session.call("reopt")["outcome"] in ("undone", "patched")
    assert [talk.ask(line) for line in ("price 4", "tally c", "twice ab")] == ["40", "102 a 3", "abab"]
    assert [row["code"] for row in session.call("reopt")["refusals"]] == ["deopt-needless"]


def test_what_was_built_without_optimisation_is_left_alone(session: Session, talk: Talk) -> None:
    assert [row["code"] for row in session.call("deopt nowhere.rs")["refusals"]] == ["deopt-unknown"]
    assert talk.ask("price 4") == "40"
