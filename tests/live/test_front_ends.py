"""Editors drive debuggers by protocols: what they see of the program stays right when it is patched, stopped or not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dap import Adapter
from debuggers import Gdb
from ticker import OPENED, VALUE, Ticker, build_ticker

from ipbp.cli.path import load_line

pytestmark = pytest.mark.live


@pytest.fixture
def ticker(tmp_path: Path, request: pytest.FixtureRequest) -> Ticker:
    """In C if the test names no language."""
    return build_ticker(tmp_path / "ticker", getattr(request, "param", "c"))


IN_EACH_LANGUAGE = pytest.mark.parametrize("ticker", ["c", "c++", "rust"], indirect=True)
MOSTLY_IN_C = pytest.mark.parametrize(
    "ticker", ["c", *(pytest.param(name, marks=pytest.mark.slow) for name in ("c++", "rust"))], indirect=True
)


def is_function(shown: str, name: str) -> bool:
    """Whether a frame's name is that of this function, with its namespaces and arguments as the language has them."""
    return re.fullmatch(rf"(.*::)?{name}(\(.*\)|::h[0-9a-f]+)?( const)?", shown) is not None


# --- lldb-dap, as VS Code, Neovim, Emacs and Zed start it ------------------------------------------------------------


@pytest.fixture
def lldb_dap(lldb: str) -> str:
    beside = Path(os.path.realpath(lldb)).with_name("lldb-dap")
    path = str(beside) if beside.exists() else shutil.which("lldb-dap")
    assert path, "lldb-dap comes with lldb; run scripts/setup"
    return path


@pytest.fixture
def adapter(lldb_dap: str, ticker: Ticker) -> Iterator[Adapter]:
    """Stopped at the beginning of `main`."""
    with Adapter([lldb_dap]) as adapter:
        adapter.ask("initialize", adapterID="lldb-dap", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
        launched = adapter.send(
            "launch",
            program=str(ticker.program),
            args=["out"],
            cwd=str(ticker.folder),
            initCommands=[load_line("lldb")],
        )
        adapter.wait_for_event("initialized")
        set_breakpoints(adapter, ticker, OPENED)
        adapter.ask("configurationDone")
        adapter.response(launched)
        adapter.wait_for_event("stopped")
        yield adapter
        adapter.ask("disconnect", terminateDebuggee=True)


def set_breakpoints(adapter: Adapter, ticker: Ticker, *texts: str) -> list[dict[str, Any]]:
    lines = [{"line": ticker.line_of(text)} for text in texts]
    found = adapter.ask("setBreakpoints", source={"path": str(ticker.source)}, breakpoints=lines)["breakpoints"]
    assert all(row["verified"] for row in found), found
    return found


def hotpatch(adapter: Adapter, words: str) -> str:
    """Typed in the debug console."""
    return str(adapter.ask("evaluate", expression=f"`hotpatch {words}", context="repl")["result"])


def resume(adapter: Adapter) -> None:
    thread = adapter.ask("threads")["threads"][0]["id"]
    adapter.ask("continue", threadId=thread)


def patch_modules(adapter: Adapter) -> list[str]:
    return [row["name"] for row in adapter.ask("modules")["modules"] if row["name"].startswith("patch-")]


@IN_EACH_LANGUAGE
def test_an_adapter_shows_the_program_as_it_is_now(adapter: Adapter, ticker: Ticker) -> None:
    # While it is stopped: it stays so.
    ticker.save(1)
    seen = len(adapter.events)
    assert "patched 1 function" in hotpatch(adapter, "apply")
    assert len(adapter.ask("threads")["threads"]) == 1
    assert patch_modules(adapter) == ["patch-1.elf"]
    assert not {"continued", "stopped"} & set(adapter.names(seen))
    resume(adapter)
    ticker.wait_for(1)
    # While it runs: it goes on, and a stop of it that nobody asked for is not seen.
    seen = len(adapter.events)
    ticker.save(2)
    assert "patched 1 function" in hotpatch(adapter, "apply")
    ticker.wait_for(2)
    assert "stopped" not in adapter.names(seen)
    # A breakpoint in the new code is hit there, and what is on the stack is told by the source as it is.
    seen = len(adapter.events)
    set_breakpoints(adapter, ticker, VALUE)
    # A thread may show lldb's own interrupt, when others are at the first place while lldb comes to the second, or the
    # trap itself, which lldb notes after it has set it.
    stopped = adapter.wait_for_event("stopped", seen)
    while stopped["reason"] != "breakpoint":
        adapter.ask("threads")
        rows = [row["body"] for row in adapter.events[seen:] if row["event"] == "stopped"]
        at_breakpoint = [row for row in rows if row["reason"] == "breakpoint"]
        if not at_breakpoint and "SIGTRAP" in stopped["description"]:
            seen = len(adapter.events)
            resume(adapter)
        else:
            seen += 1
        stopped = at_breakpoint[0] if at_breakpoint else adapter.wait_for_event("stopped", seen)
    frames = adapter.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"]
    assert is_function(frames[0]["name"], "value"), frames
    assert is_function(frames[1]["name"], "tick"), frames
    assert frames[0]["source"]["path"] == str(ticker.source)
    assert len(adapter.ask("threads")["threads"]) == 4
    set_breakpoints(adapter, ticker)
    assert "undone patch 2" in hotpatch(adapter, "undo")
    # The thread that has stopped may still be in what was undone, which is then known until it has left.
    assert "patch-1.elf" in patch_modules(adapter)
    resume(adapter)
    ticker.wait_for(1)


# (In C++ lldb-dap 19 has the program called at each request of a stack, at which lldb looks for sources anew.)
@pytest.mark.parametrize("ticker", ["c", pytest.param("rust", marks=pytest.mark.slow)], indirect=True)
def test_an_adapter_opens_old_code_as_it_was(adapter: Adapter, ticker: Ticker) -> None:
    commit = ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "as built")
    for words in (("init", "-q"), ("add", str(ticker.source)), commit):
        subprocess.run(["git", *words], cwd=ticker.folder, check=True)
    was_built = ticker.source.read_text()
    line = was_built.splitlines(keepends=True)[ticker.line_of(OPENED) - 1]
    assert was_built.count(line) == 1
    more = "assert!(std::hint::black_box(true));" if ticker.language == "rust" else "volatile int more = 1;"
    ticker.source.write_text(was_built.replace(line, f"    {more}\n\n{line}"))
    assert "patched " in hotpatch(adapter, "apply")
    thread = adapter.ask("threads")["threads"][0]["id"]
    frame = adapter.ask("stackTrace", threadId=thread)["stackFrames"][0]
    shown = Path(frame["source"]["path"])
    assert is_function(frame["name"], "main"), frame
    assert shown.name == f"[old code, before patch 1 (as git has it)] {ticker.source.name}"
    assert shown.read_text() == was_built
    assert was_built.splitlines(keepends=True)[frame["line"] - 1] == line


