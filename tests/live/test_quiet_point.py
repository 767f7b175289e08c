"""A patch that waits until nobody is in what it changes, and says who is when that takes too long."""

from __future__ import annotations

import re
import threading

import pytest
from answerer import Answerer
from scenario import Talk
from sessions import Session, answer
from test_frames import IN_EACH_LANGUAGE, MOSTLY_IN_C

pytestmark = pytest.mark.live

ONE = "char one = 0;", "char one = 1;"
READ_LINE = {"c": ONE, "c++": ONE, "rust": ("if size > 0", "if size != 0")}
"""By language: an edit of `read_line`, which does what it did."""


@IN_EACH_LANGUAGE
def test_a_function_that_waits_for_input_is_patched_when_it_has_returned(
    session: Session, project: Answerer, talk: Talk
) -> None:
    # The program is in `read_line` but for the moment in which it answers.
    session.resume()
    assert talk.ask("plain") == "41"
    project.replace(*READ_LINE[project.language])
    is_done, said = threading.Event(), set[str]()

    def feed() -> None:
        while not is_done.is_set():
            said.add(talk.ask("plain"))

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        outcome = session.call("apply --quiet-point --timeout 15")
    finally:
        is_done.set()
        feeder.join()
    assert outcome["outcome"] == "patched", outcome["text"]
    assert not any("may still be in the old" in note for note in outcome["notes"])
    assert said == {"41"}
    assert session.call("status")["old"] == []
    assert answer(talk, session, "plain") == ("41", 0)
    session.stop()
    session.detach()
    assert talk.ask("plain") == "41"


@MOSTLY_IN_C
def test_when_the_time_is_up_it_is_said_who_is_where(session: Session, project: Answerer, talk: Talk) -> None:
    session.resume()
    assert talk.ask("plain") == "41"
    project.replace(*READ_LINE[project.language])
    outcome = session.call("apply --quiet-point --timeout 0.3")
    assert outcome["outcome"] == "error", outcome["text"]
    assert outcome["error"]["code"] == "quiet-point"
    assert re.search(rf"thread {talk.process.pid} is in '(ledger::)?read_line\b", outcome["error"]["fact"])
    assert answer(talk, session, "plain") == ("41", 0)
    assert session.call("status")["patches"] == []
    # Without the wish it is patched at once, and said that the call ends in its old code.
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert any(re.search(r"old '(ledger::)?read_line\b", note) for note in outcome["notes"])


@pytest.mark.slow
def test_what_nobody_is_in_is_patched_at_once(session: Session, project: Answerer, talk: Talk) -> None:
    session.resume()
    project.replace("twice + 1;", "twice + 2;")
    outcome = session.call("apply --quiet-point --timeout 0")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert talk.ask("plain") == "42"


def test_a_program_that_the_user_has_stopped_is_not_let_go(session: Session, project: Answerer, talk: Talk) -> None:
    session.break_at(file=project.source.name, line=project.line_of("more ="))
    session.resume()
    talk.tell("plain")
    session.wait_until_stopped()
    project.replace("twice + 1;", "twice + 2;")
    outcome = session.call("apply --quiet-point")
    assert outcome["error"]["code"] == "quiet-point"
    assert "`finish`" in outcome["error"]["advice"]
    assert session.is_stopped()
