"""What a debugger does by itself at a stop may be `hotpatch`: the stop stays one, and the debugger's user sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sessions import build_one

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

_GDB = ("tbreak tick if n == 2", "commands", "silent", "hotpatch", "end", "run", "tbreak tick if n == 4", "continue")
_OF_BREAKPOINT = ("breakpoint set --name tick --condition 'n == 2'", "breakpoint command add 1 --one-liner hotpatch")
_OF_STOP = ("target stop-hook add --one-liner hotpatch", "breakpoint set --name tick --condition 'n == 2'")
_LLDB = ("process launch", "breakpoint set --name tick --condition 'n == 4'", "continue")
SCRIPTS = {"gdb": _GDB, "lldb breakpoint": (*_OF_BREAKPOINT, *_LLDB), "lldb stop hook": (*_OF_STOP, *_LLDB)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_stops_commands_may_patch(script: str, tmp_path: Path, gcc: str, clang: str) -> None:
    debugger = script.split()[0]
    # lldb (19) does not find where the parameters of gcc's functions are there.
    project = build_one(tmp_path / "project", "metronome", "-O0", compiler=gcc if debugger == "gdb" else clang)
    source = project.folder / "metronome.c"
    source.write_text(source.read_text().replace("return n * 2;", "return n * 100 + 7;"))
    lines = ["set confirm off"] if debugger == "gdb" else []
    lines += [load_line(debugger), *SCRIPTS[script], "hotpatch undo", "kill" if debugger == "gdb" else "process kill"]
    (tmp_path / "script").write_text("\n".join([*lines, ""]))
    batch = {"gdb": ["-nx", "-batch", "-x"], "lldb": ["--no-lldbinit", "-b", "-s"]}[debugger]
    command = [find_debugger(debugger), *batch, str(tmp_path / "script"), str(project.program)]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert "patched 1 function in metronome.c: beat" in said, said
    assert "undone" in said, said
    # Before the patch, after it, and no further than to the second breakpoint.
    assert [line.split()[:2] for line in said.splitlines() if line[:2] in ("1 ", "2 ", "3 ", "4 ")] == [
        *(["1", "2"], ["2", "207"], ["3", "307"])
    ], said
