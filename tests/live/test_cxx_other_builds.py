"""What a running C++ program refuses by the flag, or by the name; and headers that were compiled beforehand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from sessions import build_one, debugged

pytestmark = [pytest.mark.live, pytest.mark.compiles]
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
        with debugged(project.program, debugger) as (session, talk):
            source = project.folder / "quiet.cpp"
            source.write_text(source.read_text().replace("x + 1;", "x + 100;"))
            outcome = session.call("apply")
            assert outcome["outcome"] == "refused", (code, outcome["text"])
            assert {row["code"] for row in outcome["refusals"]} == {code}, outcome["text"]
            assert talk.ask("05") == "6"
            assert talk.close() == 0


PRECOMPILED = {
    "gcc": ("g++", "early.h.gch", "-include early.h"),
    "clang": ("clang++-19", "early.h.pch", "-include early.h"),
    "clang, by name": ("clang++-19", "early.h.pch", "-include-pch early.h.pch"),
    "clang, as CMake": (
        "clang++-19",
        "early.h.pch",
        "-Winvalid-pch -Xclang -include-pch -Xclang early.h.pch -Xclang -include -Xclang early.h",
    ),
}


@pytest.mark.parametrize("way", PRECOMPILED)
@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_an_edit_of_a_header_that_was_precompiled_is_patched(debugger: str, way: str, tmp_path: Path) -> None:
    compiler, precompiled, flags = PRECOMPILED[way]
    folder = tmp_path / "early"
    folder.mkdir()
    header = folder / "early.h"
    header.write_text("#pragma once\n#include <vector>\ntemplate <class T> T early(T x) { return x + 10; }\n")
    make = [compiler, "-O2", "-g", "-D_GNU_SOURCE", "-x", "c++-header", "early.h", "-o", precompiled]
    subprocess.run(make, cwd=folder, check=True)
    project = build_one(folder, "quiet", "-O2", *flags.split(), compiler=compiler, suffix="cpp")
    source = project.folder / "quiet.cpp"
    with debugged(project.program, debugger) as (session, talk):
        source.write_text(source.read_text().replace("x + 1;", "early(x);"))
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert talk.ask("05") == "15"
        header.write_text(header.read_text().replace("x + 10", "x + 1000"))
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert talk.ask("05") == "1005"
        assert session.call("undo 0")["outcome"] == "undone"
        assert talk.ask("05") == "6"
        assert talk.close() == 0


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_what_would_give_memory_out_beside_the_program_is_refused(debugger: str, tmp_path: Path) -> None:
    project = build_one(tmp_path / "quiet", "quiet", "-O2", compiler="g++", suffix="cpp")
    source = project.folder / "quiet.cpp"
    old = source.read_text().replace("x + 1;", "*std::unique_ptr<int>(new int(x + 100));")
    old = old.replace("#include <string>", "#include <memory>\n#include <string>")
    member = (
        "struct Own {\n    static void *operator new(size_t size) { return std::malloc(size + 8); }\n    int x;\n};\n"
    )
    with debugged(project.program, debugger) as (session, talk):
        for definition, symbol in (
            ("void *operator new(size_t size) { return std::malloc(size + 8); }\n", "_Znwm"),
            ("void operator delete(void *at) noexcept { std::free(at); }\n", "_ZdlPv"),
            ('extern "C" void *malloc(size_t) noexcept { return nullptr; }\n', "malloc"),
        ):
            source.write_text(old.replace("__attribute__", f"{definition}__attribute__", 1))
            outcome = session.call("apply")
            assert [(row["code"], row["symbol"]) for row in outcome["refusals"]] == [("allocator-replaced", symbol)]
            assert talk.ask("05") == "6"
        # That of a class concerns nobody else.
        source.write_text(
            old.replace("__attribute__", f"{member}__attribute__", 1).replace(
                "*std::unique_ptr<int>(new int(x + 100));", "(new Own{x + 200})->x;"
            )
        )
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert talk.ask("05") == "205"
        assert session.call("undo")["outcome"] == "undone"
        assert talk.ask("05") == "6"
        assert talk.close() == 0


@pytest.mark.parametrize(
    ("debugger", "compiler", "flags"),
    [("gdb", "g++", ()), ("lldb", "g++", ()), ("gdb", "clang++-19", ("-fdebug-types-section",))],
)
def test_where_what_describes_the_types_is_lost_the_user_decides(
    debugger: str, compiler: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    project = build_one(tmp_path / "quiet", "quiet", "-O0", "-gsplit-dwarf", *flags, compiler=compiler, suffix="cpp")
    source = project.folder / "quiet.cpp"
    with debugged(project.program, debugger) as (session, talk):
        source.write_text("\n" + source.read_text().replace("x + 1;", "x + 100;"))
        if not flags:  # a build puts another object in the place of the one that runs
            (row,) = json.loads((project.folder / "compile_commands.json").read_text())
            subprocess.run(row["arguments"], cwd=project.folder, check=True)
        outcome = session.call("apply")
        assert [row["code"] for row in outcome["refusals"]] == ["no-type-information"], outcome["text"]
        assert talk.ask("05") == "6"
        assert session.call("apply --allow-layout all")["outcome"] == "patched"
        assert talk.ask("05") == "105"
        # What runs now is described.
        source.write_text(source.read_text().replace("x + 100;", "x + 1000;"))
        assert session.call("apply")["outcome"] == "patched"
        assert talk.ask("05") == "1005"
        assert session.call("undo 0")["outcome"] == "undone"
        assert talk.ask("05") == "6"
        assert talk.close() == 0
