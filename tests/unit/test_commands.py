"""`hotpatch ...` up to where the engine begins: its words, its errors, its exit statuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.host import commands, fake
from ipbp.host.words import parse
from ipbp.protocol import Description


class Console:
    is_terminal = False

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def confirm(self, question: str) -> None:
        return None

    def is_interrupted(self) -> bool:
        return False


class Absent:
    """An inferior that answers every question with one error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def describe(self) -> Description:
        raise self._error


def run(words: str, error: BaseException) -> tuple[int, str]:
    console = Console()
    return commands.run(Absent(error), words, console), console.text  # type: ignore[arg-type]


NONE = IpbpError("inferior-none", "no program is running", "`run` it, or `attach` to it.")


@pytest.mark.parametrize("words", ["", "--json", "--build-dir 'a b'", "apply --compile-commands x"])
def test_no_word_means_apply(words: str) -> None:
    assert parse(words).action == "apply"


@pytest.mark.parametrize("words", ["aply", "undo x", "object one.o", "status more", "undo 'x", "apply --nonsense"])
def test_words_that_make_no_sense_are_usage_and_end_nothing(words: str) -> None:
    status, text = run(words, NONE)
    assert status == 2
    assert "[usage]" in text
    assert "hotpatch help" in text


def test_help_needs_no_program() -> None:
    status, text = run("help", NONE)
    assert status == 0
    for word in ("preview", "status", "undo", "object", "doctor", "agree"):
        assert word in text


@pytest.mark.parametrize("words", ["", "preview", "status", "undo", "object a.o b.o"])
def test_without_a_program_each_word_says_so_once(words: str) -> None:
    status, text = run(words, NONE)
    assert status == 1
    assert text == "no program is running [inferior-none]\n  `run` it, or `attach` to it.\n"


def test_json_is_one_object_on_one_line_that_begins_with_its_outcome() -> None:
    status, text = run("status --json", NONE)
    assert status == 1
    assert text.startswith('{"outcome":"error"')
    assert text.count("\n") == 1
    assert json.loads(text)["error"]["code"] == "inferior-none"


def test_ctrl_c_is_an_outcome() -> None:
    status, text = run("status", KeyboardInterrupt())
    assert status == 1
    assert "[interrupted]" in text


def test_a_bug_is_shown_with_its_trace_and_does_not_reach_the_debugger() -> None:
    status, text = run("status", ZeroDivisionError("division by zero"))
    assert status == 1
    assert "ZeroDivisionError" in text
    assert "Traceback" in text
    assert "[bug]" in text


def test_a_refusal_names_every_reason() -> None:
    reasons = [Refusal("a-code", "one fact", "one advice", "f", "a.c"), Refusal("b-code", "other fact", "other advice")]
    status, text = run("status", Refused(reasons))
    assert status == 3
    for word in ("a.c: one fact [a-code]", "one advice", "other fact [b-code]", "other advice", "untouched"):
        assert word in text


class Moving(Absent):
    """A running program whose thread leaves the code that it is in after so many stops."""

    def __init__(self, stops: int) -> None:
        self.stops, self.made = stops, 0

    def describe(self) -> Description:
        return Description(0, "x86_64", "none", "", False, True)

    def while_stopped(self, act: Callable[[], None], then: Callable[[float], None]) -> None:
        self.made += 1
        act()
        then(1.0)


@pytest.mark.parametrize(("stops", "code", "made"), [(5, "caller-running", 6), (99, "caller-running", 30), (5, "x", 1)])
def test_a_caller_that_is_left_soon_is_waited_for(
    stops: int, code: str, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "forget_unloaded", lambda *_: [])
    monkeypatch.setattr(commands, "inherit", lambda *_: None)
    monkeypatch.setattr(commands.transaction, "recover", lambda *_: 0)
    inferior, console = Moving(stops), Console()
    command = commands.Command(inferior, console, False)  # type: ignore[arg-type]

    def action() -> dict[str, object]:
        if inferior.made <= inferior.stops:
            raise Refused([Refusal(code, "a thread is in 'f'", "Try again.")])
        return {"outcome": "ok"}

    if made > stops:
        assert command.while_stopped(action, None) == 0  # type: ignore[arg-type]
    else:
        with pytest.raises(Refused):
            command.while_stopped(action, None)  # type: ignore[arg-type]
    assert inferior.made == made


class Behind(fake.FakeInferior):
    """Of another machine; `reads`: what was read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int]] = []

    def read(self, address: int, size: int) -> bytes:
        self.reads.append((address, size))
        return super().read(address, size)


def test_what_the_engine_wants_near_each_other_is_read_over_a_link_at_once() -> None:
    inferior = Behind()
    inferior.map(fake.DATA + fake.PAGE, fake.PAGE, "rw", content=bytes(range(256)) * 16)
    start = fake.DATA + fake.PAGE
    # Out of order, one inside another, and one that crosses the end of the mapping.
    ranges = [(start + 300, 4), (start, 8), (start + 2, 2), (start + fake.PAGE - 4, 8)]
    answer = commands.Command(inferior, Console(), True).answer("read", {"ranges": ranges})  # type: ignore[arg-type]
    contents = [None if row is None else base64.b64decode(row) for row in answer["bytes"]]
    assert contents == [bytes([44, 45, 46, 47]), bytes(range(8)), bytes([2, 3]), None]
    assert inferior.reads[0] == (start, 304)
    assert len(inferior.reads) == 3  # the one that is not there is asked for once more, by itself
