"""Watch mode as a person meets it: a debugger in a terminal, the program in its foreground, an editor that saves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ticker import WAYS, Ticker, Typed, build_ticker, typed_to, wait_until

from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

DEBUGGERS = ("gdb", "lldb")


@pytest.fixture(params=DEBUGGERS)
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(debugger: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(debugger))


@pytest.fixture(params=["c", "c++", "rust"])
def ticker(tmp_path: Path, request: pytest.FixtureRequest) -> Ticker:
    return build_ticker(tmp_path / "ticker", request.param)


@pytest.fixture
def typed(debugger: str, path: str, ticker: Ticker) -> Iterator[Typed]:
    """The program in the foreground, watched."""
    with typed_to(debugger, path, ticker) as typed:
        assert "a save is a patch" in typed.tell("hotpatch watch on")
        typed.go("run")
        typed.terminal.wait_for("ticking")
        yield typed


def test_saves_are_patches_while_the_program_has_the_terminal(typed: Typed, ticker: Ticker) -> None:
    for number in range(1, 13):
        ticker.save(number, WAYS[number % len(WAYS)])
        ticker.wait_for(number)
        typed.terminal.wait_for(r"patched 1 function in .*value.*   \(compile .*stopped .* ms\)")
        assert typed.hears(f"word {number}")
    assert ticker.is_ticking()
    shown = typed.interrupt()
    assert "ticker" in shown
    assert "12 patches so far" in typed.tell("hotpatch watch")
    assert "not watched any more" in typed.tell("hotpatch watch off")
    ticker.save(99)
    typed.tell("set pagination off")  # which lldb does not know
    assert "would patch 1 function" in typed.tell("hotpatch preview")
    typed.go("continue")
    assert typed.hears("still here")
    assert ticker.shown()[0] == 12
    typed.interrupt()
    typed.go("kill")
    typed.go("quit")
    assert typed.terminal.wait_for_end() == 0
    screen = typed.terminal.screen
    assert screen.count("patched 1 function") == 12, screen
    assert "SIGWINCH" not in screen
    assert "StopHook" not in screen
    assert "Traceback" not in screen


def test_what_does_not_compile_is_said_and_the_next_save_counts(typed: Typed, ticker: Ticker) -> None:
    good = ticker.text(1)
    ticker.save_wrong()
    shown = typed.terminal.wait_for(r"\[compile-failed\][\s\S]*Correct the source")
    assert "tocks" in shown
    assert ticker.shown()[0] == 0
    ticker.source.write_text(good)
    ticker.wait_for(1)
    ticker.save_part(200)
    wait_until(lambda: ticker.shown()[1] == 200, lambda: str(ticker.shown()))
    ticker.source.write_text(good + ticker.unused)
    assert typed.hears("and it goes on")


def test_saves_in_a_burst_are_one_patch(typed: Typed, ticker: Ticker) -> None:
    for number in range(5):
        ticker.save(number + 1, WAYS[number % len(WAYS)])
    ticker.save_part(300)
    wait_until(lambda: ticker.shown()[:2] == (5, 300), lambda: str(ticker.shown()))
    ticker.save(6)
    ticker.wait_for(6)
    typed.terminal.wait_for("patched 1 function ")
    assert len(re.findall("patched", typed.terminal.screen)) == 2, typed.terminal.screen


def test_a_command_that_waits_for_the_end_of_a_function_is_not_lost(typed: Typed, ticker: Ticker) -> None:
    typed.interrupt()
    typed.tell("break slow")
    typed.go("continue")
    typed.terminal.type("slow")
    typed.terminal.wait_for(rf"slow.*{ticker.source.name}:\d+")
    typed.terminal.wait_for(r"db\) $")
    typed.go("finish")
    ticker.save(7)
    typed.terminal.wait_for("slow is over")
    typed.terminal.wait_for(r"main[\s\S]*db\) $")
    typed.go("continue")
    ticker.wait_for(7)
    assert typed.hears("afterwards")


def test_a_save_at_the_prompt_is_in_force_when_the_program_goes_on(typed: Typed, ticker: Ticker, debugger: str) -> None:
    typed.interrupt()
    ticker.save(3)
    if debugger == "gdb":  # lldb must not be told of it while the user may tell it something
        assert "patched 1 function" in typed.terminal.wait_for(r"stopped.*\)\n\(gdb\) $|patched.*\n\(gdb\) $")
    typed.go("continue")
    ticker.wait_for(3)
    assert typed.hears("and it goes on")


@pytest.fixture
def running(ticker: Ticker) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [ticker.program, "out"], cwd=ticker.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ticking\n"
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


@pytest.mark.parametrize(
    ("ticker", "end"), [("c", "detach"), ("c", "quit"), ("c++", "detach"), ("rust", "detach")], indirect=["ticker"]
)
def test_an_attached_program_is_watched_and_left_in_peace(
    debugger: str, path: str, ticker: Ticker, running: subprocess.Popen[bytes], end: str
) -> None:
    with typed_to(debugger, path, ticker) as typed:
        typed.go(f"{'attach' if debugger == 'gdb' else 'process attach -p'} {running.pid}")
        typed.terminal.wait_for(r"db\) $")
        assert "files of the program are watched" in typed.tell("hotpatch watch on")
        typed.go("continue")
        for number in (1, 2, 3):
            ticker.save(number)
            ticker.wait_for(number)
            typed.terminal.wait_for("patched 1 function")
        typed.interrupt("" if debugger == "gdb" else r"\n")  # lldb shows no prompt after what it was not asked for
        typed.go(end)
        if end == "quit":
            assert typed.terminal.wait_for_end() == 0
        wait_until(lambda: "TracerPid:\t0\n" in Path(f"/proc/{running.pid}/status").read_text(), lambda: "traced")
        assert ticker.is_ticking()
        assert ticker.shown()[0] == 3


def test_gdb_ends_well_with_something_posted_that_it_has_not_come_to(gdb: str) -> None:
    post = "python from gdb_ipbp.posts import Posts; Posts.follow(); Posts.post(lambda: None); print('posted')"
    words = [gdb, "-nx", "-batch", "-ex", load_line("gdb"), "-ex", post, "-ex", "quit 3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "posted\n"
    assert done.returncode == 3, "a crash would be a negative one"


@pytest.mark.slow
def test_stops_of_the_programs_own_and_patches_come_together(typed: Typed, ticker: Ticker) -> None:
    """Now the stop is first, now the patch, now the symbols of the patch are still to come."""
    typed.interrupt()
    typed.tell("break slow")
    typed.go("continue")
    for number in range(1, 16):
        typed.terminal.type("slow")
        typed.terminal.wait_for(rf"slow.*{ticker.source.name}:\d+")
        typed.terminal.wait_for(r"db\) $")
        typed.go("finish")
        ticker.save(number)
        typed.terminal.wait_for("slow is over")
        typed.terminal.wait_for(r"main[\s\S]*db\) $")
        typed.go("continue")
        if number % 2:  # else the patch may come at the next stop
            ticker.wait_for(number)
        assert typed.hears(f"afterwards {number}")
    ticker.wait_for(15)
    assert "StopHook" not in typed.terminal.screen


@pytest.mark.slow
def test_two_hundred_saves_under_load(typed: Typed, ticker: Ticker) -> None:
    """Every save gets there, the terminal is the program's all the time, Ctrl-C stops it, and it goes on afterwards."""
    with busy_processors():
        for number in range(1, 201):
            ticker.save(number, WAYS[number % len(WAYS)])
            ticker.wait_for(number)
            typed.terminal.wait_for("patched 1 function")
            if number % 10 == 0:
                assert typed.hears(f"word {number}")
            if number % 50 == 0:
                typed.interrupt()
                typed.go("continue")
    assert ticker.is_ticking()
    typed.interrupt()
    assert "200 patches so far" in typed.tell("hotpatch watch")
    typed.tell("set pagination off")
    assert "patch 200" in typed.tell("hotpatch status")
    assert "Traceback" not in typed.terminal.screen


@contextmanager
def busy_processors() -> Iterator[None]:
    """As many programs that only compute as there are processors."""
    spin = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()
