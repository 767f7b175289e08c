"""Thread-local variables of functions in a lifted image: the one that a function had, or a doubt, and no new one."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from patch_maker import graph_of

from ipbp.formats.elf_image import read_image
from ipbp.graph.model import LinkGraph
from ipbp.stages.correlate import Correlation, correlate
from ipbp.stages.lift import lift

FIRST = "int first(int n) { static __thread int count = 5; count += n; return count; }\n"
SECOND = "int second(int n) { static __thread int count = 6; count *= n; return count; }\n"
SECTIONS = ("-ffunction-sections", "-fdata-sections")
MAIN = "int first(int), second(int);\nint main(void) { return first(1) + second(2); }\n"
WAYS = [("gcc", "-O0", "-fPIE"), ("gcc", "-O2", "-fPIC"), ("aarch64", "-O2", "-fPIE"), ("aarch64", "-O0", "-fPIC")]


def changed(text: str) -> str:
    return text.replace("return", "return 1 +")


@pytest.fixture
def compiler(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def compared(
    folder: Path, compiler: str, flags: tuple[str, ...], edited: str
) -> tuple[LinkGraph, LinkGraph, Correlation]:
    for name, text in (("unit", FIRST + SECOND), ("main", MAIN)):
        (folder / f"{name}.c").write_text(text)
        subprocess.run([compiler, *flags, *SECTIONS, "-c", f"{name}.c"], cwd=folder, check=True)
    subprocess.run([compiler, "unit.o", "main.o", "-o", "program"], cwd=folder, check=True)
    image = replace(read_image(str(folder / "program")), is_executable=True)
    (folder / "unit.c").write_text(edited)
    subprocess.run([compiler, *flags, *SECTIONS, "-c", "unit.c"], cwd=folder, check=True)
    new = graph_of(folder / "unit.o")
    old, _found = lift(new, image, lambda ranges: [image.original(address, size) for address, size in ranges])
    return old, new, correlate(old, new)


def counts(graph: LinkGraph) -> dict[int, int]:
    """By its symbol what each variable `count` begins with."""
    rows = [row for row, name in enumerate(graph.symbols.name) if name.startswith("count.")]
    return {row: bytes(graph.content(int(graph.symbols.block[row])))[0] for row in rows}


@pytest.mark.parametrize(("compiler", "flags"), [(way[0], way[1:]) for way in WAYS], indirect=["compiler"])
def test_the_variable_of_the_function_that_changed_is_what_the_others_leave(
    compiler: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    old, new, pairs = compared(tmp_path, compiler, flags, changed(FIRST) + SECOND)
    assert pairs.ambiguous == ()
    assert {value: counts(old)[int(pairs.symbol[row])] for row, value in counts(new).items()} == {5: 5, 6: 6}


@pytest.mark.parametrize("edited", [changed(FIRST + SECOND), changed(SECOND)])
@pytest.mark.parametrize(("compiler", "flags"), [(way[0], way[1:]) for way in WAYS], indirect=["compiler"])
def test_one_that_could_be_any_is_ambiguous_and_not_new(
    compiler: str, flags: tuple[str, ...], edited: str, tmp_path: Path
) -> None:
    _old, new, pairs = compared(tmp_path, compiler, flags, edited)
    assert dict(pairs.ambiguous).keys() == counts(new).keys()
