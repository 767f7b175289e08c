"""The loop of watch mode: what it asks, what it shows, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ipbp.errors import IpbpError
from ipbp.host.watch_loop import Loop

Message = dict[str, Any]

PLAN = {"outcome": "planned", "plan": {"number": 1}}
UNCHANGED = {"outcome": "unchanged"}
BROKEN = IpbpError("compile-failed", "a.c does not compile", "Correct it.")
GONE = IpbpError("inferior-none", "no program is running", "Run it.")


class Program:
    """Answers by script: for each verb what comes next, or an error to raise."""

    def __init__(self, plan: list[Any], saves: list[Message], apply: list[Message] | None = None) -> None:
        self.script: dict[str, list[Any]] = {"plan": plan, "saves": saves, "apply": apply or []}
        self.shown: list[Message] = []
        self.asked: list[str] = []
        self.absent = 0
        self.is_ended = False

    def params(self) -> Message:
        if self.absent:
            self.absent -= 1
            raise GONE
        return {"description": {"pid": 7}}

    def ask(self, verb: str, params: Message) -> Message:
        self.asked.append(verb)
        return {"files": 3} if verb == "follow" else self.next(verb)

    def apply(self, plan: Message) -> Message:
        self.asked.append("apply")
        return self.next("apply")

    def next(self, verb: str) -> Message:
        answer = self.script[verb].pop(0)
        if isinstance(answer, IpbpError):
            raise answer
        return answer

    def show(self, outcome: Message) -> None:
        self.shown.append(outcome)

    def is_over(self) -> bool:
        return not self.script["saves"]

    def has_ended(self) -> bool:
        return self.is_ended


def run(program: Program, waits: bool = False, sleep: Callable[[float], None] = lambda seconds: None) -> Loop:
    loop = Loop(program, waits, sleep)
    loop.run()
    return loop


SAVED = {"saved": ["a.c"]}
OVER = {"saved": [], "is_gone": True}


def test_each_save_is_planned_applied_and_shown() -> None:
    done = {"outcome": "patched"}
    program = Program([UNCHANGED, PLAN, PLAN], [SAVED, SAVED, OVER], [done, done])
    loop = run(program)
    assert program.asked == ["follow", "plan", "saves", *["follow", "plan", "apply", "saves"] * 2]
    assert program.shown == [done, done]
    assert loop.patches == 2


def test_a_save_that_does_not_compile_is_shown_and_the_next_one_counts() -> None:
    done = {"outcome": "patched"}
    program = Program([UNCHANGED, BROKEN, PLAN], [SAVED, SAVED, OVER], [done])
    run(program)
    assert [row["outcome"] for row in program.shown] == ["error", "patched"]


def test_the_same_failure_is_shown_once_for_each_save() -> None:
    other_images = {"saved": []}
    program = Program([BROKEN, BROKEN, BROKEN], [other_images, SAVED, OVER])
    run(program)
    assert len(program.shown) == 2


def test_a_save_without_an_edit_is_no_news_unless_there_is_something_to_say() -> None:
    program = Program([UNCHANGED, UNCHANGED, {**UNCHANGED, "notes": ["in vain"]}], [SAVED, SAVED, OVER])
    run(program)
    assert program.shown == [{**UNCHANGED, "notes": ["in vain"]}]


def test_a_plan_that_somebody_else_was_faster_than_is_made_again() -> None:
    late = {"outcome": "error", "error": {"code": "plan-outdated", "fact": "", "advice": ""}}
    program = Program([UNCHANGED, PLAN, PLAN], [SAVED, OVER], [late, {"outcome": "patched"}])
    run(program)
    assert [row["outcome"] for row in program.shown] == ["patched"]


def test_a_program_that_is_not_there_yet_is_waited_for() -> None:
    slept: list[float] = []
    program = Program([UNCHANGED], [OVER])
    program.absent = 3
    run(program, waits=True, sleep=slept.append)
    assert len(slept) == 4
    assert program.asked == ["follow", "plan", "saves"]


def test_a_program_that_ends_during_a_patch_is_no_failure_of_watch_mode() -> None:
    gone = {"outcome": "error", "error": GONE.to_json()}
    program = Program([PLAN], [OVER], [gone])
    run(program)
    assert program.shown == []


@pytest.mark.parametrize("code", ["image-unreadable", "engine-bug"])
def test_whatever_fails_when_the_program_ends_is_no_failure_of_watch_mode(code: str) -> None:
    program = Program([IpbpError(code, "its memory cannot be read", "Try again.")], [OVER])
    program.is_ended = True
    run(program)
    assert program.shown == []


def test_a_refusal_is_shown_when_the_program_goes_on_and_not_when_it_has_ended() -> None:
    refused = {"outcome": "refused", "refusals": []}
    for is_ended in (False, True):
        program = Program([PLAN], [OVER], [refused])
        program.is_ended = is_ended
        run(program)
        assert bool(program.shown) is not is_ended


def test_the_next_program_is_watched_when_one_ends_while_it_is_looked_at() -> None:
    class Ending(Program):
        def has_ended(self) -> bool:
            return self.asked == ["follow"]

        def ask(self, verb: str, params: Message) -> Message:
            if self.asked:
                return super().ask(verb, params)
            self.asked.append(verb)
            raise IpbpError("engine-bug", "the engine failed", "Report it.")

    program = Ending([UNCHANGED], [OVER])
    run(program, waits=True)
    assert program.asked == ["follow", "follow", "plan", "saves"]
    assert program.shown == []


def test_what_keeps_it_from_watching_is_shown_once_and_ends_it() -> None:
    class Unknown(Program):
        def ask(self, verb: str, params: Message) -> Message:
            raise IpbpError("no-commands", "nothing says how it is compiled", "Build with -g.")

    program = Unknown([], [OVER])
    run(program)
    assert [row["error"]["code"] for row in program.shown] == ["no-commands"]


def test_an_engine_that_keeps_dying_ends_it() -> None:
    class Dead(Program):
        def ask(self, verb: str, params: Message) -> Message:
            self.asked.append(verb)
            raise IpbpError("engine-died", "the engine died", "Try again.")

    program = Dead([], [OVER])
    run(program)
    assert [row["error"]["code"] for row in program.shown] == ["engine-died"]
    assert len(program.asked) == 5
