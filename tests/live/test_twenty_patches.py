"""Twenty patches in one sitting, with everything that a day's work does to a source tree, and the way back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Talk
from sessions import Session, code_of, debug_with
from shop import STEPS, build, build_shop, make

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

FLAGS = ("-O2", "-fno-ipa-icf")
FRESH = ("price 3", "price 9", "stock 6", "stock 7")
"""Commands whose answers do not depend on what the program has counted."""


@pytest.fixture(params=["gdb", "lldb"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Session, Talk, Path]]:
    project = build_shop(tmp_path / "shop", *FLAGS)
    talk = Talk(project.program)
    with debug_with(request.param, find_debugger(request.param)) as opened:
        opened.attach(talk.process.pid)
        opened.resume()
        yield opened, talk, project.folder
    talk.kill()


def test_twenty_patches_in_one_session(session: tuple[Session, Talk, Path]) -> None:
    debugger, talk, folder = session
    original = code_of(talk.process.pid)
    assert answers(talk, "price 3", "asked") == ["30", "1"]
    prices = ["30"]
    place: dict[str, int] = {}
    for number, step in enumerate(STEPS, start=1):
        make(step, folder, *FLAGS)
        outcome = debugger.call("apply")
        assert outcome["outcome"] == "patched", f"{step.name}: {outcome}"
        assert {row["name"] for row in outcome["functions"]} == step.functions, (step.name, outcome["functions"])
        assert [(line, talk.ask(line)) for line, _answer in step.ask] == list(step.ask), step.name
        assert applied(debugger) == list(range(1, number + 1)), step.name
        for row in outcome["functions"]:
            assert place.setdefault(row["name"], row["entry"]) == row["entry"], (step.name, row)
        prices.append(dict(step.ask).get("price 3", prices[-1]))
    fresh = answers_of_a_fresh_build(folder)
    assert answers(talk, *FRESH) == fresh

    assert debugger.call("undo 12")["outcome"] == "undone"
    assert applied(debugger) == list(range(1, 13))
    assert talk.ask("price 3") == prices[12]
    assert debugger.call("apply")["outcome"] == "patched"
    assert applied(debugger) == [*range(1, 13), 21]
    assert answers(talk, *FRESH) == fresh

    assert debugger.call("undo")["outcome"] == "undone"
    for number in range(12, 0, -1):
        assert talk.ask("price 3") == prices[number]
        assert debugger.call("undo")["outcome"] == "undone"
        assert applied(debugger) == list(range(1, number))
    assert code_of(talk.process.pid) == original
    assert debugger.call("undo")["error"]["code"] == "nothing-to-undo"
    assert talk.ask("price 3") == "30"
    counted = int(talk.ask("asked"))

    assert debugger.call("apply")["outcome"] == "patched"
    assert answers(talk, *FRESH) == fresh
    assert int(talk.ask("asked")) // 10000 == counted + 2
    assert debugger.call("apply")["outcome"] == "unchanged"


def answers(talk: Talk, *lines: str) -> list[str]:
    return [talk.ask(line) for line in lines]


def applied(debugger: Session) -> list[int]:
    return [patch["patch"] for patch in debugger.call("status")["patches"]]


def answers_of_a_fresh_build(folder: Path) -> list[str]:
    copy = folder.parent / "fresh"
    copy.mkdir()
    for path in [*folder.glob("*.c"), *folder.glob("*.h")]:
        shutil.copy(path, copy)
    talk = Talk(build(copy, *FLAGS))
    found = answers(talk, *FRESH)
    assert talk.close() == 0
    return found
