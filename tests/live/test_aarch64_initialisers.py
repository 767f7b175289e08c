"""AArch64: new variables of C++ are initialised once when they come into a program in qemu-user."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scenario import PROGRAMS
from test_aarch64 import Metronome, in_qemu, outcomes

pytestmark = [pytest.mark.live, pytest.mark.compiles]

GUARDED = ("-O2", "-mbranch-protection=standard")
WAYS = {
    "gcc": ("g++", ("-O0",), ()),
    "clang": ("clang", ("-O0", "-fPIC"), ()),
    "gcc -O2 with branch protection": ("g++", (*GUARDED, "-fdata-sections"), ()),
    "gcc -O1 with anchors, static": ("g++", ("-O1",), ("-static",)),
    "gcc -O2 with anchors": ("g++", ("-O2",), ()),
    "clang -O2": ("clang", GUARDED, ()),
}
_MARK = "// new variables\n"


@dataclass
class Cradle:
    """The program in qemu, stopped at each `tick` that a test asks for."""

    qemu: Metronome

    @staticmethod
    def until(beat: int) -> list[str]:
        return [f"tbreak tick if n == {beat}", "continue"]

    def edit(self, name: str, variables: str, *replace: tuple[str, str]) -> str:
        """The command of a session that writes the file as it was at first, with these variables and changes."""
        text = (PROGRAMS / "cradle" / name).read_text().replace(_MARK, _MARK + variables)
        for old, new in replace:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return f"python open({str(self.qemu.folder / name)!r}, 'w').write({text!r})"

    def said(self) -> list[str]:
        """All that the program printed, to its end."""
        assert self.qemu.process.stdout is not None
        self.qemu.process.wait(timeout=60)
        return self.qemu.process.stdout.read().splitlines()


@pytest.fixture
def cradle(request: pytest.FixtureRequest, tmp_path: Path, clang: str, aarch64: str) -> Iterator[Cradle]:
    compiler, flags, link = WAYS[request.param]
    folder = tmp_path / "cradle"
    shutil.copytree(PROGRAMS / "cradle", folder)
    own = aarch64.replace("gcc", "g++")
    driver = [own] if compiler == "g++" else [clang, "--target=aarch64-linux-gnu"]
    rows = []
    for source in sorted(folder.glob("*.cpp")):
        command = [*driver, "-g", "-std=c++17", *flags, "-c", source.name, "-o", f"{source.stem}.o"]
        subprocess.run(command, cwd=folder, check=True)
        rows.append({"directory": str(folder), "file": source.name, "arguments": command})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    subprocess.run([own, *link, "kept.o", "main.o", "plain.o", "-o", "program"], cwd=folder, check=True)
    with in_qemu(folder, "plain.cpp", "./program") as qemu:
        yield Cradle(qemu)


@pytest.mark.parametrize("cradle", WAYS, indirect=True)
def test_new_variables_are_made_once_in_order_and_destroyed_at_exit(cradle: Cradle) -> None:
    said = cradle.qemu.session(
        *cradle.until(2),
        cradle.edit(
            "plain.cpp",
            'static Thing fresh("fresh", 100);\n'
            'static std::string text("a text that does not fit into the small buffer");\n'
            'Thing later("later", fresh.get() + plain(0));\n'
            '__attribute__((constructor(200))) static void begin() { tell("begin", ""); }\n',
            ("n + 1;", "n + 1000 + fresh.get() + (int)text.size();"),
        ),
        "hotpatch --json",
        *cradle.until(4),
        "hotpatch --json",
        "hotpatch undo --json",
        "continue",
    )
    assert outcomes(said) == ["patched", "unchanged", "undone"], said
    text = len("a text that does not fit into the small buffer")
    beats = [[n, n + 1 if n not in (2, 3) else n + 1100 + text, 30 + 2 * n, 7] for n in range(12)]
    rows = [" ".join(map(str, row)) for row in beats]
    rows[2:2] = ["begin", "+fresh", "+later"]
    # What was made stays when the patch is undone: its destructors are yet to run.
    assert cradle.said() == [
        "+first",
        "+second",
        *rows,
        f"-later {1200 + text}",
        "-fresh 100",
        "-second 20",
        "-first 22",
    ]


BESIDE = (
    "#include <map>\n"
    'static Thing third("third", 200);\n'
    'static std::map<int, std::string> table = {{1, "one"}, {2, "two"}};\n'
    'inline Thing inlined("inlined", 1000);\n'
    '__attribute__((init_priority(300))) Thing early("early", 5);\n'
    'static bool done = (tell("done", ""), plain(1) == 2);\n'
)


@pytest.mark.parametrize("cradle", [way for way in WAYS if "static" not in way], indirect=True)
def test_variables_that_exist_are_not_made_again(cradle: Cradle) -> None:
    more = "return third.get() + (int)table.size() + inlined.get() + early.get() + done + n +"
    said = cradle.qemu.session(
        *cradle.until(2),
        cradle.edit("kept.cpp", BESIDE, ("return n +", more), ('second("second", 20)', 'second("another", 21)')),
        "hotpatch --json",
        *cradle.until(5),
        cradle.edit(
            "kept.cpp",
            'static Thing third("third", 1);\nThing last("last", third.get() + 1);\n',
            ("return n +", "return third.get() + last.get() + n +"),
        ),
        "hotpatch --json",
        *cradle.until(8),
        "hotpatch undo 0 --json",
        "continue",
    )
    assert outcomes(said) == ["patched", "patched", "undone"], said
    lines = cradle.said()
    beats = [int(line.split()[2]) for line in lines if line[0].isdigit()]
    more_of = {**dict.fromkeys((2, 3, 4), 1208), **dict.fromkeys((5, 6, 7), 401)}
    assert beats == [30 + 2 * n + more_of.get(n, 0) for n in range(12)]
    told = [line for line in lines if not line[0].isdigit()]
    assert told[:3] == ["+first", "+second", "+early"]
    assert sorted(told[3:6]) == ["+inlined", "+third", "done"]
    assert told.index("+third") < told.index("done")
    made = ["-early 5", "-first 22", "-inlined 1000", "-last 201", "-second 20", "-third 200"]
    assert (told[6], sorted(told[7:])) == ("+last", made)


TROUBLE = ("threw std::runtime_error: no luck today", "threw int", "crashed: SIGABRT")


@pytest.mark.parametrize("cradle", ["gcc", "clang -O2"], indirect=True)
def test_what_goes_wrong_in_a_constructor_is_said_and_the_patch_taken_back(cradle: Cradle) -> None:
    variables, change = 'Thing before("before", {0});\nTrouble bad({0});\n', ("n + 1;", "n + before.get();")
    commands = cradle.until(1)
    for kind, _ in enumerate(TROUBLE, 1):
        commands += [cradle.edit("plain.cpp", variables.format(kind), change), "hotpatch", *cradle.until(1 + kind)]
    commands += [cradle.edit("plain.cpp", variables.format(0), change), "hotpatch --json", "continue"]
    said = cradle.qemu.session(*commands)
    for words in TROUBLE:
        assert f"{words}; rolled back" in said, said
    assert outcomes(said) == ["patched"], said
    lines = cradle.said()
    assert [line for line in lines if line[0] == "+"] == ["+first", "+second", *["+before"] * 4]
    assert [int(line.split()[1]) for line in lines if line[0].isdigit()] == [1, 2, 3, 4, *range(4, 12)]
    assert {line.split()[3] for line in lines if line[0].isdigit()} == {"7"}  # errno, which the constructor changes
    assert lines[-6:] == [f"-before {kind}" for kind in (0, 3, 2, 1)] + ["-second 20", "-first 22"]


@pytest.mark.parametrize("cradle", ["gcc", "clang", "gcc -O2 with branch protection"], indirect=True)
def test_what_is_taken_apart_is_unwound_as_its_compiler_meant(cradle: Cradle) -> None:
    variables = (
        'static Thing before("before", 1);\n'
        "static int chosen(const Thing &, const Trouble &) { return 5; }\n"
        'static int bad = chosen(Thing("passing", 2), Trouble({0}));\n'
    )
    change = ("return n +", "return bad + before.get() + n +")
    said = cradle.qemu.session(
        *cradle.until(2),
        cradle.edit("kept.cpp", variables.replace("{0}", "1"), change),
        "hotpatch",
        *cradle.until(4),
        cradle.edit("kept.cpp", variables.replace("{0}", "0"), change),
        "hotpatch --json",
        "continue",
    )
    assert f"{TROUBLE[0]}; rolled back" in said, said
    assert outcomes(said) == ["patched"], said
    lines = cradle.said()
    assert [int(line.split()[2]) for line in lines if line[0].isdigit()] == [
        30 + 2 * n + (6 if n > 3 else 0) for n in range(12)
    ]
    assert [line for line in lines if not line[0].isdigit()] == [
        *("+first", "+second", *["+before", "+passing", "-passing 2"] * 2),
        *("-before 1", "-before 1", "-second 20", "-first 22"),
    ]


C = """
#include <stdio.h>
#include <unistd.h>
static int start = 5;
__attribute__((noinline)) int beat(int n) { return n + start; }
__attribute__((noinline)) void tick(int n) { printf("%d %d\\n", n, beat(n)); }
int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int n = 0; n < 6; n++) tick(n);
}
"""


def test_a_constructor_of_c_runs_in_a_program_without_a_runtime_of_cxx(tmp_path: Path, aarch64: str) -> None:
    command = [aarch64, "-g", "-O2", "-fdata-sections", "-c", "beat.c", "-o", "beat.o"]
    (tmp_path / "beat.c").write_text(C)
    (tmp_path / "compile_commands.json").write_text(
        json.dumps([{"directory": str(tmp_path), "file": "beat.c", "arguments": command}])
    )
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([aarch64, "beat.o", "-o", "program"], cwd=tmp_path, check=True)
    with in_qemu(tmp_path, "beat.c", "./program") as qemu:
        said = qemu.session(
            *Cradle.until(2),
            qemu.edit(
                "static int start = 5;", "static int more; __attribute__((constructor)) void set(void) { more = 100; }"
            ),
            qemu.edit("n + start", "n + more"),
            "hotpatch --json",
            "continue",
        )
        assert outcomes(said) == ["patched"], said
        assert Cradle(qemu).said() == ["0 5", "1 6", "2 102", "3 103", "4 104", "5 105"]


@pytest.mark.parametrize("cradle", ["gcc", "gcc -O2 with anchors", "clang -O2"], indirect=True)
def test_a_thread_makes_its_new_variables_but_none_beside_those_that_it_has_made(cradle: Cradle) -> None:
    mine, more = ('static thread_local Thing {0}("{0}", {1});\n'.format(*row) for row in (("mine", 500), ("more", 9)))
    said = cradle.qemu.session(
        *cradle.until(2),
        cradle.edit("plain.cpp", mine, ("return n", "return mine.value++ + n")),
        "hotpatch --json",
        *cradle.until(4),
        cradle.edit("plain.cpp", mine + more, ("return n", "return mine.value++ + more.value++ + n")),
        "hotpatch --json",
        "continue",
    )
    assert outcomes(said) == ["patched", "refused"], said
    assert {
        row["code"] for line in said.splitlines() if '"refused"' in line for row in json.loads(line)["refusals"]
    } == {"new-initialiser"}
    lines = cradle.said()
    assert [int(line.split()[1]) for line in lines if line[0].isdigit()] == [1, 2, *(499 + 2 * n for n in range(2, 12))]
    assert [line for line in lines if not line[0].isdigit()] == [
        *("+first", "+second", "+mine"),
        *("-mine 510", "-second 20", "-first 22"),
    ]
