"""The main job on a real program: edit, `hotpatch`, and the running process answers as the new source says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenario import EDITS, Edit, Project, Talk, build_project

pytestmark = pytest.mark.live

BUILDS = {
    "gcc -O0": ("gcc", ["-O0"]),
    "gcc -O2": ("gcc", ["-O2"]),
    "gcc -O2 no pie": ("gcc", ["-O2", "-fno-pie", "-no-pie"]),
    "clang -O0": ("clang", ["-O0"]),
    "clang -O2": ("clang", ["-O2"]),
}
_EVERY = [(build, debugger) for build in BUILDS for debugger in ("gdb", "lldb")]
_SLICE = [
    ("gcc -O0", "lldb"),
    ("gcc -O2", "gdb"),
    ("gcc -O2 no pie", "lldb"),
    ("clang -O0", "gdb"),
    ("clang -O2", "lldb"),
]
each_build = pytest.mark.parametrize(
    ("project", "debugger"),
    [row if row in _SLICE else pytest.param(*row, marks=pytest.mark.slow) for row in _EVERY],
    indirect=True,
)
BY_NAME = {edit.name: edit for edit in EDITS}


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(BUILDS))
def project(request: pytest.FixtureRequest, tmp_path: Path, clang: str) -> Project:
    compiler, flags = BUILDS[request.param]
    return build_project(tmp_path / "project", clang if compiler == "clang" else compiler, flags)


@pytest.fixture
def talk(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    yield program
    program.kill()


def hotpatch(verb: str, talk: Talk, debugger: str, *more: str) -> dict[str, Any]:
    """One `ipbp VERB --pid`, its outcome as JSON, checked to agree with the exit status."""
    words = [sys.executable, "-m", "ipbp.cli.main", verb, "--pid", str(talk.process.pid), "--debugger", debugger]
    done = subprocess.run([*words, "--json", *more], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    nothing = 0 if verb == "apply" else 4
    expected = {"patched": 0, "planned": 0, "undone": 0, "ok": 0, "unchanged": nothing, "refused": 3, "usage": 2}
    assert done.returncode == expected.get(outcome["outcome"], 1)
    return outcome


def patched(talk: Talk, debugger: str) -> set[str]:
    """Names of the functions that one `ipbp apply` patched."""
    outcome = hotpatch("apply", talk, debugger)
    assert outcome["outcome"] == "patched", outcome
    return {row["name"] for row in outcome["functions"]}


@each_build
def test_all_edits_at_once_are_live_and_undone(project: Project, talk: Talk, debugger: str) -> None:
    for edit in EDITS:
        for command, before, _after in edit.ask[:1]:
            assert talk.ask(command) == before, edit.name
    project.edit(*EDITS)
    names = {name.partition(".")[0] for name in patched(talk, debugger)}
    wanted = {name for edit in EDITS for name in edit.functions}
    assert names <= wanted
    assert names >= wanted - {"added"}, "a new static function may be inlined"
    for edit in EDITS:
        for command, _before, after in edit.ask:
            assert talk.ask(command) == after, edit.name
    assert hotpatch("undo", talk, debugger)["outcome"] == "undone"
    assert talk.ask("body 5") == "6"
    assert talk.ask("greeting") == "hello from the old code"
    assert talk.close() == 0


@each_build
def test_state_and_addresses_survive_patch_after_patch(project: Project, talk: Talk, debugger: str) -> None:
    assert talk.ask("counted 5") == "105"
    assert talk.ask("stored 1") == "2 1"
    for number, edit in enumerate(EDITS, start=1):
        project.edit(edit)
        outcome = hotpatch("apply", talk, debugger)
        assert outcome["outcome"] == "patched", (edit.name, outcome)
        assert outcome["patch"] == number
    # A pointer taken before the patch still equals the function and runs its newest code.
    assert talk.ask("stored 1") == "1001 1"
    assert talk.ask("counted 5") == "110"
    assert [p["patch"] for p in hotpatch("status", talk, debugger)["patches"]] == list(range(1, len(EDITS) + 1))
    assert hotpatch("undo", talk, debugger, "1")["outcome"] == "undone"
    assert talk.ask("greeting") == "hello from the old code"
    assert talk.ask("body 5") == "1005"
    assert talk.close() == 0


@pytest.mark.parametrize("project", ["gcc -O2"], indirect=True)
def test_an_edit_back_to_the_original_is_an_edit(project: Project, talk: Talk, debugger: str) -> None:
    original = (project.folder / "talk.c").read_text()
    project.edit(BY_NAME["body"])
    assert patched(talk, debugger) == {"body"}
    assert talk.ask("body 5") == "1005"
    (project.folder / "talk.c").write_text(original)
    assert patched(talk, debugger) == {"body"}
    assert talk.ask("body 5") == "6"
    assert hotpatch("apply", talk, debugger)["outcome"] == "unchanged"


@pytest.mark.parametrize("project", ["gcc -O0", "clang -O2"], indirect=True)
def test_moved_lines_are_no_change(project: Project, talk: Talk, debugger: str) -> None:
    source = project.folder / "talk.c"
    source.write_text("/* one more line */\n\n" + source.read_text())
    assert hotpatch("apply", talk, debugger)["outcome"] == "unchanged"


@pytest.mark.parametrize("project", ["gcc -O2", "clang -O0"], indirect=True)
def test_a_function_on_the_stack_finishes_in_its_old_code(project: Project, talk: Talk, debugger: str) -> None:
    on_stack = Edit(
        "on stack", "talk.c", [("    return x + 1;\n}\n\noperation", "    return x + 70;\n}\n\noperation")], [], []
    )
    assert talk.ask("on_stack 1") == "waiting"
    project.edit(on_stack)
    outcome = hotpatch("apply", talk, debugger)
    assert [row["name"] for row in outcome["functions"]] == ["on_stack"]
    assert any("old 'on_stack'" in note for note in outcome["notes"]), outcome["notes"]
    assert talk.ask("go on") == "2"
    assert talk.ask("on_stack 1") == "waiting"
    assert talk.ask("go on") == "71"


@pytest.mark.parametrize("project", ["gcc -O2", "gcc -O0"], indirect=True)
def test_a_rebuilt_tree_is_compared_with_the_running_image(project: Project, talk: Talk, debugger: str) -> None:
    project.edit(BY_NAME["body"], BY_NAME["switch table"], BY_NAME["local static kept and renumbered"])
    assert talk.ask("counted_too 1") == "501"
    build_again(project)
    names = patched(talk, debugger)
    assert names == {"body", "shape", "counted_too"}
    assert talk.ask("body 5") == "1005"
    assert talk.ask("shape 7 2") == "72"
    assert talk.ask("counted_too 1") == "5028"


def build_again(project: Project) -> None:
    """What a make would do: new objects and a new program in place of the old ones."""
    commands = json.loads((project.folder / "compile_commands.json").read_text())
    for row in commands:
        subprocess.run(row["arguments"], cwd=project.folder, check=True)
    objects = [row["arguments"][-1] for row in commands]
    project.program.unlink()
    subprocess.run(["gcc", *objects, "-o", str(project.program), "-pthread"], cwd=project.folder, check=True)


@pytest.mark.parametrize("project", ["gcc -O2"], indirect=True)
def test_a_compile_error_is_shown_and_nothing_happens(project: Project, talk: Talk, debugger: str) -> None:
    source = project.folder / "talk.c"
    source.write_text(source.read_text().replace("return x + 1; }", "return x +; }"))
    outcome = hotpatch("apply", talk, debugger)
    assert outcome["outcome"] == "error"
    assert outcome["error"]["code"] == "compile-failed"
    assert "talk.c:" in outcome["error"]["detail"]
    assert "expected expression" in outcome["error"]["detail"]
    assert talk.ask("body 5") == "6"


@pytest.mark.parametrize("project", ["gcc -O2"], indirect=True)
def test_a_changed_size_is_refused_and_a_changed_initialiser_reported(
    project: Project, talk: Talk, debugger: str
) -> None:
    source = project.folder / "talk.c"
    original = source.read_text()
    before = maps_and_text(talk)
    source.write_text(original.replace("static int calls;", "static long calls;"))
    outcome = hotpatch("apply", talk, debugger)
    assert outcome["outcome"] == "refused"
    assert [row["symbol"] for row in outcome["refusals"]] == ["calls"]
    assert maps_and_text(talk) == before
    source.write_text(
        original.replace("static int count = 100;", "static int count = 900;").replace("x + 1; }", "x + 3; }")
    )
    outcome = hotpatch("apply", talk, debugger)
    assert outcome["outcome"] == "patched"
    assert any("count" in note for note in outcome["notes"]), outcome["notes"]
    assert talk.ask("counted 1") == "101"
    assert talk.ask("body 1") == "4"


@pytest.mark.parametrize("project", ["gcc -O2", "clang -O0"], indirect=True)
def test_a_changed_layout_is_refused_until_it_is_allowed(project: Project, talk: Talk, debugger: str) -> None:
    header = project.folder / "talk.h"
    header.write_text(header.read_text().replace("int x, y; }", "int y, x; }"))
    before = maps_and_text(talk)
    outcome = hotpatch("apply", talk, debugger)
    (refusal,) = outcome["refusals"]
    assert (outcome["outcome"], refusal["code"], refusal["symbol"]) == ("refused", "layout-changed", "point")
    assert "member 'x' moved from byte 0 to byte 4" in refusal["fact"]
    assert "(talk.h:5)" in refusal["fact"]
    assert maps_and_text(talk) == before
    assert hotpatch("apply", talk, debugger, "--allow-layout", "point")["outcome"] == "patched"


def maps_and_text(talk: Talk) -> tuple[list[str], bytes]:
    """The memory map without the heap's size, and all bytes of the program's code."""
    assert talk.ask("body 5"), "it has started"
    lines = Path(f"/proc/{talk.process.pid}/maps").read_text().splitlines()
    code = next(line for line in lines if " r-xp " in line and line.endswith("/talk"))
    start, end = (int(part, 16) for part in code.split()[0].split("-"))
    with open(f"/proc/{talk.process.pid}/mem", "rb", buffering=0) as memory:
        memory.seek(start)
        return [line for line in lines if "[heap]" not in line], memory.read(end - start)
