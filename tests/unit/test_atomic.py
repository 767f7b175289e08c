"""All or none: nobody is patched before all are stopped, and nobody goes on before all are patched or taken back."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipbp.cli import atomic
from ipbp.cli.attach import Prepared
from ipbp.cli.outcome import Outcome
from ipbp.errors import IpbpError
from ipbp.host.journal import Journal
from ipbp.host.quiet import BUSY
from ipbp.pipeline.order import Outcome as Planned

OK: Outcome = {"outcome": "patched"}
REFUSED: Outcome = {"outcome": "refused", "refusals": []}
BUSY_NOW: Outcome = {"outcome": "error", "error": {"code": BUSY}}


class World:
    """What the debuggers are told, in order, and what they answer. `answers`: by process, one for each attempt."""

    def __init__(self, **answers: list[Any]) -> None:
        self.said: list[tuple[str, int]] = []
        self.answers = {int(name[1:]): list(rows) for name, rows in answers.items()}
        self.cannot_attach: set[int] = set()

    @contextlib.contextmanager
    def debugging(self, arguments: argparse.Namespace, pid: int) -> Iterator[Session]:
        yield Session(self, pid)
        self.said.append(("close", pid))

    def words(self, word: str) -> list[int]:
        return [pid for said, pid in self.said if said == word]

    def first(self, word: str) -> int:
        return next(row for row, (said, _) in enumerate(self.said) if said == word)

    def last(self, word: str) -> int:
        return max(row for row, (said, _) in enumerate(self.said) if said == word)


class Session:
    def __init__(self, world: World, pid: int) -> None:
        self.world, self.pid = world, pid

    def load(self) -> None:
        self.world.said.append(("load", self.pid))

    def attach(self) -> float:
        self.world.said.append(("attach", self.pid))
        if self.pid in self.world.cannot_attach:
            raise IpbpError("debugger-attach", "no", "Try again.")
        return 1.0

    def hotpatch(self, words: str) -> Outcome:
        word = words.split()[0]
        self.world.said.append((word, self.pid))
        if word == "undo":
            return {"outcome": "undone"}
        answer = self.world.answers.get(self.pid, [OK])
        row = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(row, BaseException):
            raise row
        assert isinstance(row, dict)
        return row

    def interrupt(self) -> None:
        self.world.said.append(("interrupt", self.pid))

    def detach(self) -> None:
        self.world.said.append(("detach", self.pid))


def prepared(pid: int) -> Prepared:
    return Prepared(pid, Journal(Path()), Planned(None))


def run(
    world: World, monkeypatch: pytest.MonkeyPatch, *pids: int, newcomers: atomic.Newcomers = list
) -> dict[int, Outcome]:
    monkeypatch.setattr(atomic, "debugging", world.debugging)
    monkeypatch.setattr(atomic, "plan_words", lambda row: contextlib.nullcontext("apply"))
    monkeypatch.setattr(atomic, "has_ended", lambda pid: pid == 9)
    rows = [prepared(pid) for pid in pids]
    outcomes, _ = atomic.patch_all_or_none(argparse.Namespace(), rows, newcomers, {1, 2, 3}, lambda act: act())
    assert sorted(world.words("close")) == sorted(world.words("load")), "every debugger is ended"
    return outcomes


def code(outcome: Outcome) -> str:
    return str(outcome["error"]["code"])


def test_all_are_stopped_before_the_first_is_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    assert run(world, monkeypatch, 1, 2, 3) == {1: OK, 2: OK, 3: OK}
    assert world.last("load") < world.first("attach")
    assert world.last("attach") < world.first("apply")
    assert world.last("apply") < world.first("detach")
    assert world.last("detach") < world.first("close")


def test_those_before_one_that_cannot_be_patched_are_taken_back_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(p3=[REFUSED])
    outcomes = run(world, monkeypatch, 1, 2, 3, 4)
    assert world.words("undo") == [2, 1]
    assert world.last("undo") < world.first("detach")
    assert 4 not in world.words("apply")
    assert outcomes[3] == REFUSED
    assert [outcomes[pid]["error"]["fact"].partition(",")[0] for pid in (1, 2, 4)] == [
        "patched and taken back before it ran on",
        "patched and taken back before it ran on",
        "not patched",
    ]


def test_when_one_cannot_be_attached_to_none_is_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.cannot_attach = {2}
    outcomes = run(world, monkeypatch, 1, 2, 3)
    assert world.words("apply") == []
    assert [code(outcomes[pid]) for pid in (1, 2, 3)] == ["not-all", "debugger-attach", "not-all"]


def test_one_that_nobody_named_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.cannot_attach = {9}
    assert run(world, monkeypatch, 1, 9, 2) == {1: OK, 9: atomic.ENDED, 2: OK}


def test_one_that_was_forked_meanwhile_is_patched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world, more = World(), [[prepared(7)], []]
    assert run(world, monkeypatch, 1, newcomers=lambda: more.pop(0)) == {1: OK, 7: OK}
    assert world.last("attach") < world.first("apply")


def test_one_that_was_forked_meanwhile_and_has_no_plan_keeps_all_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def newcomers() -> list[Prepared]:
        raise atomic.not_patched(7)

    world = World()
    outcomes = run(world, monkeypatch, 1, 2, newcomers=newcomers)
    assert world.words("apply") == []
    assert all("process 7" in outcomes[pid]["error"]["fact"] for pid in (1, 2))


def test_a_busy_one_runs_on_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(p2=[BUSY_NOW, BUSY_NOW, OK])
    assert run(world, monkeypatch, 1, 2, 3) == {1: OK, 2: OK, 3: OK}
    assert world.words("attach") == [1, 2, 3, 2, 2]
    assert world.words("undo") == []


def test_ctrl_c_takes_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(p2=[KeyboardInterrupt()])
    outcomes = run(world, monkeypatch, 1, 2, 3)
    assert world.words("interrupt") == [2]
    assert world.words("undo") == [1]
    assert [code(outcomes[pid]) for pid in (1, 2, 3)] == ["not-all", "interrupted", "not-all"]
