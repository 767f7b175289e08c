"""Functions that are reached in ways of their own: from assembly, by version, by visibility, out of a plugin without
debug information, by the kernel. One running program goes through all of them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import PROGRAMS, Edit, Talk, edit_sources
from sessions import Session, code_of, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

COMPILE = {
    "host.c": ["-O2", "-g", "-fpatchable-function-entry=8,3"],
    "hand.s": [],
    "library.c": ["-O2", "-g", "-fPIC"],
    "plugin.c": ["-O2", "-fPIC"],
}
LINK = (
    ["-shared", "library.o", "-Wl,--version-script=library.map", "-o", "liblibrary.so"],
    ["-shared", "plugin.o", "-o", "plugin.so"],
    ["host.o", "hand.o", "-L.", "-llibrary", "-Wl,-rpath,$ORIGIN", "-o", "host", "-pthread"],
)
EDITS = (
    Edit(
        "written by hand",
        "hand.s",
        [("leal    1(%rdi", "leal    2(%rdi"), ("addl    $1000,", "addl    $2000,"), ("addl    $7,", "addl    $8,")],
        [("hand 5", "116 1015 17", "117 2015 18")],
        ["hand_scaled", "hand_summed", "hand_shared"],
    ),
    Edit("nops before the entry", "host.c", [("return x + 1;", "return x + 2;")], [("padded 3", "4", "5")], ["padded"]),
    Edit(
        "versions",
        "library.c",
        [("return x + 1;", "return x + 100;"), ("return x + 2;", "return x + 200;")],
        [("versions 1", "23", "1211")],
        ["version_one", "version_two"],
    ),
    Edit(
        "callers of versions",
        "host.c",
        [("library_old(x) * 10 + versioned(x)", "versioned(x) * 10 + library_old(x)")],
        [("versions 1", "1211", "2111")],
        ["both"],
    ),
    Edit(
        "hidden and protected",
        "library.c",
        [("return x + 10;", "return x + 11;"), ("return x + 20;", "return x + 21;")],
        [("visible 1", "22 42 21", "24 44 22")],
        ["secluded", "sheltered"],
    ),
    Edit(
        "a plugin without debug information",
        "plugin.c",
        [("return x * 3;", "return x * 4;")],
        [("plugin 1", "103", "204")],
        ["inner"],
    ),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sources, built, with a compile_commands.json."""
    shutil.copytree(PROGRAMS / "linkage", tmp_path / "project")
    folder = tmp_path / "project"
    rows = []
    for name, flags in COMPILE.items():
        words = ["gcc", *flags, "-c", name, "-o", f"{Path(name).stem}.o"]
        subprocess.run(words, cwd=folder, check=True)
        rows.append({"directory": str(folder), "file": name, "arguments": words})
    for words in LINK:
        subprocess.run(["gcc", *words], cwd=folder, check=True)
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(params=["gdb", "lldb"])
def session(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Session, Talk]]:
    talk = Talk(folder / "host", str(folder / "plugin.so"))
    with debug_with(request.param, find_debugger(request.param)) as opened:
        opened.attach(talk.process.pid)
        for line in ("handle SIGUSR1 nostop noprint pass", "process handle SIGUSR1 -n false -s false -p true"):
            opened.tell(line)
        opened.resume()
        yield opened, talk
    talk.kill()


def test_functions_are_patched_however_they_are_reached(session: tuple[Session, Talk], folder: Path) -> None:
    debugger, talk = session
    before = code_of(talk.process.pid)
    for edit in EDITS:
        for command, old, _new in edit.ask:
            assert talk.ask(command) == old, edit.name
        edit_sources(folder, [edit])
        outcome = debugger.call("apply")
        assert outcome["outcome"] == "patched", str(outcome)
        assert {row["name"] for row in outcome["functions"]} == set(edit.functions), str(outcome)
        for command, _old, new in edit.ask:
            assert talk.ask(command) == new, edit.name
    # The handler is running while it is replaced: this run of it ends in the old code, the next is of the new.
    assert talk.ask("signal 0") == "inside"
    edit_sources(folder, [Edit("", "host.c", [("handled += number;", "handled += number * 100;")], [], [])])
    outcome = debugger.call("apply")
    assert outcome["outcome"] == "patched", outcome
    assert any("old 'handler'" in note for note in outcome["notes"]), outcome["notes"]
    assert talk.ask("leave") == str(int(signal.SIGUSR1))
    assert (talk.ask("signal 1"), talk.ask("leave")) == ("inside", str(signal.SIGUSR1 * 100))
    assert debugger.call("undo 0")["outcome"] == "undone"
    assert code_of(talk.process.pid) == before
    # The same with nothing of the build at hand: what runs is read from the images.
    for path in folder.glob("*.o"):
        path.unlink()
    outcome = debugger.call("apply")
    assert outcome["outcome"] == "patched", outcome
    assert {row["name"] for row in outcome["functions"]} >= {name for edit in EDITS for name in edit.functions}
    assert talk.ask("versions 1") == "2111"
    assert debugger.call("undo")["outcome"] == "undone"
    for edit in EDITS[:2]:
        for command, old, _new in edit.ask:
            assert talk.ask(command) == old, edit.name
    assert (talk.ask("signal 1"), talk.ask("leave")) == ("inside", str(int(signal.SIGUSR1)))
    assert code_of(talk.process.pid) == before
