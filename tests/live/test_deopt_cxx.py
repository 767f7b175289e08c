"""Optimised C++ is compiled without optimisation while it runs: inlined methods and templates can be stepped into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scenario import Project, Talk
from sessions import Session, code_of
from test_deopt import expected, workshop
from test_new_code_known import in_both, step
from test_old_sources import clang

pytestmark = pytest.mark.live

FILES = ("main.c", "work.cpp")  # C++ both: a compiler of C++ takes .c for that


@pytest.fixture(scope="module", params=["g++", pytest.param("clang++", marks=pytest.mark.slow)])
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Project:
    compiler = request.param if request.param == "g++" else clang("clang++")
    return workshop(tmp_path_factory.mktemp("workshop"), FILES, compiler, "-xc++")


@pytest.fixture
def talk(built: Project) -> Iterator[Talk]:
    talk = Talk(built.program)
    yield talk
    talk.kill()


def test_inlined_methods_are_stepped_into_and_all_is_put_back(session: Session, talk: Talk, built: Project) -> None:
    session.resume()
    assert talk.ask("10") == str(expected(10, 0))
    before = code_of(talk.process.pid)
    outcome = session.call("deopt work.cpp")
    assert outcome["outcome"] == "patched", outcome
    names = " ".join(row["name"] for row in outcome["functions"])
    assert all(name in names for name in ("work(int)", "shapes::Point::length", "shapes::Point::square", "small<int>"))
    assert talk.ask("10") == str(expected(10, 10))
    session.stop()
    session.break_at(function="shapes::Point::length")
    session.resume()
    talk.tell("3")
    session.wait_until_stopped()
    session.delete_breakpoints()
    assert session.evaluate("this->x") == 0
    assert session.evaluate("this->y") == 1
    step(session, "step", "step")
    assert "shapes::Point::square" in session.where()
    assert session.evaluate("value") in (0, 1)
    step(session, "finish", "finish")
    assert "shapes::Point::length" in session.where()
    session.tell("up")
    assert "scale = 2" in in_both(session, "info args", "frame variable")
    session.resume()
    assert talk.hear() == str(expected(3, 20))
    assert session.call("reopt")["outcome"] == "undone"
    assert code_of(talk.process.pid) == before
    assert talk.ask("10") == str(expected(10, 23))
