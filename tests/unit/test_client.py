"""The client outlives its engine, never blocks, and passes on what was said."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipbp.errors import IpbpError, Refused
from ipbp.host.client import Client
from ipbp.protocol import PROTOCOL_VERSION

ENGINE = f"""
import json, os, signal, subprocess, sys, time

def send(**row):
    sys.stdout.write(json.dumps(row) + "\\n")
    sys.stdout.flush()

for line in sys.stdin:
    row = json.loads(line)
    number, verb, params = row["id"], row["verb"], row["params"]
    if verb == "hello":
        send(id=number, result={{"protocol": int(os.environ.get("ECHO_PROTOCOL", {PROTOCOL_VERSION})), "version": "9"}})
    elif verb == "echo":
        send(id=number, result=params)
    elif verb == "who":
        send(id=number, result={{"pid": os.getpid(), "session": os.getsid(0), "environment": dict(os.environ),
                                 "flags": [sys.flags.isolated, sys.flags.ignore_environment]}})
    elif verb == "read":
        send(id=number, tell="looking")
        send(id=number, ask="read", params=params)
        send(id=number, result=json.loads(sys.stdin.readline()))
    elif verb == "refuse":
        send(id=number, error={{"code": "refused", "fact": "no", "advice": "so", "refusals": params["refusals"]}})
    elif verb == "fail":
        send(id=number, error={{"code": "odd", "fact": "it broke", "advice": "mend it", "detail": "lines\\nof it"}})
    elif verb == "die":
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "half":
        sys.stdout.write('{{"id":')
        sys.stdout.flush()
        os._exit(0)
    elif verb == "garbage":
        print("no json", flush=True)
    elif verb == "stray":
        send(id=number + 7, result={{}})
    elif verb == "hang":
        child = subprocess.Popen(["sleep", "1000"])
        send(id=number, tell=str(child.pid))
        time.sleep(1000)
    elif verb == "noise":
        sys.stderr.write("x" * params["bytes"])
        sys.stderr.flush()
        send(id=number, result={{}})
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    yield from started(tmp_path, monkeypatch)


def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    # -I ignores PYTHONPATH, so the module is found by a wrapper instead of by its name.
    (tmp_path / "echo.py").write_text(ENGINE)
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" {tmp_path}/echo.py\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    client = Client(str(wrapper))
    yield client
    client.close()


def refuse_questions(question: str, params: dict) -> dict:
    raise AssertionError(question)


def ask(client: Client, verb: str, **params: object) -> dict:
    return client.request(verb, params, refuse_questions)


def code_of(client: Client, verb: str, **params: object) -> str:
    with pytest.raises(IpbpError) as caught:
        ask(client, verb, **params)
    return caught.value.code


def test_the_answer_comes_back(client: Client):
    assert ask(client, "echo", name="ünïcode\n", number=1) == {"name": "ünïcode\n", "number": 1}


@pytest.mark.parametrize("size", [1, 65535, 65536, 3_000_000])
def test_long_messages_pass_both_ways(client: Client, size: int):
    assert ask(client, "echo", text="x" * size) == {"text": "x" * size}


def test_questions_are_answered_and_progress_is_told(client: Client):
    told: list[str] = []

    def serve(question: str, params: dict) -> dict:
        assert (question, params) == ("read", {"ranges": [[1, 2]]})
        return {"bytes": ["AA=="]}

    answer = client.request("read", {"ranges": [[1, 2]]}, serve, told.append)

    assert answer["answer"] == {"bytes": ["AA=="]}
    assert told == ["looking"]


def test_what_went_wrong_with_a_question_is_what_the_user_hears(client: Client):
    def serve(question: str, params: dict) -> dict:
        raise IpbpError("inferior-gone", "it vanished", "start it")

    with pytest.raises(IpbpError, match="it vanished"):
        client.request("read", {}, serve)
    assert ask(client, "echo", number=2) == {"number": 2}


def test_refusals_arrive_all_of_them(client: Client):
    row = {"code": "far", "fact": "too far", "advice": "nearer", "symbol": "blit", "file": None}

    with pytest.raises(Refused) as caught:
        ask(client, "refuse", refusals=[row, {**row, "symbol": "fill"}])

    assert [refusal.symbol for refusal in caught.value.refusals] == ["blit", "fill"]


