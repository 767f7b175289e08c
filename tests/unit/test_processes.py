"""Which processes a command is about is asked of the kernel, and what becomes of each decides the exit status."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipbp.build.once import once, one_build
from ipbp.cli import attach, main
from ipbp.cli.outcome import Outcome
from ipbp.cli.processes import chosen, process_ids, users_of, with_descendants
from ipbp.errors import IpbpError, Refusal, Refused

FAMILY = "import os, sys; os.fork() or os.fork(); os.write(1, b'%d\\n' % os.getpid()); sys.stdin.read()"
MIXED = """
import os, sys
if os.fork() == 0:
    os.write(1, b"%d\\n" % os.getpid())
    os.execl({sleep!r}, "sleep", "60")
os.write(1, b"%d\\n" % os.getpid())
sys.stdin.read()
"""


def words(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"pid": None, "exe": None, "children": False, **given})


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that nobody else runs: it waits for its input's end."""
    return Path(shutil.copy(shutil.which("cat") or "", tmp_path / "waiting"))


def test_numbers_come_as_pgrep_and_pidof_print_them() -> None:
    assert process_ids("1,2,3") == process_ids("1 2 3") == [1, 2, 3]
    for wrong in ("", "0", "1,-2", "x"):
        with pytest.raises(ValueError, match=r".*"):
            process_ids(wrong)


def test_a_process_that_was_named_twice_is_one() -> None:
    found = chosen(words(pid=[7, 8, 7]))
    assert found.pids == (7, 8)
    assert found.notes == ("process 7 was named more than once",)


def test_children_and_theirs_come_after_their_parents() -> None:
    with running(sys.executable, "-c", FAMILY) as process:
        family = lines(process, 3)
        found = with_descendants([process.pid])
        assert found[0] == process.pid
        assert sorted(found) == sorted(family)


def test_a_child_that_runs_another_program_is_left_out(tmp_path: Path) -> None:
    sleep = shutil.copy(shutil.which("sleep") or "", tmp_path / "sleep")
    with running(sys.executable, "-c", MIXED.format(sleep=str(sleep))) as process:
        child, _ = sorted(lines(process, 2), key=lambda pid: pid == process.pid)
        while not users_of(Path(sleep)):
            assert process.poll() is None
        assert with_descendants([process.pid]) == (process.pid,)
        os.kill(child, 9)


def test_who_runs_a_program_is_found_also_when_its_file_was_replaced(program: Path) -> None:
    with running(program) as old:
        assert users_of(program) == (old.pid,)
        program.unlink()
        shutil.copy(shutil.which("cat") or "", program)
        with running(program) as new:
            assert set(users_of(program)) == {old.pid, new.pid}
            assert chosen(words(exe=program)).pids == users_of(program)


def test_a_program_that_nobody_runs_is_no_error_and_one_that_is_not_there_is(program: Path) -> None:
    assert chosen(words(exe=program)).pids == ()
    with pytest.raises(IpbpError) as error:
        chosen(words(exe=program.with_name("missing")))
    assert error.value.code == "usage"


def test_within_one_build_everything_is_made_once() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [once("key", make), once("key", make)] == [0, 1]
    with one_build():
        assert [once("key", make), once("key", make), once("other", make)] == [2, 2, 3]
        with one_build():
            assert once("key", make) == 2
    assert once("key", make) == 4


PATCHED: Outcome = {"outcome": "patched", "functions": [], "times": {}}
UNCHANGED: Outcome = {"outcome": "unchanged", "times": {}}
REFUSED = Refused([Refusal("code", "it cannot be", "Do something else.")])
FAILED = IpbpError("code", "it went wrong", "Try again.")


@pytest.mark.parametrize(
    ("outcomes", "status", "word"),
    [
        ([PATCHED, PATCHED], 0, "patched"),
        ([PATCHED, UNCHANGED], 0, "patched"),
        ([UNCHANGED, UNCHANGED], 0, "unchanged"),
        ([REFUSED, REFUSED], 3, "refused"),
        ([FAILED, REFUSED], 1, "error"),
        ([FAILED, FAILED], 1, "error"),
        ([PATCHED, REFUSED], 5, "partly"),
        ([UNCHANGED, FAILED], 5, "partly"),
        ([PATCHED, KeyboardInterrupt(), PATCHED], 5, "partly"),
        ([KeyboardInterrupt(), PATCHED], 1, "error"),
    ],
)
def test_the_exit_status_says_what_became_of_all(
    outcomes: list[Outcome | BaseException],
    status: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    coming = iter(outcomes)

    def act(*_: object) -> Outcome:
        outcome = next(coming)
        if isinstance(outcome, KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(attach, "undo", act)
    pids = ",".join(str(pid) for pid in range(1, 1 + len(outcomes)))
    assert main.main(["undo", "--json", "--pid", pids]) == status
    *rows, total = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (total["outcome"], total["status"]) == (word, status)
    assert [row["pid"] for row in rows] == list(range(1, 1 + len(outcomes)))
    if KeyboardInterrupt in map(type, outcomes):
        assert rows[-1]["error"]["fact"] == "interrupted before this process was reached"


def test_for_people_each_process_has_its_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attach, "status", lambda _, pid: {"outcome": "ok", "text": "one\ntwo"})
    assert main.main(["status", "--pid", "1,2"]) == 0
    assert capsys.readouterr().out == ("process 1: one\n  two\nprocess 2: one\n  two\n2 processes: 2 looked at\n")
