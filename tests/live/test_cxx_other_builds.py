"""Builds of C++ that are refused by the flag, and headers that were compiled beforehand, in a running program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from scenario import Talk
from sessions import build_one, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live
REFUSED = {
    "lto": ("-flto",),
    "gcov": ("--coverage",),
    "sanitizer": ("-fsanitize=address",),
    "modules": ("-fmodules-ts", "-std=c++20"),
}


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_builds_that_new_code_cannot_join_are_refused_by_name(debugger: str, tmp_path: Path) -> None:
    for code, flags in REFUSED.items():
        # How it is compiled decides; the program itself is built without, so that it runs under a debugger as any.
        project = build_one(tmp_path / code, "quiet", "-O2", compiler="g++", suffix="cpp")
        database = project.folder / "compile_commands.json"
        rows = json.loads(database.read_text())
        rows[0]["arguments"][1:1] = flags
        database.write_text(json.dumps(rows))
        talk = Talk(project.program)
        try:
            with debug_with(debugger, find_debugger(debugger)) as session:
                session.attach(talk.process.pid)
                session.resume()
                source = project.folder / "quiet.cpp"
                source.write_text(source.read_text().replace("x + 1;", "x + 100;"))
                outcome = session.call("apply")
                assert outcome["outcome"] == "refused", (code, outcome["text"])
                assert {row["code"] for row in outcome["refusals"]} == {code}, outcome["text"]
                assert talk.ask("05") == "6"
                assert talk.close() == 0
        finally:
            talk.kill()


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_an_edit_of_a_header_that_gcc_precompiled_is_patched(debugger: str, tmp_path: Path) -> None:
    folder = tmp_path / "early"
    folder.mkdir()
    header = folder / "early.h"
    header.write_text("#pragma once\n#include <vector>\ntemplate <class T> T early(T x) { return x + 10; }\n")
    subprocess.run(["g++", "-O2", "-g", "-D_GNU_SOURCE", "early.h", "-o", "early.h.gch"], cwd=folder, check=True)
    project = build_one(folder, "quiet", "-O2", "-include", "early.h", compiler="g++", suffix="cpp")
    source = project.folder / "quiet.cpp"
    talk = Talk(project.program)
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            session.resume()
            source.write_text(source.read_text().replace("x + 1;", "early(x);"))
            assert session.call("apply")["outcome"] == "patched"
            assert talk.ask("05") == "15"
            header.write_text(header.read_text().replace("x + 10", "x + 1000"))
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", outcome["text"]
            assert talk.ask("05") == "1005"
            assert session.call("undo 0")["outcome"] == "undone"
            assert talk.ask("05") == "6"
            assert talk.close() == 0
    finally:
        talk.kill()
