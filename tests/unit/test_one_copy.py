"""What several units define by right is replaced once: inline functions, templates and their variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from planned import build_sources, plan_for, write_sources
from running_program import running

from ipbp.errors import Refused
from ipbp.pipeline.order import Outcome
from ipbp.protocol import PatchPlan

HEADER = """
__attribute__((noinline)) inline int scaled(int x) { return x * 10; }
template <typename T> __attribute__((noinline)) T twice(T x) { return x + x; }
int one(int x);
int two(int x);
"""
UNIT = """#include "shared.h"
int {name}(int x) {{ return scaled(x) + twice(x); }}
"""
MAIN = """
#include "shared.h"
int main() { ready_and_wait(); return one(1) + two(2); }
"""
FILES = {
    "shared.h": HEADER,
    "one.cc": UNIT.format(name="one"),
    "two.cc": UNIT.format(name="two"),
    "main.c": MAIN,
}


def planned(folder: Path, edit: Mapping[str, str], *flags: str, files: Mapping[str, str] = FILES) -> Outcome:
    with running(build_sources(folder, files, *flags, compiler="g++")) as process:
        write_sources(folder, edit)
        return plan_for(process)


def plan(outcome: Outcome) -> PatchPlan:
    assert outcome.plan is not None
    return outcome.plan


@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_an_inline_function_and_an_instance_of_a_template_are_replaced_once(tmp_path: Path, level: str) -> None:
    edited = HEADER.replace("x * 10", "x * 11").replace("x + x", "x + x + 1")
    made = plan(planned(tmp_path / "tree", {"shared.h": edited}, level))
    assert sorted(row.linkage for row in made.functions) == ["_Z5twiceIiET_S0_", "_Z6scaledi"]
    assert made.record is not None
    units = made.record["images"].popitem()[1]
    for name in ("_Z6scaledi", "_Z5twiceIiET_S0_"):
        entry = {row.entry for row in made.functions if row.linkage == name}
        assert {unit["address"][name] for unit in units.values()} == entry, "both units know where it runs"
    assert {Path(unit).name for unit in units} == {"one.cc", "two.cc"}


@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_a_new_variable_of_a_new_inline_function_is_one_for_all(tmp_path: Path, level: str) -> None:
    added = (
        "__attribute__((noinline)) inline int next() { static int n = 7; return ++n; }\n"
        "__attribute__((noinline)) inline int scaled(int x) { return x * next(); }\n"
    )
    edited = HEADER.replace("__attribute__((noinline)) inline int scaled(int x) { return x * 10; }\n", added)
    made = plan(planned(tmp_path / "tree", {"shared.h": edited}, level))
    assert [row.linkage for row in made.functions if row.status == "new"] == ["_Z4nextv"]
    assert made.data == ("next()::n (new)",)
    assert made.record is not None
    units = made.record["images"].popitem()[1].values()
    assert len({unit["address"]["_ZZ4nextvE1n"] for unit in units}) == 1


def test_copies_that_are_not_the_same_are_refused(tmp_path: Path) -> None:
    files = {**FILES, "two.cc": "#define TWO\n" + FILES["two.cc"]}
    edited = HEADER.replace("return x * 10;", "\n#ifdef TWO\nreturn x;\n#else\nreturn -x;\n#endif\n")
    with pytest.raises(Refused) as refused:
        planned(tmp_path / "tree", {"shared.h": edited}, "-O0", files=files)
    (row,) = refused.value.refusals
    assert (row.code, row.symbol) == ("copies-differ", "_Z6scaledi")
    assert "one.cc" in row.fact
    assert "two.cc" in row.fact


def test_optimised_copies_may_differ_and_that_is_said(tmp_path: Path) -> None:
    files = {**FILES, "two.cc": "#define TWO\n" + FILES["two.cc"]}
    edited = HEADER.replace("return x * 10;", "\n#ifdef TWO\nreturn x;\n#else\nreturn -x;\n#endif\n")
    outcome = planned(tmp_path / "tree", {"shared.h": edited}, "-O2", files=files)
    (row,) = plan(outcome).functions
    assert (row.linkage, Path(row.file).name) == ("_Z6scaledi", "one.cc")
    assert any("scaled(int)" in note and "two.cc" in note for note in plan(outcome).notes)


def test_a_unit_that_uses_an_inline_function_for_the_first_time_gets_the_running_one(tmp_path: Path) -> None:
    files = {**FILES, "two.cc": '#include "shared.h"\nint two(int x) { return x; }\n'}
    made = plan(planned(tmp_path / "tree", {"two.cc": FILES["two.cc"]}, "-O2", files=files))
    assert [(row.linkage, row.status) for row in made.functions] == [("_Z3twoi", "changed")]


def test_and_so_it_does_when_that_is_edited_too(tmp_path: Path) -> None:
    files = {**FILES, "two.cc": '#include "shared.h"\nint two(int x) { return x; }\n'}
    edit = {"two.cc": FILES["two.cc"], "shared.h": HEADER.replace("x * 10", "x * 11")}
    made = plan(planned(tmp_path / "tree", edit, "-O2", files=files))
    assert sorted(row.linkage for row in made.functions) == ["_Z3twoi", "_Z6scaledi"]
    assert {row.status for row in made.functions} == {"changed"}
