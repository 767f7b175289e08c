"""Optimised files are compiled without optimisation while they run, stepped through, edited, and put back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from scenario import PROGRAMS, Project, Talk
from sessions import Session, code_of
from ticker import wait_until

pytestmark = pytest.mark.live

FILES = ("main.c", "work.c")


@pytest.fixture(scope="module", params=["gcc", pytest.param("clang", marks=pytest.mark.slow)])
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Project:
    compiler = str(request.getfixturevalue(request.param))
    return workshop(tmp_path_factory.mktemp("workshop"), FILES, compiler, "-D_FORTIFY_SOURCE=2", "-Werror")


def workshop(folder: Path, files: Sequence[str], compiler: str, *flags: str) -> Project:
    """The program of these files, optimised."""
    rows = []
    for name in files:
        shutil.copy(PROGRAMS / "workshop" / name, folder)
        arguments = [compiler, *flags, "-O2", "-g", "-c", name, "-o", f"{name}.o"]
        subprocess.run(arguments, cwd=folder, check=True)
        rows.append({"directory": str(folder), "file": name, "arguments": arguments})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    program = folder / "workshop"
    subprocess.run([compiler, *(f"{name}.o" for name in files), "-o", program], cwd=folder, check=True)
    return Project(folder, program)


@pytest.fixture
def talk(built: Project) -> Iterator[Talk]:
    talk = Talk(built.program)
    yield talk
    talk.kill()


def expected(n: int, calls: int, halves: int = 1) -> int:
    """What `work` returns when `length` was called so often before. `halves`: how often the small part is halved."""
    return sum(2 * (i * i + (i + 1) ** 2) + (i // 2**halves & 0xFF) for i in range(n)) + calls + n


def stop_in_small(session: Session, talk: Talk) -> None:
    session.break_at(function="small")
    session.resume()
    talk.tell("3")
    session.wait_until_stopped()
    session.delete_breakpoints()


@pytest.mark.parametrize("name", ["work.c", "work"])
def test_a_file_can_be_stepped_through_and_is_put_back(built: Project, session: Session, talk: Talk, name: str) -> None:
    session.resume()
    assert talk.ask("10") == str(expected(10, 0))
    before = code_of(talk.process.pid)
    outcome = session.call(f"deopt {name}")
    assert outcome["outcome"] == "patched", outcome
    assert {"work", "small", "square"} <= {row["name"] for row in outcome["functions"]}
    assert any("of a processor" in note for note in outcome["notes"]), outcome["notes"]
    assert talk.ask("10") == str(expected(10, 10))
    session.stop()
    stop_in_small(session, talk)
    session.tell("next")
    line = next(row for row, text in enumerate((built.folder / "work.c").read_text().splitlines(), 1) if "0xff" in text)
    wait_until(lambda: f"work.c:{line}" in session.where(), session.where)
    assert session.evaluate("value") == 0
    assert session.evaluate("halved") == 0
    session.resume()
    assert talk.hear() == str(expected(3, 20))
    again = session.call("deopt work.c")
    assert [row["code"] for row in again["refusals"]] == ["deopt-needless"]
    assert session.call("reopt")["outcome"] == "undone"
    assert code_of(talk.process.pid) == before
    assert talk.ask("10") == str(expected(10, 23))


def test_an_edit_stays_without_optimisation_until_that_is_taken_back(
    built: Project, session: Session, talk: Talk
) -> None:
    source = built.folder / "work.c"
    text, times = source.read_text(), source.stat()
    try:
        session.resume()
        assert session.call("deopt work.c")["outcome"] == "patched"
        source.write_text(text.replace("value / 2;", "value / 2 / 2;"))
        outcome = session.call("apply")
        assert [row["name"] for row in outcome["functions"]] == ["small"], outcome
        assert talk.ask("30") == str(expected(30, 0, 2))
        session.stop()
        stop_in_small(session, talk)
        session.resume()
        assert talk.hear() == str(expected(3, 30, 2))
        outcome = session.call("reopt work.c")
        assert outcome["outcome"] == "patched", outcome
        assert {"work", "length"} & {row["name"].partition(".")[0] for row in outcome["functions"]}
        assert talk.ask("30") == str(expected(30, 33, 2))
        assert [row["code"] for row in session.call("reopt")["refusals"]] == ["deopt-needless"]
    finally:
        source.write_text(text)
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_what_is_not_known_or_not_optimised_is_refused(session: Session, talk: Talk, built: Project) -> None:
    before = code_of(talk.process.pid)
    session.resume()
    for name in ("nonsense", "nowhere.c"):
        assert [row["code"] for row in session.call(f"deopt {name}")["refusals"]] == ["deopt-unknown"]
    assert "NAME" in session.call("help")["text"]
    assert talk.ask("10") == str(expected(10, 0))
    session.stop()
    assert code_of(talk.process.pid) == before
