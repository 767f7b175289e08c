"""Edits of C and C++ types: what must be refused, in which words, and what is harmless."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from layout_edits import BASE, BASE_CXX, HARMLESS, HARMLESS_CXX, REFUSED, REFUSED_CXX, Edit
from objects_from_c import compiled
from running_program import build, graph_of, run

from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_object import read_object
from ipbp.graph.layouts import UnitTypes
from ipbp.pipeline.layouts import file_names, types_of_image, types_of_object
from ipbp.stages.layout_changes import layout_changes

BUILDS = [("gcc", "4"), ("gcc", "5"), ("clang-19", "4"), ("clang-19", "5")]


@cache
def types_of(source: str, language: str, compiler: str, *flags: str) -> UnitTypes:
    name = f"unit.{language}"
    return types_of_object(read_object(compiled(source, compiler, ("-g", *flags), name), name))


def codes(
    edit: Edit, base: str, language: str, compiler: str, *flags: str, allowed: tuple[str, ...] = ()
) -> list[tuple[str, str]]:
    assert base.count(edit.old) == 1, edit.old
    old, new = (types_of(text, language, compiler, *flags) for text in (base, base.replace(edit.old, edit.new)))
    found = layout_changes(old, new, f"unit.{language}", allowed)
    return [(row.symbol or "", row.fact) for row in found.refusals]


@pytest.mark.parametrize(("compiler", "version"), BUILDS)
@pytest.mark.parametrize("name", list(REFUSED))
def test_an_edit_of_what_lies_in_memory_is_refused_in_words(name: str, compiler: str, version: str) -> None:
    edit = REFUSED[name]
    ((symbol, fact),) = codes(edit, BASE, "c", compiler, f"-gdwarf-{version}")
    assert symbol == edit.symbol
    assert edit.words in fact.replace("long int", "long")  # as gcc calls it


@pytest.mark.parametrize(("compiler", "version"), BUILDS)
@pytest.mark.parametrize("name", list(HARMLESS))
def test_a_harmless_edit_of_a_type_is_not(name: str, compiler: str, version: str) -> None:
    assert codes(HARMLESS[name], BASE, "c", compiler, f"-gdwarf-{version}") == []


@pytest.mark.parametrize(("compiler", "version"), BUILDS)
@pytest.mark.parametrize("name", list(REFUSED_CXX))
def test_so_it_is_with_classes(name: str, compiler: str, version: str) -> None:
    edit = REFUSED_CXX[name]
    found = codes(edit, BASE_CXX, "cc", compiler, f"-gdwarf-{version}")
    assert [symbol for symbol, _ in found] == [edit.symbol], found
    assert edit.words in found[0][1].replace("long int", "long")


@pytest.mark.parametrize(("compiler", "version"), BUILDS)
@pytest.mark.parametrize("name", list(HARMLESS_CXX))
def test_and_with_harmless_edits_of_classes(name: str, compiler: str, version: str) -> None:
    assert codes(HARMLESS_CXX[name], BASE_CXX, "cc", compiler, f"-gdwarf-{version}") == []


@pytest.mark.parametrize("version", ["4", "5"])
def test_type_units_say_the_same(version: str) -> None:
    edit = REFUSED_CXX["in a namespace"]
    ((symbol, fact),) = codes(edit, BASE_CXX, "cc", "gcc", f"-gdwarf-{version}", "-fdebug-types-section")
    assert symbol == "deep::Point"
    assert edit.words in fact
    assert (
        codes(HARMLESS_CXX["a new override"], BASE_CXX, "cc", "gcc", f"-gdwarf-{version}", "-fdebug-types-section")
        == []
    )


SPLITS = [
    (compiler, f"-gdwarf-{version}", flags)
    for compiler in ("gcc", "clang-19")
    for version in "45"
    for flags in ((), ("-fdebug-types-section",))
    # LLVM's number of a split unit does not tell whether a type is still what it was when it is in a type unit.
    if not (flags and compiler == "clang-19")
]


@pytest.mark.parametrize(("compiler", "version", "flags"), SPLITS)
def test_a_unit_whose_debug_information_is_split_is_read_in_its_other_file(
    compiler: str, version: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    source = BASE_CXX + "int main() { return 0; }\n"
    (tmp_path / "unit.cc").write_text(source)
    split = [compiler, "-g", version, *flags, "-gsplit-dwarf", "-c", "unit.cc", "-o", "unit.o"]
    run(split, tmp_path)
    run([compiler, "unit.o", "-o", "program", "-lstdc++"], tmp_path)
    edit = REFUSED_CXX["in a namespace"]
    new = types_of(source.replace(edit.old, edit.new), "cc", compiler, version, *flags)
    image = read_image(str(tmp_path / "program"))
    for old in (types_of_object(graph_of(tmp_path / "unit.o")), types_of_image(image, "unit.cc")):
        assert [row.symbol for row in layout_changes(old, new, "unit.cc").refusals] == [edit.symbol]
    # Where its file is another one now, or not there, nothing is known.
    (tmp_path / "unit.cc").write_text(source.replace(edit.old, edit.new))
    run([*split[:-1], "other.o"], tmp_path)
    (tmp_path / "other.dwo").replace(tmp_path / "unit.dwo")
    run([compiler, "unit.o", "-o", "twin", "-lstdc++"], tmp_path)
    twin = types_of_image(read_image(str(tmp_path / "twin")), "unit.cc")
    assert (twin.is_described, twin.is_lost) == (False, True)


@pytest.mark.parametrize(
    ("compiler", "flags", "packager", "described"),
    [
        ("gcc", ("-gdwarf-4",), "dwp", True),
        ("clang-19", ("-gdwarf-5",), "llvm-dwp", True),
        # Type units are in another index of the package, which is not read.
        ("clang-19", ("-gdwarf-4", "-fdebug-types-section"), "llvm-dwp", False),
    ],
)
def test_so_it_is_with_a_package(
    compiler: str, flags: tuple[str, ...], packager: str, described: bool, tmp_path: Path
) -> None:
    (tmp_path / "unit.cc").write_text(BASE_CXX + "int main() { return 0; }\n")
    run([compiler, "-g", *flags, "-gsplit-dwarf", "-c", "unit.cc", "-o", "unit.o"], tmp_path)
    run([compiler, "unit.o", "-o", "program", "-lstdc++"], tmp_path)
    run(["timeout", "30", packager, "-e", "program", "-o", "program.dwp"], tmp_path)
    (tmp_path / "unit.dwo").unlink()
    found = types_of_image(read_image(str(tmp_path / "program")), "unit.cc")
    assert (found.is_described, found.is_lost) == (described, not described)
    assert ("Square" in found.aggregates) or not described


@pytest.mark.parametrize("version", ["4", "5"])
def test_of_type_units_that_clang_split_off_nothing_is_known(version: str, tmp_path: Path) -> None:
    (tmp_path / "unit.cc").write_text(BASE_CXX)
    flags = [f"-gdwarf-{version}", "-fdebug-types-section", "-gsplit-dwarf"]
    run(["clang-19", "-g", *flags, "-c", "unit.cc", "-o", "unit.o"], tmp_path)
    found = types_of_object(graph_of(tmp_path / "unit.o"))
    assert (found.is_described, found.is_lost) == (False, True)


@pytest.mark.parametrize("flags", [(), ("-g1",), ("-g",)], ids=str)
def test_what_was_not_asked_for_is_not_lost(flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "unit.cc").write_text(BASE_CXX)
    run(["gcc", *flags, "-c", "unit.cc", "-o", "unit.o"], tmp_path)
    found = types_of_object(graph_of(tmp_path / "unit.o"))
    assert (found.is_described, found.is_lost) == (flags == ("-g",), False)


@pytest.mark.parametrize("version", ["4", "5"])
def test_the_files_that_types_are_declared_in_have_names(version: str, tmp_path: Path) -> None:
    (tmp_path / "unit.c").write_text("#include <stdio.h>\nstruct pair { FILE *a; } one;\n")
    run(["gcc", "-g", f"-gdwarf-{version}", "-fdebug-types-section", "-c", "unit.c", "-o", "unit.o"], tmp_path)
    graph = graph_of(tmp_path / "unit.o")
    (pair,) = types_of_object(graph).aggregates["pair"]
    assert dict(file_names(graph))[pair.file] == "unit.c"


def test_what_the_user_allows_is_not_refused() -> None:
    edit = REFUSED["a member at the end"]
    assert codes(edit, BASE, "c", "gcc", allowed=("all",)) == []
    # What holds it is another matter: its values are as alive as before.
    assert [symbol for symbol, _ in codes(edit, BASE, "c", "gcc", allowed=("client",))] == ["holder"]


def test_of_a_linked_program_the_units_of_that_name_are_read(tmp_path: Path) -> None:
    sources = {"one": "struct pair { int a; } one;", "two": "struct pair { long a; } two; int main(void) { return 0; }"}
    program, objects = build(tmp_path, sources, "-g")
    image = read_image(str(program))
    for name, path in objects.items():
        found = types_of_image(image, f"{name}.c").aggregates
        assert found.keys() == {"pair"}
        assert found == types_of_object(graph_of(path)).aggregates


TWO = "static signed char mode = 2;\nvoid turn(void) { mode = %s; }\nint told(int x) { return mode * x %s; }\n"


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize(
    ("edited", "words"),
    [
        (("7", "+ 5"), ""),
        (("9", ""), "which of two values"),
        (("-7", ""), "which of two values"),
        (("told(3)", ""), "which of two values"),  # of one byte, too, and with its value
    ],
)
def test_a_variable_of_two_values_keeps_them(edited: tuple[str, str], words: str, version: str) -> None:
    """clang keeps one byte that says which of the two it has."""
    texts = (f"int told(int);\n{TWO % row}" for row in (("7", ""), edited))
    old, new = (types_of(text, "c", "clang-19", "-O1", f"-gdwarf-{version}") for text in texts)
    for sides in ((old, new), (new, old)):
        found = [(row.code, row.symbol) for row in layout_changes(*sides, "unit.c").refusals]
        assert found == ([("variable-split", "mode")] if words else [])
        assert all(words in row.fact for row in layout_changes(*sides, "unit.c").refusals)
