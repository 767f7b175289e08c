"""Definitions that went to another file: found, paired with what runs, and never made twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from planned import build_sources, plan_for, write_database, write_sources
from running_program import running

from ipbp.build.outside import identifier
from ipbp.errors import Refused
from ipbp.pipeline.order import Outcome
from ipbp.protocol import PatchPlan

MAIN = "int f(int); int main(void) { ready_and_wait(); return f(1); }\n"
F = "static int kept = 5;\nint shared = 6;\nint f(int x) { return kept += x + shared; }\n"
G = "int g(int x) { return x; }\n"
FILES = {"main.c": MAIN, "f.c": F, "g.c": G}
FLAGS = ("-O1", "-fno-inline", "-falign-functions=16")


def outcome_of(folder: Path, write: Mapping[str, str], remove: tuple[str, ...] = ()) -> Outcome:
    """Of an edit of the running program of FILES."""
    with running(build_sources(folder / "tree", FILES, *FLAGS)) as process:
        write_sources(folder / "tree", write)
        for name in remove:
            (folder / "tree" / name).unlink()
        write_database(folder / "tree", *FLAGS)
        return plan_for(process)


def planned(folder: Path, write: Mapping[str, str], remove: tuple[str, ...] = ()) -> PatchPlan:
    plan = outcome_of(folder, write, remove).plan
    assert plan is not None
    return plan


def rows(plan: PatchPlan) -> dict[str, str]:
    return {row.name: row.status for row in plan.functions}


def test_a_new_file_comes_along_when_an_edited_one_needs_it(tmp_path: Path) -> None:
    new = "static int many; int h(int x) { return ++many + x; }\nint unused(void) { return 1; }\n"
    user = "int h(int); int g(int x) { return h(x); }\n"
    plan = planned(tmp_path, {"g.c": user, "h.c": new, "other.c": "int k(void) { return 2; }\n"})
    assert rows(plan) == {"g": "changed", "h": "new", "unused": "new"}
    assert Path(next(row.file for row in plan.functions if row.name == "h")).name == "h.c"


def test_what_a_new_file_needs_of_another_new_file_comes_along(tmp_path: Path) -> None:
    files = {
        "g.c": "int h(int); int g(int x) { return h(x); }\n",
        "h.c": "int k(int); int h(int x) { return k(x) + 1; }\n",
        "k.c": "int k(int x) { return x * 2; }\n",
    }
    assert rows(planned(tmp_path, files)) == {"g": "changed", "h": "new", "k": "new"}


def test_a_new_file_that_defines_what_the_program_has_is_refused(tmp_path: Path) -> None:
    user = "int h(int); int g(int x) { return h(x); }\n"
    with pytest.raises(Refused) as refused:
        outcome_of(tmp_path, {"g.c": user, "h.c": "int h(int x) { return x; }\nint f(int x) { return x; }\n"})
    assert [(r.code, r.symbol) for r in refused.value.refusals] == [("duplicate-symbol", "f")]


def test_a_second_definition_in_an_edited_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        outcome_of(tmp_path, {"g.c": G + "int shared = 8;\n"})
    assert [(r.code, r.symbol) for r in refused.value.refusals] == [("duplicate-symbol", "shared")]


def test_a_new_file_that_does_not_compile_is_said_and_what_it_would_define_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        outcome_of(tmp_path, {"g.c": "int h(int); int g(int x) { return h(x); }\n", "h.c": "int h(int x) { oops }\n"})
    assert [(r.code, r.symbol) for r in refused.value.refusals] == [("undefined-symbol", "h")]


def test_a_renamed_file_changes_nothing(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, {"f2.c": F}, remove=("f.c",))
    assert outcome.plan is None


def test_a_renamed_and_edited_file_keeps_its_variables(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"f2.c": F.replace("x + shared", "x - shared")}, remove=("f.c",))
    assert rows(plan) == {"f": "changed"}
    assert plan.data == ()


def test_a_renamed_file_that_the_build_does_not_know_is_said(tmp_path: Path) -> None:
    with running(build_sources(tmp_path / "tree", FILES, *FLAGS)) as process:
        (tmp_path / "tree/f.c").rename(tmp_path / "tree/f2.c")
        outcome = plan_for(process)
    assert outcome.plan is None
    assert any("f.c, which the program was built from, is not there any more" in note for note in outcome.notes)


def test_a_function_that_went_to_another_edited_file_is_patched_where_it_is(tmp_path: Path) -> None:
    new_g = G + "static int kept = 5;\nextern int shared;\nint f(int x) { return kept -= x + shared; }\n"
    plan = planned(tmp_path, {"f.c": "int shared = 6;\n", "g.c": new_g})
    assert rows(plan) == {"f": "changed"}
    assert plan.data == ()


def test_a_deleted_file_leaves_its_functions_to_another(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"g.c": G + F.replace("+= x", "-= x")}, remove=("f.c",))
    assert rows(plan) == {"f": "changed"}
    assert plan.data == ()


TROUBLE = """\
#include <typeinfo>
struct Trouble { unsigned code; virtual ~Trouble() {} };
struct Small : Trouble { Small(unsigned c) { code = c; } };
struct Keyed { virtual ~Keyed(); };
struct Locked : Keyed { int x = 1; };
"""
THROWS = """\
#include "trouble.h"
int f(int x) { if (x == 7) throw Small(x); if (x == 8) throw Locked(); return x; }
"""
CATCHES = """\
#include "trouble.h"
int f(int);
int g(int x) { try { return f(x); } catch (const Trouble &t) { return t.code; } }
"""
PLAIN = "int f(int);\nint g(int x) { return f(x); }\n"


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
@pytest.mark.parametrize("before", [CATCHES, PLAIN])
def test_a_class_that_a_file_begins_to_use_is_what_it_was(before: str, compiler: str, tmp_path: Path) -> None:
    thrown = "if (x == 9) throw Small(x); if (x == 10) throw Locked(); return f(x)"
    edited = '#include "trouble.h"\n' * (before is PLAIN) + before.replace("return f(x)", thrown)
    files = {
        "main.c": MAIN.replace("f(1)", "g(1)").replace("int f", "int g"),
        "f.cc": THROWS,
        "g.cc": before,
        "keyed.cc": '#include "trouble.h"\nKeyed::~Keyed() {}\n',
    }
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/trouble.h").write_text(TROUBLE)
    with running(build_sources(tmp_path / "tree", files, "-O1", compiler=compiler)) as process:
        write_sources(tmp_path / "tree", {"f.cc": THROWS.replace("return x", "return x + 1"), "g.cc": edited})
        plan = plan_for(process).plan
    assert plan is not None
    assert rows(plan) == {"f(int)": "changed", "g(int)": "changed"}


PAIR = (
    "struct pair { int a; int b; };\nstatic struct pair kept = {1, 2};\nint f(int x) { return kept.a += x + kept.b; }\n"
)
OTHER_PAIR = PAIR.replace("int a; int b;", "int b; int a;")


@pytest.mark.parametrize("way", ["renamed", "to an edited file", "deleted"])
def test_a_layout_that_changes_on_the_way_to_another_file_is_refused(way: str, tmp_path: Path) -> None:
    for name, text in (("same", PAIR), ("other", OTHER_PAIR)):
        write = {"f2.c": text} if way == "renamed" else {"g.c": G + text.replace("+ kept.b", "- kept.b")}
        if way == "to an edited file":
            write["f.c"] = "int nothing(void) { return 0; }\n"
        with running(build_sources(tmp_path / name, {**FILES, "f.c": PAIR}, *FLAGS)) as process:
            write_sources(tmp_path / name, write)
            if "f.c" not in write:
                (tmp_path / name / "f.c").unlink()
            write_database(tmp_path / name, *FLAGS)
            if name == "same":
                outcome = plan_for(process)
                assert outcome.plan is None or outcome.plan.data == ()
                continue
            with pytest.raises(Refused) as refused:
                plan_for(process)
            assert [(r.code, r.symbol) for r in refused.value.refusals] == [("layout-changed", "pair")]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("plain", "plain"),
        ("_Z3addii", "add"),
        ("_ZN4shop5price3getEv", "get"),
        ("_ZNK3Car4nameB5cxx11Ev", "name"),
        ("_ZN3BoxIiE3putEi", "Box"),
    ],
)
def test_the_word_of_a_linkage_name_in_the_source(name: str, word: str) -> None:
    assert identifier(name) == word