@MOSTLY_IN_C
def test_saves_are_patches_under_an_adapter(adapter: Adapter, ticker: Ticker) -> None:
    plain = adapter.ask("evaluate", expression="hotpatch watch on", context="repl")  # without the backtick
    assert "a save is a patch" in plain["result"]
    seen = len(adapter.events)
    resume(adapter)
    for number in range(1, 6):
        ticker.save(number)
        ticker.wait_for(number)
        adapter.wait_until(lambda count=number: adapter.output(seen).count("patched 1 function") == count)
    assert "stopped" not in adapter.names(seen)
    assert "5 patches so far" in hotpatch(adapter, "watch")
    assert "not watched" in hotpatch(adapter, "watch off")


# --- gdb's machine interface, as cpptools and Emacs use it -----------------------------------------------------------


@pytest.fixture
def arguments(ticker: Ticker) -> Iterator[str]:
    """Of the program, as the shell takes them: nobody tells it anything, and it would take what is meant for gdb."""
    os.mkfifo(ticker.folder / "in")
    told = os.open(ticker.folder / "in", os.O_RDWR)  # so that nobody waits for the other end
    yield "out < in > /dev/null"
    os.close(told)


@pytest.fixture
def machine(gdb: str, ticker: Ticker, arguments: str) -> Iterator[Gdb]:
    """The plugin is loaded by what cpptools calls setupCommands; then the program runs."""
    with Gdb(gdb) as machine:
        mi(machine, f"-environment-cd {ticker.folder}")
        mi(machine, f"-file-exec-and-symbols {ticker.program}")
        machine.tell(load_line("gdb"))
        mi(machine, f"-exec-arguments {arguments}")
        mi(machine, f"-break-insert {ticker.scope}main")
        mi(machine, "-exec-run")
        machine.wait_until(lambda: machine.stopped)
        yield machine


