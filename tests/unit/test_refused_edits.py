"""Pairs of sources: an edit that is patched beside one of the same kind that must be refused, and why.

Each is a whole `hotpatch` of a running program up to its plan. A refusal names the symbol, the file, what was found
and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from planned import build_sources, plan_for, write_database, write_sources
from running_program import running

from ipbp.errors import Refused

MAIN = "int f(int); int main(void) { ready_and_wait(); return f(1); }\n"
FLAGS = ("-O1", "-fno-inline", "-falign-functions=16")


@dataclass(frozen=True)
class Case:
    """`old` and `new`: the text of f.c, or of several files. `refused`: (code, symbol) of each refusal, empty when the
    edit is patched. `note`: words that a note must have then."""

    name: str
    old: str | dict[str, str]
    new: str | dict[str, str]
    refused: set[tuple[str, str]] = field(default_factory=set)
    flags: tuple[str, ...] = FLAGS
    note: str = ""
    compiler: str = "gcc"
    remove: tuple[str, ...] = ()


def pair(name: str, old: str, patched: str, refused: str, *reasons: tuple[str, str], **more: object) -> list[Case]:
    """The same program with an edit that works and one that does not."""
    return [
        Case(f"{name}: patched", old, patched, **more),  # type: ignore[arg-type]
        Case(f"{name}: refused", old, refused, set(reasons), **more),  # type: ignore[arg-type]
    ]


COUNT = "static int count = 3; int f(int x) { count += x; return count + 1; }"
BOTH = {"f.c": "int g(int); int f(int x) { return g(x) + 1; }", "g.c": "int g(int x) { return x + 4; }"}
BEGIN = "static int set; __attribute__((constructor)) static void start(void) { set = 4; }"
START = f"{BEGIN} int f(int x) {{ return set + x; }}"
LATE = "void late(void) { set += 5; }"
JUMPS = (
    "int f(int x) { static void *to[] = {&&a, &&b}; x = (x * 7919 + 13) & 1; goto *to[x]; a: return 5; b: return 6; }"
)
RESUMED = (
    "int f(int x) { static void *at; if (!at) at = &&a; goto *at;"
    " a: at = &&b; return 5 + x; b: at = &&a; return 6 + x; }"
)
ASSEMBLY = """
.text
.globl f
.type f, @function
f:
nop
nop
nop
nop
nop
1: inc %eax
sub $1, %edi
jg 1b
ret
.size f, . - f
.section .note.GNU-stack,"",@progbits
"""
END = (
    "volatile int seen; int f(int x) { return seen += x; }\n__attribute__((destructor)) static void end(void) { f(3); }"
)
TIGHT = "int f(int x) { return x; } int g(int x) { return x; }\n"
ROOM = TIGHT + "__attribute__((aligned(64))) int h(int x) { return x; }"
CASES = [
    *pair(
        "the size of a variable",
        COUNT,
        COUNT.replace("+ 1", "+ 2"),
        COUNT.replace("static int", "static long"),
        ("data-size-changed", "count"),
    ),
    *pair(
        "a variable and a constant",
        COUNT,
        COUNT.replace("count += x; ", "x += count; "),
        "static const int count[3] = {1, 2, 3}; int f(int x) { return count[x & 1] + 1; }",
        ("data-kind-changed", "count"),
    ),
    *pair(
        "a constant that others see",
        "extern const int limit; const int limit = 5; int f(int x) { return *(const int *volatile)&limit + x; }",
        "extern const int limit; const int limit = 5; int f(int x) { return *(const int *volatile)&limit - x; }",
        "extern const int limit; const int limit = 6; int f(int x) { return *(const int *volatile)&limit + x; }",
        ("shared-constant-changed", "limit"),
    ),
    *pair(
        "a name that nobody has",
        "int f(int x) { return x + 5; }",
        "#include <stdlib.h>\nint f(int x) { return abs(x) + 5; }",
        "int nobody(int); int f(int x) { return nobody(x) + 5; }",
        ("undefined-symbol", "nobody"),
    ),
    *pair(
        "who gives memory out",
        "#include <stdlib.h>\nint f(int x) { void *p = malloc(9); free(p); return x + (p != 0); }",
        "#include <stdlib.h>\nint f(int x) { void *p = malloc(99); free(p); return x - (p != 0); }",
        "#include <stdlib.h>\nvoid free(void *p) { (void)p; }\n"
        "int f(int x) { void *p = malloc(9); free(p); return x - (p != 0); }",
        ("allocator-replaced", "free"),
    ),
    *pair(
        "a constructor",
        f"{START} {LATE}",
        START.replace("set + x", "set - x")
        + f" {LATE} __attribute__((constructor)) static void more(void) {{ set = 5; }}",
        START.replace("set + x", "set - x") + f" __attribute__((constructor)) {LATE}",
        ("new-initialiser", "late"),
    ),
    *pair(
        "what a constructor sets",
        START,
        START.replace("set = 4", "set = 5"),
        START.replace("set = 4;", "extern int fresh; set = 4; fresh = 9;").replace(
            "set + x; }", "set + x; } int fresh;"
        ),
        ("new-initialiser", "fresh"),
    ),
    *pair(
        "a destructor",
        END,
        END.replace("f(3)", "f(4)"),
        END + " __attribute__((destructor)) static void other(void) { f(7); }",
        ("new-initialiser", "other"),
    ),
    Case("the labels of a function: patched", JUMPS, JUMPS.replace("+ 13", "+ 14")),
    Case("a label in a variable: refused", RESUMED, RESUMED.replace("5 + x", "7 + x"), {("label-in-variable", "f")}),
    Case("assembly: patched", {"f.s": ASSEMBLY}, {"f.s": ASSEMBLY.replace("inc", "dec")}),
    Case(
        "assembly whose loop begins at its second byte: refused",
        {"f.s": ASSEMBLY.replace("nop\nnop\nnop\nnop\n1:", "1:")},
        {"f.s": ASSEMBLY.replace("nop\nnop\nnop\nnop\n1:", "1:").replace("inc", "dec")},
        {("entry-branch-target", "f")},
    ),
    *pair(
        "an indirect function",
        "static int one(int x) { return x + 1; } static void *choose(void) { return one; }\n"
        'int f(int) __attribute__((ifunc("choose")));',
        "static int one(int x) { return x + 2; } static void *choose(void) { return one; }\n"
        'int f(int) __attribute__((ifunc("choose")));',
        "static int one(int x) { return x + 1; } static int two(int x) { return x + 5; }\n"
        'static void *choose(void) { return two; } int f(int) __attribute__((ifunc("choose")));',
        ("indirect-function-changed", "f"),
    ),
    Case(
        "a signature, in all files: patched",
        {**BOTH, "f.c": BOTH["f.c"]},
        {
            "f.c": "int g(int, int); int f(int x) { return g(x, 2) + 1; }",
            "g.c": "int g(int x, int y) { return x + y; }",
        },
    ),
    Case(
        "a signature, in one file: refused",
        BOTH,
        {"g.c": "int g(int x, int y) { return x + y; }"},
        {("signature-changed", "g")},
    ),
    Case(
        "a typedef for the same type: patched", BOTH, {"g.c": "typedef int number; int g(number x) { return x - 4; }"}
    ),
    Case("a wider result: refused", BOTH, {"g.c": "long g(int x) { return x + 4L; }"}, {("signature-changed", "g")}),
    Case(
        "a signature that nobody else uses: patched",
        BOTH,
        {"f.c": BOTH["f.c"], "g.c": "static int h(int x, int y) { return x * y; } int g(int x) { return h(x, 5); }"},
    ),
    Case(
        "a definition in two files: refused",
        BOTH,
        {"f.c": BOTH["f.c"] + " int g(int x) { return x; }"},
        {("duplicate-symbol", "g")},
    ),
    Case(
        "a definition that moved: patched",
        BOTH,
        {"f.c": "int g(int x) { return x - 4; } int f(int x) { return g(x) + 1; }", "g.c": ""},
    ),
    Case(
        "two edited files define one name: refused",
        BOTH,
        {"f.c": BOTH["f.c"] + " int twice(void) { return 1; }", "g.c": BOTH["g.c"] + " int twice(void) { return 2; }"},
        {("duplicate-symbol", "twice")},
    ),
    Case(
        "a function without room and without padding: refused",
        TIGHT,
        TIGHT.replace("return x;", "return x + 1;", 1),
        {("entry-too-short", "f")},
        ("-O1", "-fno-inline", "-falign-functions=1"),
    ),
    Case(
        "a function without room and with padding near it: patched",
        ROOM,
        ROOM.replace("return x;", "return x + 1;", 1),
        flags=("-O1", "-fno-inline", "-falign-functions=1"),
    ),
    Case(
        "an object of the link-time optimiser: refused",
        COUNT,
        COUNT.replace("+ 1", "+ 2"),
        {("lto", "")},
        ("-O1", "-flto", "-falign-functions=16"),
    ),
    Case("an object with counters: refused", COUNT, COUNT.replace("+ 1", "+ 2"), {("gcov", "")}, ("-O1", "--coverage")),
]


def files(text: str | dict[str, str]) -> dict[str, str]:
    return {"f.c": text} if isinstance(text, str) else text


def test_there_are_as_many_kinds_of_refusals_as_of_patches() -> None:
    refused = {code for case in CASES for code, _symbol in case.refused}
    assert len(refused) >= 13
    assert sum(bool(case.refused) for case in CASES) >= sum(not case.refused for case in CASES) - 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_edit_is_patched_or_refused(case: Case, tmp_path: Path) -> None:
    link = [flag for flag in case.flags if flag in ("-flto", "--coverage")]
    program = build_sources(tmp_path, {"main.c": MAIN, **files(case.old)}, *case.flags, link=link)
    with running(program) as process:
        write_sources(tmp_path, files(case.new))
        write_database(tmp_path, *case.flags)
        if not case.refused:
            outcome = plan_for(process)
            assert outcome.plan is not None
            assert outcome.plan.replacements
            return
        with pytest.raises(Refused) as caught:
            plan_for(process)
    refusals = caught.value.refusals
    assert {(refusal.code, refusal.symbol or "") for refusal in refusals} == case.refused, refusals
    for refusal in refusals:
        assert refusal.file is not None
        assert refusal.fact
        assert refusal.advice.endswith(".")
