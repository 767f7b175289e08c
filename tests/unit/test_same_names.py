"""Two files of one name: the debug information says which static names are whose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from running_program import graph_of, run, running

from ipbp.errors import IpbpError
from ipbp.formats.elf_image import read_image
from ipbp.graph.image import LoadedImage
from ipbp.pipeline.same_names import told_apart
from ipbp.stages.lift import lift

# Nothing but the debug information tells these two apart.
UTIL = "static int count = 3;\n__attribute__((noinline)) static int step(int n) { return n + ++count; }\n"
POINTER = "int (*volatile {}_step)(int) = step;\n"
MAIN = (
    "#include <stdio.h>\n#include <unistd.h>\nextern int (*volatile one_step)(int), (*volatile two_step)(int);\n"
    'int main(void) { char c; printf("ready\\n"); fflush(stdout);\n'
    "  return read(0, &c, 1) + one_step(1) + two_step(2); }\n"
)
WAYS = {
    "gcc": "gcc -g",
    "gcc dwarf 4": "gcc -gdwarf-4",
    "gcc split": "gcc -g -gsplit-dwarf",
    "clang": "clang -g",
    "clang dwarf 4 split": "clang -gdwarf-4 -gsplit-dwarf",
    "clang zstd": "clang -g -gz=zstd -fuse-ld=lld",
    "mold": "gcc -g -fuse-ld=mold",
}


def built(folder: Path, words: str, clang: str) -> Path:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "util.c").write_text(UTIL + POINTER.format(name))
    (folder / "main.c").write_text(MAIN)
    compiler, *options = words.split()
    command = [clang if compiler == "clang" else compiler, "-O1", *options]
    run([*command, "main.c", "one/util.c", "two/util.c", "-o", "program"], folder)
    return folder / "program"


def steps(image: LoadedImage) -> list[int]:
    """Addresses of the functions `step` whose file has the name util.c."""
    table = image.symbols
    rows = [row for row in table.by_name["step"] if table.files[table.file[row]] == "util.c"]
    return [int(table.address[row]) for row in rows]


@pytest.mark.parametrize("way", WAYS)
def test_each_unit_sees_its_own_static_names_only(way: str, clang: str, tmp_path: Path) -> None:
    image = read_image(str(built(tmp_path, WAYS[way], clang)), 0x10000)
    first, second = sorted(steps(image))

    assert steps(told_apart(image, tmp_path / "one/util.c", "util.c")) == [first]
    assert steps(told_apart(image, tmp_path / "two/util.c", "util.c")) == [second]
    assert told_apart(image, tmp_path / "main.c", "main.c") is image
    assert told_apart(image, tmp_path / "elsewhere/util.c", "util.c") is image


def test_without_debug_information_the_candidates_are_named(gcc: str, clang: str, tmp_path: Path) -> None:
    program = built(tmp_path, "gcc -g", clang)
    run(["gcc", "-O1", "-c", "one/util.c", "-o", "new.o"], tmp_path)
    with running(program) as process:
        image = process.image()
        addresses = steps(image)
        found, _ = lift(
            graph_of(tmp_path / "new.o"), told_apart(image, tmp_path / "one/util.c", "util.c"), process.read
        )
        assert "step" in found.symbols.name
        run(["objcopy", "--strip-debug", "program", "stripped"], tmp_path)
        blind = replace(image, debug_file=str(tmp_path / "stripped"))
        with pytest.raises(IpbpError) as caught:
            lift(graph_of(tmp_path / "new.o"), told_apart(blind, tmp_path / "one/util.c", "util.c"), process.read)
    assert caught.value.code == "unit-ambiguous"
    for address in addresses:
        assert f"{address:#x}" in caught.value.fact