def mi(machine: Gdb, line: str) -> dict[str, Any]:
    """What one command of the machine interface answers."""
    machine.records = []
    machine._send(f"77{line}")
    machine.wait_until(lambda: any(row.get("token") == 77 for row in machine.records))
    row = next(row for row in machine.records if row.get("token") == 77)
    assert row["message"] != "error", row
    return row["payload"] or {}


@MOSTLY_IN_C
def test_the_machine_interface_shows_the_program_as_it_is_now(machine: Gdb, ticker: Ticker) -> None:
    before = mi(machine, "-break-list")["BreakpointTable"]["body"]
    ticker.save(1)
    assert "patched 1 function" in machine.tell("hotpatch")
    assert machine.stopped
    assert is_function(mi(machine, "-stack-list-frames")["stack"][0]["func"], "main")
    assert "a save is a patch" in machine.tell("hotpatch watch on")
    mi(machine, "-exec-continue")
    ticker.wait_for(1)
    for number in range(2, 6):
        save_and_wait(machine, ticker, number)
        ticker.wait_for(number)
        assert "stopped" not in told_of(machine)
        assert {row["state"] for row in mi(machine, "-thread-info")["threads"]} == {"running"}
    ticker.save(6)
    machine.tell("hotpatch")  # typed while it runs; or watch mode was faster
    ticker.wait_for(6)
    mi(machine, "-exec-interrupt")
    machine.wait_until(lambda: machine.stopped)
    after = mi(machine, "-break-list")["BreakpointTable"]["body"]
    assert [row["number"] for row in after] == [row["number"] for row in before]
    mi(machine, f"-break-insert {ticker.source.name}:{ticker.line_of(VALUE)}")
    mi(machine, "-exec-continue")
    machine.wait_until(lambda: machine.stopped)
    frame = mi(machine, "-stack-list-frames")["stack"][0]
    assert is_function(frame["func"], "value"), frame
    assert frame["fullname"] == str(ticker.source)
    machine.tell("delete")  # other threads would come to it
    mi(machine, "-exec-finish")
    machine.wait_until(lambda: machine.stopped)
    assert is_function(mi(machine, "-stack-list-frames")["stack"][0]["func"], "tick")


def told_of(machine: Gdb) -> list[str]:
    """Stops and resumptions of the program that gdb has told of since the last command."""
    return [row["message"] for row in machine.records if row["type"] == "notify" and row["message"] in GOING]


GOING = ("stopped", "running")


@pytest.fixture
def cpptools(gdb: str, ticker: Ticker, arguments: str) -> Iterator[Gdb]:
    """Stopped in `main`. What is sent up to there is what MIEngine sends, by which cpptools drives gdb, in its order
    (DebuggedProcess.Initialize)."""
    with Gdb(gdb) as machine:
        for line in (
            "-gdb-set mi-async on",
            f'-interpreter-exec console "{load_line("gdb")}"',
            '-interpreter-exec console "hotpatch watch on"',
            '-interpreter-exec console "set pagination off"',
            f"-environment-cd {ticker.folder}",
            f"-file-exec-and-symbols {ticker.program}",
            '-interpreter-exec console "show architecture"',
            f"-exec-arguments {arguments}",
            f"-break-insert {ticker.scope}main",
            "-exec-run",
        ):
            mi(machine, line)
        assert reason_of_stop(machine) == "breakpoint-hit"
        mi(machine, "-break-delete 1")
        yield machine


def reason_of_stop(machine: Gdb) -> str:
    machine.wait_until(lambda: "stopped" in told_of(machine))
    (row,) = (row for row in machine.records if row["message"] == "stopped")
    assert row["payload"]["stopped-threads"] == "all"
    return str(row["payload"]["reason"])


def frames_of(machine: Gdb) -> list[dict[str, Any]]:
    """As MIEngine asks for them when it is told of a stop."""
    threads = mi(machine, "-thread-info")
    assert {row["state"] for row in threads["threads"]} == {"stopped"}
    mi(machine, f"-thread-select {threads['current-thread-id']}")
    frames = mi(machine, "-stack-list-frames 0 1000")["stack"]
    assert len(mi(machine, "-stack-list-arguments 0 0 1000")["stack-args"]) == len(frames)
    return list(frames)


