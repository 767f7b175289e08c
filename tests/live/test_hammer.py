"""Eight threads are in the patched function all the time while it is patched and put back, over and over."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import build_one, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_one(tmp_path / "project", "hammer", "-O0")


@pytest.fixture
def hammer(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    yield program
    program.kill()


def new_object(project: Project) -> Path:
    """The edited source, compiled by itself."""
    source = project.folder / "edited.c"
    source.write_text((project.folder / "hammer.c").read_text().replace("return x + 1;", "return x + 1000;"))
    path = project.folder / "edited.o"
    subprocess.run(["gcc", "-O0", "-g", "-c", source, "-o", path], check=True)
    return path


def resident(pid: int) -> int:
    """KiB of the program that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def counters(line: str) -> tuple[int, int, int]:
    """Calls, old and new answers; nothing was lost and nothing else came back."""
    calls, old, new, other, total = map(int, line.split())
    assert other == 0, line
    assert calls == old + new, line
    assert total == old + 1000 * new, line
    return calls, old, new


@pytest.mark.parametrize("cycles", [25, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_no_call_is_lost(project: Project, hammer: Talk, debugger: str, cycles: int) -> None:
    pid = hammer.process.pid
    old = shutil.copy(project.folder / "hammer.o", project.folder / "old.o")
    new = new_object(project)
    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(pid)
        session.resume()
        memory = []
        for cycle in range(cycles):
            before = counters(hammer.ask("?"))
            outcome = session.call(f"object {old} {new}")
            assert outcome["outcome"] == "patched", (cycle, outcome)
            patched = counters(hammer.ask("?"))
            outcome = session.call("undo")
            assert outcome["outcome"] == "undone", (cycle, outcome)
            after = counters(hammer.ask("?"))
            assert patched[2] > before[2], "the new code ran"
            assert after[1] > patched[1], "the old code runs again"
            memory.append(resident(pid))
        # The pages of the arena, which are a few for each hundred patches, and nothing else.
        assert memory[-1] - memory[0] < 64 + 2 * cycles, memory
        session.stop()
        session.detach()
        before = counters(hammer.ask("?"))
        assert counters(hammer.ask("?"))[0] >= before[0]
    assert hammer.close() == 0
