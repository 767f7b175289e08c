"""Static variables of a function that moves to another file: they are kept where it is one function for certain, and
refused where it may be another, or has left nothing to follow because it was inlined wherever it was called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from planned import build_sources, plan_for, write_database, write_sources
from running_program import running

from ipbp.errors import Refused
from ipbp.pipeline.order import Outcome
from ipbp.stages.begun_anew import Definitions, begun_anew
from ipbp.stages.cxx_names import function_path

HEAD = "#define KEPT __attribute__((noinline, noclone))\n"
MAIN = "int use(int);\nint main() { ready_and_wait(); return use(1); }\n"
F = HEAD + "static int total = 5;\nKEPT int f(int x) { static int calls; calls += x; return total += calls; }\n"
G = HEAD + "int f(int);\nint use(int x) { return f(x); }\n"
MOVED = (
    HEAD
    + "static int total = 5;\nKEPT int f(int x, int y) { static int calls; calls += x + y; return total += calls; }\n"
    + "int use(int x) { return f(x, 2); }\n"
)
LOCAL = (
    HEAD
    + "KEPT static int next(int x) { static int calls; return calls += x; }\n"
    + "int f(int x) { return next(x); }\n"
)
MOVED_LOCAL = (
    HEAD
    + "int f(int);\n"
    + "KEPT static int next(int x, int y) { static int calls; return calls += x + y; }\n"
    + "int use(int x) { return f(x) + next(x, 2); }\n"
)


def outcome_of(
    folder: Path,
    files: Mapping[str, str],
    write: Mapping[str, str],
    compiler: str,
    level: str,
    remove: str = "",
    debug: str = "-g",
) -> Outcome:
    """Of an edit of the running program of these files and MAIN. `remove`: a source that is gone."""
    flags = (level, debug)
    with running(build_sources(folder / "tree", {"main.c": MAIN, **files}, *flags, compiler=compiler)) as process:
        write_sources(folder / "tree", write)
        if remove:
            (folder / "tree" / remove).unlink()
        write_database(folder / "tree", *flags, compiler=compiler)
        return plan_for(process)


RUNS = [("g++", "-O0"), ("g++", "-O2"), ("clang++-19", "-O0"), ("clang++-19", "-O2")]


@pytest.mark.parametrize("way", ["the file stays", "the file is gone", "into a new file"])
@pytest.mark.parametrize(("compiler", "level"), RUNS)
def test_the_variables_go_along_with_a_function_that_takes_something_else(
    compiler: str, level: str, way: str, tmp_path: Path
) -> None:
    write = {"f.cc": HEAD + "int unused;\n", "g.cc": MOVED}
    if way == "the file is gone":
        del write["f.cc"]
    if way == "into a new file":
        use = "int use(int x) { return f(x, 2); }\n"
        write = {**write, "g.cc": HEAD + "int f(int, int);\n" + use, "h.cc": MOVED.replace(use, "")}
    remove = "f.cc" if way == "the file is gone" else ""
    outcome = outcome_of(tmp_path, {"f.cc": F, "g.cc": G}, write, compiler, level, remove)
    assert outcome.plan is not None
    found = {row.name: row.status for row in outcome.plan.functions if row.status != "removed"}
    assert found == {"f(int, int)": "new", "use(int)": "changed"}
    assert [row for row in outcome.plan.data if "unused" not in row] == []


@pytest.mark.parametrize(("compiler", "level"), RUNS)
def test_a_variable_of_a_function_that_another_file_may_have_had_is_refused(
    compiler: str, level: str, tmp_path: Path
) -> None:
    write = {"f.cc": HEAD + "int f(int x) { return x; }\n", "g.cc": MOVED_LOCAL}
    with pytest.raises(Refused) as refused:
        outcome_of(tmp_path, {"f.cc": LOCAL, "g.cc": G}, write, compiler, level)
    assert [row.code for row in refused.value.refusals] == ["ambiguous-static"]
    assert refused.value.refusals[0].symbol == "_ZZL4nextiiE5calls"


INLINED = (
    "static int total = 500;\nstatic int taken[50];\n"
    + "static inline __attribute__((always_inline)) int next(int x) { taken[x]++; return total += x + taken[x]; }\n"
)
STAYED = "int f(int x) { return x; }\n"
MOVED_INLINED = "int f(int);\n" + INLINED + "int use(int x) { return f(x) + next(x); }\n"


@pytest.mark.parametrize("way", ["the file stays", "the file is gone", "there is no debug information"])
@pytest.mark.parametrize(("compiler", "level"), [*RUNS, ("gcc", "-O0"), ("gcc", "-O2"), ("clang-19", "-O2")])
def test_a_variable_of_a_function_that_was_inlined_everywhere_is_refused(
    compiler: str, level: str, way: str, tmp_path: Path
) -> None:
    end = ".cc" if "++" in compiler else ".c"
    files = {"f" + end: INLINED + "int f(int x) { return next(x); }\n", "g" + end: G}
    write = {"f" + end: STAYED, "g" + end: MOVED_INLINED}
    remove, debug = "", "-g0" if way == "there is no debug information" else "-g"
    if way == "the file is gone":
        remove = "f" + end
        write = {"g" + end: INLINED + "int use(int x) { return next(x); }\n"}
    with pytest.raises(Refused) as refused:
        outcome_of(tmp_path, files, write, compiler, level, remove, debug)
    assert {row.code for row in refused.value.refusals} == {"ambiguous-static"}
    assert {str(row.symbol).strip("_ZL0123456789") for row in refused.value.refusals} == {"total", "taken"}


COUNTED = "static int %s(int x) { static int calls; return calls += x; }\n"


@pytest.mark.parametrize("compiler", ["gcc", "clang-19"])
@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("name", ["next", "last"])
def test_a_variable_of_a_function_of_c_is_told_by_the_function(
    compiler: str, level: str, name: str, tmp_path: Path
) -> None:
    files = {"f.c": COUNTED % "next" + "int f(int x) { return next(x); }\n", "g.c": G}
    moved = COUNTED % name + f"int f(int);\nint use(int x) {{ return f(x) + {name}(x); }}\n"
    if name == "next":
        with pytest.raises(Refused) as refused:
            outcome_of(tmp_path, files, {"f.c": STAYED, "g.c": moved}, compiler, level)
        assert [row.code for row in refused.value.refusals] == ["ambiguous-static"]
        return
    outcome = outcome_of(tmp_path, files, {"f.c": STAYED, "g.c": moved}, compiler, level)
    assert outcome.plan is not None
    assert len(outcome.plan.data) == 1


def test_a_variable_that_a_header_has_for_each_file_is_new_where_the_header_is(tmp_path: Path) -> None:
    header = "static const int *chosen = &(const int &)7;\nstruct Log { int n; Log(); };\nstatic int level = 3;\n"
    files = {"log.h": header, "f.cc": '#include "log.h"\nint f(int x) { return level += *chosen; }\n', "g.cc": G}
    moved = '#include "log.h"\nint f(int);\nint use(int x) { return f(x) + (level += *chosen); }\n'
    outcome = outcome_of(tmp_path, files, {"f.cc": STAYED, "g.cc": moved}, "g++", "-O2")
    assert outcome.plan is not None
    assert "level (new)" in outcome.plan.data


def test_a_variable_of_another_name_is_new(tmp_path: Path) -> None:
    write = {"f.cc": HEAD + "int f(int x) { return x; }\n", "g.cc": MOVED_LOCAL.replace("calls", "asked")}
    outcome = outcome_of(tmp_path, {"f.cc": LOCAL, "g.cc": G}, write, "g++", "-O2")
    assert outcome.plan is not None
    assert outcome.plan.data == ("next(int, int)::asked (new)",)


@pytest.mark.parametrize("functions", [(), ("_ZL4nextii",), ("_ZL4lastii",)])
def test_a_variable_of_a_namespace_counts_whatever_function_came_along(functions: tuple[str, ...]) -> None:
    lost = Definitions(("_ZL4nexti",), ("_ZL5total", "_ZL5other"))
    assert list(begun_anew(lost, Definitions(functions, ("_ZL5total",)))) == [("_ZL5total", "_ZL5total")]
    assert list(begun_anew(lost, Definitions(functions, ("_ZL4made",)))) == []


def test_what_compilers_and_their_libraries_have_in_every_file_is_no_variable_of_the_source() -> None:
    names = ("_ZStL8__ioinit", "__compound_literal.0", ".compoundliteral", "DW.ref.__gxx_personality_v0", "_ZGVL1x")
    assert list(begun_anew(Definitions((), names), Definitions((), names))) == []


@pytest.mark.parametrize(
    ("old", "new"), [("total", "total.0"), ("_ZL4pair.1", "_ZL4pair"), ("next.calls", "next.calls")]
)
def test_a_part_of_a_variable_counts_as_the_variable(old: str, new: str) -> None:
    assert list(begun_anew(Definitions((), (old,)), Definitions((), (new,)))) == [(new, old)]


def test_a_guard_is_no_variable_of_its_own() -> None:
    lost = Definitions((), ("_ZGVZL4nextiE1n", "_ZZL4nextiE1n"))
    fresh = Definitions((), ("_ZGVZL4nextvE1n", "_ZZL4nextvE1n"))
    assert list(begun_anew(lost, fresh)) == [("_ZZL4nextvE1n", "_ZZL4nextiE1n")]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("_Z1fii", "f"),
        ("_ZL1fi", "f"),
        ("_ZN12_GLOBAL__N_11fEi", "f"),
        ("_ZN4shop4sellEil", "shop::sell"),
        ("_ZNK1A3getEv", "A::get"),
        ("_Z1fIiEiT_S0_", "f<int>"),
        ("_ZL7counter", ""),
        ("_ZTV1A", ""),
        ("main", ""),
    ],
)
def test_what_a_function_is_called_whatever_it_takes(name: str, path: str) -> None:
    assert function_path(name) == path