def test_errors_arrive_as_they_are_and_the_engine_stays(client: Client):
    first = ask(client, "who")["pid"]
    with pytest.raises(IpbpError, match="it broke") as caught:
        ask(client, "fail")

    assert (caught.value.code, caught.value.detail) == ("odd", "lines\nof it")
    assert ask(client, "who")["pid"] == first


def test_a_dead_engine_is_one_error_with_its_last_words_and_then_a_new_one(client: Client):
    first = ask(client, "who")["pid"]

    with pytest.raises(IpbpError) as caught:
        ask(client, "die")

    assert caught.value.code == "engine-died"
    assert "the last words" in caught.value.detail
    assert ask(client, "who")["pid"] != first


def test_a_dead_engine_does_not_quote_the_words_of_one_before(client: Client):
    assert code_of(client, "die") == "engine-died"
    with pytest.raises(IpbpError) as caught:
        ask(client, "half")

    assert caught.value.code == "engine-died"
    assert "the last words" not in caught.value.detail


@pytest.mark.parametrize("verb", ["garbage", "stray"])
def test_an_engine_that_talks_nonsense_is_replaced(client: Client, verb: str):
    first = ask(client, "who")["pid"]

    assert code_of(client, verb) == "protocol"

    assert ask(client, "who")["pid"] != first


def test_an_engine_that_was_killed_between_two_requests_is_one_error(client: Client):
    os.kill(ask(client, "who")["pid"], signal.SIGKILL)

    assert code_of(client, "echo") == "engine-died"
    assert ask(client, "echo", number=3) == {"number": 3}


def test_an_interrupt_ends_the_request_and_the_compilers_with_it(client: Client):
    children: list[int] = []

    def tell(text: str) -> None:
        children.append(os.pidfd_open(int(text)))

    with pytest.raises(IpbpError) as caught:
        client.request("hang", {}, refuse_questions, tell, lambda: bool(children))

    assert caught.value.code == "interrupted"
    ended, _, _ = select.select(children, [], [], 10)
    assert ended == children
    os.close(children[0])
    assert ask(client, "echo", number=4) == {"number": 4}


def test_a_keyboard_interrupt_does_the_same(client: Client):
    def tell(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(IpbpError) as caught:
        client.request("hang", {}, refuse_questions, tell)

    assert caught.value.code == "interrupted"
    assert ask(client, "echo", number=5) == {"number": 5}


def test_a_bug_in_the_plugin_does_not_leave_half_a_conversation(client: Client):
    def serve(question: str, params: dict) -> dict:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.request("read", {}, serve)

    assert ask(client, "echo", number=6) == {"number": 6}


def test_the_engine_has_a_session_of_its_own_and_no_python_settings(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("CCACHE_DIR", "/cache")

    found = ask(client, "who")

    assert found["session"] == found["pid"] != os.getsid(0)
    assert not {"PYTHONPATH", "LD_PRELOAD"} & set(found["environment"])
    assert found["environment"]["CCACHE_DIR"] == "/cache"
    assert found["flags"] == [1, 1]


def test_another_version_is_said_so(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECHO_PROTOCOL", "999")

    assert code_of(client, "echo") == "engine-version"


def test_a_python_that_is_none_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert code_of(Client(str(tmp_path / "nothing")), "echo") == "engine-start"


def test_closing_ends_the_engine(client: Client):
    engine = os.pidfd_open(ask(client, "who")["pid"])

    client.close()

    ended, _, _ = select.select([engine], [], [], 10)
    os.close(engine)
    assert ended == [engine]


def test_the_log_is_kept_short(client: Client, tmp_path: Path):
    for _ in range(5):
        ask(client, "noise", bytes=700_000)

    assert (tmp_path / "ipbp" / "engine.log").stat().st_size <= 2_100_000


def test_the_real_engine_says_hello(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    client = Client(sys.executable)
    try:
        assert ask(client, "hello")["protocol"] == PROTOCOL_VERSION
    finally:
        client.close()
    assert json.dumps(os.listdir(tmp_path / "ipbp")) == '["engine.log"]'