@IN_EACH_LANGUAGE
def test_cpptools_is_told_of_its_own_stops_only(cpptools: Gdb, ticker: Ticker) -> None:
    where = frames_of(cpptools)[0]
    assert is_function(where["func"], "main")
    name, value = ("ticker::COUNT.v.value", "0") if ticker.language == "rust" else ("count", "2")
    variable = mi(cpptools, f'-var-create - * "{name}"')["name"]
    # A save while it is stopped, and what `-exec hotpatch` in the debug console sends.
    save_and_wait(cpptools, ticker, 1)
    assert told_of(cpptools) == []
    mi(cpptools, '-interpreter-exec console "hotpatch"')
    assert told_of(cpptools) == []
    assert frames_of(cpptools)[0] == where
    assert mi(cpptools, f"-var-evaluate-expression {variable}")["value"] == value
    mi(cpptools, "-exec-continue")
    ticker.wait_for(1)
    for number in (2, 3):
        save_and_wait(cpptools, ticker, number)
        ticker.wait_for(number)
        assert "stopped" not in told_of(cpptools)
    # A breakpoint that is set while it runs: a signal, the command, and on (AddInternalBreakAction, CmdBreakUnix).
    interrupt(cpptools)
    mi(cpptools, f"-break-insert -f {ticker.source}:{ticker.line_of(VALUE)}")
    mi(cpptools, "-exec-continue")
    assert reason_of_stop(cpptools) == "breakpoint-hit"
    frame = frames_of(cpptools)[0]
    assert is_function(frame["func"], "value"), frame
    assert frame["fullname"] == str(ticker.source)
    # It is rebound by the records of its changes, in the new code and when that is taken back.
    save_and_wait(cpptools, ticker, 4)
    assert told_of(cpptools) == []
    assert any(row["message"] == "breakpoint-modified" for row in cpptools.records)
    mi(cpptools, "-exec-continue")
    assert reason_of_stop(cpptools) == "breakpoint-hit"
    mi(cpptools, '-interpreter-exec console "hotpatch watch off"')
    mi(cpptools, '-interpreter-exec console "hotpatch undo"')
    assert told_of(cpptools) == []
    (point,) = mi(cpptools, "-break-list")["BreakpointTable"]["body"]
    mi(cpptools, f"-break-delete {point['number']}")
    mi(cpptools, "-exec-finish")
    assert reason_of_stop(cpptools) == "function-finished"
    mi(cpptools, "-exec-next")
    assert reason_of_stop(cpptools) == "end-stepping-range"
    assert is_function(frames_of(cpptools)[0]["func"], "tick")
    mi(cpptools, "-exec-continue")
    ticker.wait_for(3)


def test_a_front_end_is_told_where_the_line_of_old_code_is_now(machine: Gdb, ticker: Ticker) -> None:
    was_built = ticker.source.read_text()
    commit = ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "as built")
    for words in (("init", "-q"), ("add", str(ticker.source)), commit):
        subprocess.run(["git", *words], cwd=ticker.folder, check=True)
    ticker.source.write_text(f"/* one */\n/* two */\n{was_built}")
    ticker.save(1)
    assert "patched 1 function" in machine.tell("hotpatch")
    machine.tell("break usleep")
    mi(machine, "-exec-continue")
    machine.wait_until(lambda: "stopped" in told_of(machine))
    machine.tell("delete")
    machine.text = ""
    mi(machine, "-exec-finish")
    machine.wait_until(lambda: machine.stopped)
    place = mi(machine, "-stack-list-frames")["stack"][0]
    assert place["func"] == "tick"
    line = int(place["line"])
    assert was_built.splitlines()[line - 1].startswith("    for (")
    said = f"as it was before patch 1 (as git has it): line {line} of it is line {line + 2} now]"
    machine.wait_until(lambda: said in machine.text)


def save_and_wait(machine: Gdb, ticker: Ticker, number: int) -> None:
    machine.text, machine.records = "", []
    ticker.save(number)
    machine.wait_until(lambda: "patched 1 function" in machine.text)


def interrupt(machine: Gdb) -> None:
    pid = int(machine.tell("python print(gdb.selected_inferior().pid)"))
    machine.records = []
    os.kill(pid, signal.SIGINT)
    assert reason_of_stop(machine) == "signal-received"


def test_emacs_and_gdbs_own_adapter_are_told_apart_from_a_terminal(gdb: str) -> None:
    """A front end is never taken for a person at a prompt."""
    for words, is_front_end in ((["-i=mi"], True), (["--interpreter=mi3"], True), (["-q"], False)):
        ask = "python from gdb_ipbp.prompt import is_front_end; print('front end:', is_front_end())"
        command = [gdb, "-nx", *words, "-ex", load_line("gdb"), "-ex", ask, "-ex", "quit"]
        done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
        assert f"front end: {is_front_end}" in done.stdout, done.stdout
