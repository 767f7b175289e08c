"""An interpreter in its loop: Lua from the distribution's source, with its flags, patched while a script runs in it.

The function that executes the script never returns as long as the script runs, so an edit of it is seen by calls that
begin afterwards, and ipbp says who will not see it. Linked both as a shared program and as a static one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import Session, debug_with
from source_packages import unpack

from ipbp.cli.debuggers import find_debugger

pytestmark = [pytest.mark.live, pytest.mark.slow]

SCRIPT = """
local a, b = 10, 4
for line in io.lines() do
  local called = string.gsub("x", "x", function() return tostring(a % b) end)
  io.write(string.upper(line), " ", a % b, " ", called, "\\n")
  io.flush()
end
"""
UPPER = ("p[i] = toupper(uchar(s[i]));", "p[i] = i == 0 ? '*' : toupper(uchar(s[i]));")
DEFINED = "lua_Integer luaV_mod ("
SUM = "static lua_Integer sum (lua_State *L, lua_Integer m, lua_Integer n) { (void)L; return m + n; }\n\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, compiled and linked."""
    source = unpack("lua5.4", tmp_path_factory.mktemp("lua"))
    folder = source.folder / "src"
    flags = [*source.environment["CPPFLAGS"].split(), *source.environment["CFLAGS"].split()]
    # debian/rules writes this one.
    (folder / "lua5.4-deb-multiarch.h").write_text('#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"\n')
    names = sorted(path.name for path in folder.glob("*.c") if path.name not in ("luac.c", "ltests.c", "onelua.c"))
    commands = []
    for name in names:
        words = ["gcc", *flags, "-DLUA_USE_POSIX", "-c", name, "-o", name.replace(".c", ".o")]
        source.run("sh", "-c", 'cd src && exec "$@"', "sh", *words)
        commands.append({"directory": str(folder), "file": name, "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(commands))
    objects = [name.replace(".c", ".o") for name in names]
    for program, more in (("lua", ["-Wl,-E", "-ldl"]), ("lua-static", ["-static"])):
        source.run("sh", "-c", 'cd src && exec "$@"', "sh", "gcc", *objects, "-o", program, *more, "-lm")
    (folder / "script.lua").write_text(SCRIPT)
    return folder


@pytest.fixture(params=[("gdb", "lua"), ("lldb", "lua"), ("gdb", "lua-static"), ("lldb", "lua-static")], ids="-".join)
def session(request: pytest.FixtureRequest, tree: Path, tmp_path: Path) -> Iterator[tuple[Session, Talk, Project]]:
    debugger, program = request.param
    folder = tmp_path / "lua"
    shutil.copytree(tree, folder)
    rows = json.loads((folder / "compile_commands.json").read_text())
    (folder / "compile_commands.json").write_text(json.dumps([{**row, "directory": str(folder)} for row in rows]))
    talk = Talk(folder / program, str(folder / "script.lua"))
    with debug_with(debugger, find_debugger(debugger)) as opened:
        opened.attach(talk.process.pid)
        opened.resume()
        yield opened, talk, Project(folder, folder / program)
    talk.kill()


def edit(project: Project, file: str, old: str, new: str) -> None:
    path = project.folder / file
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))


def test_an_interpreter_is_patched_while_a_script_runs(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    assert talk.ask("one") == "ONE 2 2"
    edit(project, "lstrlib.c", *UPPER)
    outcome = debugger.call(f"apply --build-dir {project.folder}")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert [row["name"] for row in outcome["functions"]] == ["str_upper"]
    assert talk.ask("two") == "*WO 2 2"
    edit(project, "lvm.c", DEFINED, SUM + DEFINED)
    text = (project.folder / "lvm.c").read_text()
    (project.folder / "lvm.c").write_text(text.replace("luaV_mod,", "sum,"))
    outcome = debugger.call(f"apply --build-dir {project.folder}")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert "luaV_execute" in {row["name"] for row in outcome["functions"]}
    assert any("old 'luaV_execute'" in note for note in outcome["notes"]), outcome["notes"]
    # The loop that runs goes on as it was; what C calls from now on begins in the new one.
    assert talk.ask("three") == "*HREE 2 14"
    assert debugger.call("undo 0")["outcome"] == "undone"
    assert talk.ask("four") == "FOUR 2 2"
