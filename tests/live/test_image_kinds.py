"""However a program was linked, and whatever was stripped from it: the same edits go into it, and out again.

A row of `KINDS` is one way to make an executable. Each is patched while its threads run, with the objects of the build
at hand and then without, when what runs is read from the image itself.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from scenario import PROGRAMS, Edit, Project, Talk
from sessions import Outcome, Session, answer, debug_with, ipbp

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

SOURCES = ("main.c", "one/util.c", "two/util.c")


@dataclass(frozen=True)
class Kind:
    """`compile` and `link`: words for every source and for the linker, the compiler of each first. `after`: shell
    commands in the build folder, whose program is called `program`. `is_static`: there is no C library to look further
    names up in. `is_blind`: the program has lost the names of its static functions."""

    compile: str
    link: str
    after: Sequence[str] = ()
    is_static: bool = False
    is_blind: bool = False


SPLIT = "objcopy --only-keep-debug program program.debug"
LINKED = "objcopy --strip-debug --strip-unneeded --add-gnu-debuglink=program.debug program"
EMBED = (
    "nm -D program --format=posix --defined-only | awk '{ print $1 }' | sort > dynamic",
    "nm program --format=posix --defined-only | awk '{ if ($2 ~ /[TtDdBbRr]/) print $1 }' | sort > all",
    "comm -13 dynamic all > keep",
    "objcopy -S --keep-symbols=keep program small",
    "xz --force small",
    "strip -s program",
    "objcopy --add-section .gnu_debugdata=small.xz program",
)
KINDS = {
    "pie": Kind("gcc -O2", "gcc -pie"),
    "no pie": Kind("gcc -O2 -fno-pie", "gcc -no-pie"),
    "static": Kind("gcc -O2", "gcc -static", is_static=True),
    "static pie": Kind("gcc -O2", "gcc -static-pie", is_static=True),
    "musl": Kind("musl-gcc -O2", "musl-gcc"),
    "musl static": Kind("musl-gcc -O2", "musl-gcc -static", is_static=True),
    "gold": Kind("gcc -O2", "gcc -fuse-ld=gold"),
    "gold no pie": Kind("gcc -O2 -fno-pie", "gcc -fuse-ld=gold -no-pie"),
    "gold static": Kind("gcc -O2", "gcc -fuse-ld=gold -static", is_static=True),
    "gold icf": Kind("gcc -O2 -ffunction-sections", "gcc -fuse-ld=gold -Wl,--icf=all,--gc-sections"),
    "lld": Kind("clang -O2", "clang -fuse-ld=lld"),
    "lld no pie": Kind("clang -O2 -fno-pie", "clang -fuse-ld=lld -no-pie"),
    "lld static": Kind("clang -O1", "clang -fuse-ld=lld -static", is_static=True),
    "lld icf": Kind("clang -O2 -ffunction-sections", "clang -fuse-ld=lld -Wl,--icf=all"),
    "lld icf safe": Kind("clang -O2 -ffunction-sections", "clang -fuse-ld=lld -Wl,--icf=safe"),
    "lld packed pointers": Kind("clang -O2", "clang -fuse-ld=lld -Wl,-z,pack-relative-relocs"),
    "mold": Kind("gcc -O2", "gcc -fuse-ld=mold"),
    "mold static": Kind("gcc -O2", "gcc -fuse-ld=mold -static", is_static=True),
    "mold icf": Kind("clang -O2 -ffunction-sections", "clang -fuse-ld=mold -Wl,--icf=all"),
    "now": Kind("gcc -O2 -fno-plt", "gcc -Wl,-z,now"),
    "no relro": Kind("gcc -O0", "gcc -Wl,-z,norelro -Wl,-z,noseparate-code"),
    "packed pointers": Kind("gcc -O2", "gcc -Wl,-z,pack-relative-relocs"),
    "kept relocations": Kind("gcc -O2", "gcc -Wl,--emit-relocs -Wl,--gc-sections"),
    "intermediate object": Kind("gcc -O2", "gcc -nostdlib -r -o whole.o", ["gcc whole.o -o program -pthread"]),
    "split": Kind("gcc -O2 -gsplit-dwarf", "gcc"),
    "split clang": Kind("clang -O2 -gsplit-dwarf", "clang"),
    "split dwarf 4": Kind("gcc -O2 -gsplit-dwarf -gdwarf-4", "gcc"),
    "split package": Kind("gcc -O2 -gsplit-dwarf -gdwarf-4", "gcc", ["dwp -e program -o program.dwp", "rm *.dwo"]),
    "compressed": Kind("gcc -O2 -gz=zlib", "gcc -gz=zlib"),
    "compressed zstd": Kind("clang -O2 -gz=zstd", "clang -fuse-ld=lld -gz=zstd"),
    "debug link": Kind("gcc -O2", "gcc", [SPLIT, LINKED]),
    "debug link static": Kind("gcc -O2", "gcc -static", [SPLIT, LINKED], is_static=True),
    "debug link no build id": Kind("gcc -O2", "gcc -Wl,--build-id=none", [SPLIT, LINKED]),
    "embedded symbols": Kind("gcc -O2", "gcc", EMBED, is_blind=True),
    "stripped": Kind("gcc -O0", "gcc", ["strip -s program"], is_blind=True),
    "stripped static": Kind("gcc -O0", "gcc -static", ["strip -s program"], is_static=True, is_blind=True),
}
QUICK = {
    "gdb": ("static pie", "mold", "split", "embedded symbols", "stripped static"),
    "lldb": ("musl", "gold", "lld icf", "debug link"),
}
CASES = [
    pytest.param(name, debugger, id=f"{name}-{debugger}", marks=() if name in QUICK[debugger] else pytest.mark.slow)
    for name in KINDS
    for debugger in QUICK
]
EDITS = (
    Edit("body", "main.c", [("return x + 1; }", "return x + 1000; }")], [("body 5", "6", "1005")], ["body"]),
    Edit(
        "greeting",
        "main.c",
        [('"hello from the old code"', '"hello from the new code, which is longer"')],
        [("greeting", "hello from the old code", "hello from the new code, which is longer")],
        ["greeting"],
    ),
    Edit("constant", "main.c", [('"many"', '"more than that"')], [("word 7", "many", "more than that")], ["word"]),
    Edit(
        "switch",
        "main.c",
        [("case 5: return value << 3;", "case 5: return value << 4;\n    case 6: return -value;")],
        [("shape 5 2", "16", "32"), ("shape 6 9", "0", "-9"), ("shape 1 9", "81", "81")],
        ["shape"],
    ),
    Edit(
        "static",
        "main.c",
        [
            (
                "    static int count = 500;\n    count += x;",
                "    static int fresh = 7, count = 500;\n    fresh += 1;\n    count += x * 10 + fresh;",
            )
        ],
        [("counted 1", "601", "619"), ("counted 1", "602", "638")],
        ["counted"],
    ),
    Edit("threads", "main.c", [("int beat(void) { return 1;", "int beat(void) { return -1;")], [], ["beat"]),
    Edit("one of two", "one/util.c", [("count += 1;", "count += 5;")], [("step 1", "12 23", "17 25")], ["step"]),
)
TEXTS = Edit(
    "names never used before",
    "main.c",
    [("return line[0] != 0; }", "return (int)strlen(line) + (getppid() > 0) + (strchr(line, 'x') != 0); }")],
    [("texts", "1", "8")],
    ["texts"],
)
INDIRECT = Edit(
    "an indirect function that is linked in",
    "main.c",
    [("return line[0] != 0; }", "return (int)strlen(line) + 1; }")],
    [("texts", "1", "7")],
    ["texts"],
)


def build(folder: Path, kind: Kind, clang: str) -> Project:
    """Compile object by object, link, and do what comes after that, as a package's build would."""
    shutil.copytree(PROGRAMS / "image", folder, dirs_exist_ok=True)
    rows = []
    for name in SOURCES:
        words = [clang if word == "clang" else word for word in kind.compile.split()]
        words += ["-g", "-D_GNU_SOURCE", "-c", name, "-o", name.replace("/", "-").replace(".c", ".o")]
        rows.append({"directory": str(folder), "file": name, "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    make(folder, kind, clang)
    return Project(folder, folder / "program")


def make(folder: Path, kind: Kind, clang: str) -> None:
    """As a make would, from the sources that are there now; the old program is removed first."""
    rows = json.loads((folder / "compile_commands.json").read_text())
    for row in rows:
        subprocess.run(row["arguments"], cwd=folder, check=True)
    (folder / "program").unlink(missing_ok=True)
    words = [clang if word == "clang" else word for word in kind.link.split()]
    output = [] if "-o" in words else ["-o", "program", "-pthread"]
    subprocess.run([*words, *(row["arguments"][-1] for row in rows), *output], cwd=folder, check=True)
    for line in kind.after:
        subprocess.run(line, cwd=folder, shell=True, check=True)


@contextlib.contextmanager
def running(program: Path) -> Iterator[Talk]:
    talk = Talk(program)
    try:
        yield talk
    finally:
        talk.kill()


@contextlib.contextmanager
def debugged(program: Path, debugger: str) -> Iterator[tuple[Session, Talk]]:
    """The program, running in the background of a debugger that was attached to it."""
    with running(program) as talk:
        assert talk.ask("body 5") == "6"
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            session.resume()
            yield session, talk


def check(talk: Talk, edits: Sequence[Edit]) -> None:
    for edit in edits:
        for command, _before, after in edit.ask:
            assert talk.ask(command) == after, edit.name
    assert talk.ask("beat -1") == "-1"
    assert talk.ask("stored 5") == "1005"


@pytest.mark.parametrize(("name", "debugger"), CASES)
def test_patched_undone_and_patched_again_without_the_objects(
    name: str, debugger: str, clang: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    project = build(tmp_path / "project", kind, clang)
    edits = EDITS
    if not (kind.is_static and kind.is_blind):  # a name that nothing has
        edits += (INDIRECT if kind.is_static else TEXTS,)
    with debugged(project.program, debugger) as (session, talk):
        for edit in edits:
            for command, before, _after in edit.ask[:1]:
                assert talk.ask(command) == before, edit.name
        project.edit(*edits)
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome
        names = {row["name"].partition(".")[0] for row in outcome["functions"]}
        assert names == {name for edit in edits for name in edit.functions}, outcome
        check(talk, edits)
        stops_in_the_new_code(session, talk, project, outcome)
        assert session.call("undo")["outcome"] == "undone"
        assert (talk.ask("body 5"), talk.ask("beat 1")) == ("6", "1")

        for path in project.folder.glob("*.o"):
            path.unlink()
        outcome = session.call("apply")
        if kind.is_blind:
            assert (outcome["outcome"], outcome["error"]["code"]) == ("error", "no-symbols"), outcome
            assert talk.ask("body 5") == "6"
        else:
            assert outcome["outcome"] == "patched", outcome
            assert names >= {name for edit in edits for name in edit.functions}, outcome
            assert talk.ask("body 5") == "1005"
            assert talk.ask("shape 6 9") == "-9"
            assert talk.ask("beat -1") == "-1"
            # The two variables of one name went on, each in its own file.
            assert talk.ask("step 1") == "22 27"


def stops_in_the_new_code(session: Session, talk: Talk, project: Project, outcome: Outcome) -> None:
    """A breakpoint at a source line is hit in the new code, and the debugger shows that line."""
    text = (project.folder / "main.c").read_text().splitlines()
    line = next(number for number, row in enumerate(text, 1) if "return x + 1000;" in row)
    words = f"break main.c:{line}" if session.name == "gdb" else f"breakpoint set --file main.c --line {line}"
    said = session.tell(words)
    assert "reakpoint" in said, said
    talk.tell("body 5")
    session.wait_until_stopped()
    (row,) = (row for row in outcome["functions"] if row["name"] == "body")
    if session.evaluate("$pc") == row["entry"]:  # the old code begins on that line, too
        session.resume()
        session.wait_until_stopped()
    assert f"main.c:{line}" in session.where()
    assert session.evaluate("$pc") in range(row["address"], row["address"] + row["size"])
    session.delete_breakpoints()
    session.resume()
    assert answer(talk, session) == ("1005", 0)


LONG = {("rebuilt", "lldb"), ("deleted", "gdb"), ("moved", "gdb"), ("moved", "lldb")}
FATES = [
    pytest.param(fate, debugger, id=f"{fate}-{debugger}", marks=pytest.mark.slow if (fate, debugger) in LONG else ())
    for fate in ("rebuilt", "deleted", "moved")
    for debugger in ("gdb", "lldb")
]


@pytest.mark.parametrize(("fate", "debugger"), FATES)
def test_the_program_s_file_may_be_gone(fate: str, debugger: str, clang: str, tmp_path: Path) -> None:
    kind = KINDS["pie"]
    project = build(tmp_path / "project", kind, clang)
    edits = (*EDITS, TEXTS)
    with running(project.program) as talk:
        assert (talk.ask("counted 1"), talk.ask("step 1")) == ("601", "12 23")
        project.edit(*edits)
        if fate == "rebuilt":
            make(project.folder, kind, clang)
        elif fate == "deleted":
            project.program.unlink()
        else:
            project.program.rename(tmp_path / "elsewhere")
        outcome = ipbp("apply", talk.process.pid, debugger)
        assert outcome["outcome"] == "patched", outcome
        assert talk.ask("counted 1") == "619"
        check(talk, [edit for edit in edits if edit.name != "static"])
        assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
        assert talk.ask("body 5") == "6"
        assert talk.close() == 0


SETTINGS = {"gdb": "set debug-file-directory", "lldb": "settings set target.debug-file-search-paths"}


@pytest.mark.parametrize("debugger", SETTINGS)
def test_debug_files_are_found_where_the_debugger_is_told_to_look(debugger: str, clang: str, tmp_path: Path) -> None:
    project = build(tmp_path / "project", KINDS["debug link"], clang)
    folder = tmp_path / "debug files"
    place = folder / (project.folder.relative_to("/") if debugger == "gdb" else "")
    place.mkdir(parents=True)
    (project.folder / "program.debug").rename(place / "program.debug")
    for path in project.folder.glob("*.o"):
        path.unlink()
    with debugged(project.program, debugger) as (session, talk):
        project.edit(*EDITS[:1])
        outcome = session.call("apply")
        assert (outcome["outcome"], outcome["error"]["code"]) == ("error", "no-symbols"), outcome
        session.tell(f'{SETTINGS[debugger]} "{folder}"' if debugger == "lldb" else f"{SETTINGS[debugger]} {folder}")
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome
        assert talk.ask("body 5") == "1005"


FOLDING = ["lld icf", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gold icf", "mold icf"))]


@pytest.mark.parametrize("linker", FOLDING)
def test_folded_functions_are_patched_together_or_not_at_all(linker: str, clang: str, tmp_path: Path) -> None:
    project = build(tmp_path / "project", KINDS[linker], clang)
    source = project.folder / "main.c"
    original = source.read_text()
    with running(project.program) as talk:
        assert talk.ask("twin 3") == "18 18"
        source.write_text(original.replace("x * 7 - 3", "x * 7 - 4", 1))
        outcome = ipbp("apply", talk.process.pid, "gdb")
        assert [row["code"] for row in outcome["refusals"]] == ["entry-shared"], outcome
        assert talk.ask("twin 3") == "18 18"
        source.write_text(original.replace("x * 7 - 3", "x * 7 - 4"))
        assert ipbp("apply", talk.process.pid, "gdb")["outcome"] == "patched"
        assert talk.ask("twin 3") == "17 17"
        source.write_text(original.replace("x * 7 - 3", "x * 7 - 4", 1))
        outcome = ipbp("apply", talk.process.pid, "gdb")
        assert [row["code"] for row in outcome["refusals"]] == ["entry-shared"], outcome
        assert talk.ask("twin 3") == "17 17"
