"""gdb's own debug adapter (`gdb -i dap`, gdb 14 and newer), driven as an editor does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dap import Adapter
from ticker import Ticker, build_ticker

from ipbp.cli.path import load_line

pytestmark = [pytest.mark.live, pytest.mark.slow]

FIRST_WITH_ADAPTER = 14


@pytest.fixture
def ticker(tmp_path: Path) -> Ticker:
    return build_ticker(tmp_path / "ticker")


@pytest.fixture
def adapter(gdb: str, ticker: Ticker) -> Iterator[Adapter]:
    """Stopped in the first line of `main`."""
    said = subprocess.run([gdb, "--version"], capture_output=True, text=True, check=True).stdout
    version = int(re.findall(r"(\d+)\.\d+", said)[0])
    if version < FIRST_WITH_ADAPTER:
        pytest.skip(f"needs gdb {FIRST_WITH_ADAPTER} or newer, this is {version}: name one in IPBP_GDB")
    with Adapter([gdb, "-nx", "-q", "-i", "dap", "-ex", load_line("gdb")]) as adapter:
        adapter.ask("initialize", adapterID="gdb", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
        arguments = "out < /dev/zero > /dev/null"  # it would take what the client sends
        launched = adapter.send("launch", program=str(ticker.program), args=arguments, cwd=str(ticker.folder))
        adapter.wait_for_event("initialized")
        set_breakpoints(adapter, ticker, "int file = open")
        adapter.ask("configurationDone")
        adapter.response(launched)
        adapter.wait_for_event("stopped")
        yield adapter
        adapter.ask("disconnect", terminateDebuggee=True)


def set_breakpoints(adapter: Adapter, ticker: Ticker, *texts: str) -> None:
    rows = [{"line": ticker.line_of(text)} for text in texts]
    adapter.ask("setBreakpoints", source={"path": str(ticker.source)}, breakpoints=rows)


def hotpatch(adapter: Adapter, words: str) -> str:
    """Typed in the debug console."""
    return str(adapter.ask("evaluate", expression=f"hotpatch {words}", context="repl")["result"])


def moves(adapter: Adapter) -> list[str]:
    return [name for name in adapter.names() if name in ("stopped", "continued")]


def stops(adapter: Adapter, since: int) -> list[dict[str, Any]]:
    return [row for row in adapter.events[since:] if row["event"] == "stopped"]


def resume(adapter: Adapter) -> None:
    adapter.ask("continue", threadId=adapter.ask("threads")["threads"][0]["id"])


def test_gdbs_adapter_shows_the_program_as_it_is_now(adapter: Adapter, ticker: Ticker) -> None:
    ticker.save(1)
    seen = len(adapter.events)
    assert "patched 1 function" in hotpatch(adapter, "apply")
    assert not {"continued", "stopped"} & set(adapter.names(seen))
    # gdb evaluates nothing while the program runs (it says "notStopped"); a save is a patch all the same.
    assert "a save is a patch" in hotpatch(adapter, "watch on")
    resume(adapter)
    ticker.wait_for(1)
    for number in (2, 3):
        ticker.save(number)
        ticker.wait_for(number)
        # The client is told of the stop, and that it is over.
        adapter.wait_until(lambda: moves(adapter)[-1] == "continued")
    seen = len(adapter.events)
    set_breakpoints(adapter, ticker, "long value(long ticks)")
    adapter.wait_until(lambda: any(row["body"].get("reason") == "breakpoint" for row in stops(adapter, seen)))
    stopped = stops(adapter, seen)[-1]["body"]
    frames = adapter.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"]
    assert [row["name"] for row in frames[:2]] == ["value", "tick"]
    assert frames[0]["source"]["path"] == str(ticker.source)
    set_breakpoints(adapter, ticker)
    assert "undone patch 3" in hotpatch(adapter, "undo")
    resume(adapter)
    ticker.wait_for(2)
