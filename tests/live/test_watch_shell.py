"""`ipbp run --watch` and `ipbp attach --watch`: saves are patches, with no debugger to type to."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal
from ticker import WAYS, Ticker, build_ticker, wait_until

from ipbp.host.tasks import has_ended

pytestmark = pytest.mark.live

IPBP = (sys.executable, "-m", "ipbp.cli.main")


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["c", "c++", "rust"])
def ticker(tmp_path: Path, request: pytest.FixtureRequest) -> Ticker:
    return build_ticker(tmp_path / "ticker", request.param)


def test_a_program_in_the_terminal_is_patched_by_saves(ticker: Ticker, debugger: str) -> None:
    words = [*IPBP, "run", "--watch", "--debugger", debugger, "--", ticker.program, "out"]
    with Terminal(words, ticker.folder) as terminal:
        terminal.wait_for(r"\d+ files of process .* are watched")
        for number in range(1, 5):
            ticker.save(number, WAYS[number % len(WAYS)])
            ticker.wait_for(number)
            terminal.wait_for("patched 1 function")
            terminal.type(f"word {number}")
            terminal.wait_for(f"heard word {number}")
        ticker.save_wrong()
        terminal.wait_for("does not compile")
        terminal.press_ctrl_c()
        assert terminal.wait_for_end() == 128 + signal.SIGINT, terminal.screen


COMPILER = """#!/bin/sh
while [ -e hold ]; do
    : >held
    sleep 0.02
done
exec g++ "$@"
"""


@pytest.mark.parametrize("ticker", ["c++"], indirect=True)
def test_a_program_that_ends_while_a_save_is_compiled_is_no_failure(ticker: Ticker, debugger: str) -> None:
    compiler, hold, held = (ticker.folder / name for name in ("compiler", "hold", "held"))
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    commands = ticker.folder / "compile_commands.json"
    commands.write_text(commands.read_text().replace('"g++"', f'"{compiler}"'))
    words = [*IPBP, "run", "--watch", "--yes", "--debugger", debugger, "--", ticker.program, "out"]
    with Terminal(words, ticker.folder) as terminal:
        shown = terminal.wait_for(r"\d+ files of process \d+ are watched")
        pid = int(shown.split()[-3])
        ticker.save(1)
        ticker.wait_for(1)
        terminal.wait_for("patched 1 function")
        hold.touch()
        ticker.save(2)
        wait_until(held.exists, lambda: terminal.screen)
        terminal.press_ctrl_c()
        wait_until(lambda: has_ended(pid), lambda: terminal.screen)
        hold.unlink()
        assert terminal.wait_for_end() == 128 + signal.SIGINT, terminal.screen
    assert len(re.findall("^ipbp: ", terminal.screen, re.MULTILINE)) == 2, terminal.screen


def test_its_exit_status_is_the_programs(ticker: Ticker, debugger: str) -> None:
    words = [*IPBP, "run", "--watch", "--debugger", debugger, "--", ticker.program, "out"]
    done = subprocess.run(words, cwd=ticker.folder, input=b"hello\n", capture_output=True, timeout=60, check=False)
    assert done.returncode == 7, done
    assert done.stdout == b"ticking\nheard hello\n"


def test_a_running_program_is_watched_until_ctrl_c_and_then_left_alone(ticker: Ticker, debugger: str) -> None:
    program = subprocess.Popen([ticker.program, "out"], cwd=ticker.folder, stdin=subprocess.PIPE)
    words = [*IPBP, "attach", "--watch", "--debugger", debugger, str(program.pid)]
    try:
        with Terminal(words, ticker.folder) as terminal:
            terminal.wait_for(r"\d+ files of process .* are watched")
            for number in (1, 2):
                ticker.save(number)
                ticker.wait_for(number)
                terminal.wait_for("patched 1 function")
            terminal.press_ctrl_c()
            assert terminal.wait_for_end() == 0, terminal.screen
        wait_until(lambda: "TracerPid:\t0\n" in Path(f"/proc/{program.pid}/status").read_text(), lambda: "traced")
        assert ticker.is_ticking()
        assert program.poll() is None
    finally:
        program.kill()
        program.communicate()
