"""A game loop at sixty steps a second goes on while it is patched, and rust-gdb and rust-lldb still show its values."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cargo_project import CargoProject
from debuggers import Gdb, Lldb
from scenario import Talk
from sessions import GdbSession, LldbSession

pytestmark = [pytest.mark.live, pytest.mark.compiles]
WORKSPACE = "arcade"
FACTORS = (2, 3, 4)
SHOWN = {
    "gdb": (
        'name = "cave"',
        "bullets = Vec(size=3) = {160, 200, 240}",
        'scores = HashMap(size=1) = {["hero"] = 7}',
        "best = core::option::Option<u64>::Some(40)",
    ),
    "lldb": ('name = "cave"', "bullets = size=3 {", "[2] = 240", "scores = size=1 {", '"hero"', "best = Some"),
}


@contextmanager
def rust_debugger(name: str, path: str, folder: Path) -> Iterator[GdbSession | LldbSession]:
    """rust-gdb or rust-lldb of the toolchain, told to use the debugger at `path`."""
    if name == "gdb":
        with Gdb("rust-gdb", RUST_GDB=path) as gdb:
            yield GdbSession(gdb)
    else:
        (folder / "lldb").symlink_to(path)  # it takes the one on PATH
        with Lldb("rust-lldb", PATH=f"{folder}:{os.environ['PATH']}") as lldb:
            yield LldbSession(lldb)


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_game_goes_on_while_it_is_patched(
    crates: CargoProject,
    debugger: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, talk = crates.folder / "src/world.rs", Talk(crates.program)
    text = source.read_text()
    try:
        with rust_debugger(debugger, request.getfixturevalue(debugger), tmp_path) as session:
            session.attach(talk.process.pid)
            session.resume()
            longest = []
            for factor in FACTORS:
                talk.ask("longest")
                source.write_text(text.replace("bullet * factor", f"bullet * factor * {factor}"))
                outcome = session.call("")
                assert outcome["outcome"] == "patched", str(outcome)
                wait_until(lambda wanted=51 + 150 * factor: talk.ask("speed") == str(wanted))
                longest.append(int(talk.ask("longest")) / 1000)
            with capsys.disabled():
                rest = ", ".join(f"{row:.1f}" for row in longest[1:])
                print(f"\n{debugger}: longest step {longest[0]:.1f} ms with the first patch, then {rest}; 16.7 without")

            line = text[: text.index("let sum")].count("\n") + 1
            place = f"break world.rs:{line}" if debugger == "gdb" else f"breakpoint set --file world.rs --line {line}"
            session.tell(place)
            session.wait_until_stopped()
            said = session.tell("info locals" if debugger == "gdb" else "frame variable")
            for shown in SHOWN[debugger]:
                assert shown in said, said
            session.delete_breakpoints()
            session.resume()
            steps = int(talk.ask("steps"))
            wait_until(lambda: int(talk.ask("steps")) > steps + 2)
    finally:
        talk.kill()
        source.write_text(text)


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
