"""An edit of a Mach-O or COFF program becomes the same machine code in memory that a fresh build would run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_formats import TARGETS, Emulated, compiled, graph_of, linked, loaded

from ipbp.cli.diff import diff
from ipbp.graph.model import BlockKind
from ipbp.stages.compare import Status, compare
from ipbp.stages.correlate import correlate

SOURCE = """
extern int helper(int); extern int shared;
static int calls; static int limits[4] = {1, 2, 3, 4}; const char *const names[] = {"red", "green", "blue"};
static int seen[8]; int zeroed; double ratio = 2.5;
__attribute__((noinline)) static int twice(int x) { static int inner; inner++; return 2 * x + inner; }
__attribute__((noinline)) int untouched(int x) { return x + limits[x & 3]; }
int (*const table[])(int) = {twice, untouched, helper};
__attribute__((weak)) int weakly(int x) { return x + 1; }
__attribute__((noinline)) int pick(int x) {
  switch (x) { case 0: return helper(1); case 1: zeroed = 3; break; case 2: return twice(x); case 3: return 99;
  case 4: shared = 1000; break; case 5: shared += 7; break; case 6: return table[x & 1](4); } return names[x & 1][0];
}
__attribute__((noinline)) int work(int x) { calls++; seen[x & 7] = x; return WORK; }
int count(void) { return calls; }
int start(int x) { return work(x) + pick(x) + untouched(x) + weakly(x) + (int)(ratio * x); }
"""
OTHER = "int shared = 5; int helper(int x) { return x * 3; } int _fltused;"
BEFORE = "twice(x) + limits[1]"
AFTER = "twice(x) * 1000 + limits[2] + helper(x) + shared + names[2][1] + table[1](x) + (int)(ratio * 4.0 + 0.125)"
targets = pytest.mark.parametrize("kind", TARGETS)
levels = pytest.mark.parametrize("level", ["-O0", "-O2"])


@pytest.mark.parametrize("bias", [0, 0x1234_0000], ids=["where it is linked for", "elsewhere"])
@levels
@targets
def test_new_code_runs_and_state_stays(kind: str, level: str, bias: int, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    objects = [
        compiled(tmp_path, clang, target, SOURCE, level, f"-DWORK={work}", name=name)
        for name, work in (("old.c", BEFORE), ("new.c", AFTER))
    ]
    other = compiled(tmp_path, clang, target, OTHER, level, name="other.c")
    linked(target, [objects[0], other], tmp_path / "program", "start")
    program, is_msvc = Emulated(loaded(target, tmp_path / "program", bias)), not target.is_macho
    assert program.call("work", 10, is_msvc=is_msvc) == 2 * 10 + 1 + 2
    assert program.call("count", is_msvc=is_msvc) == 1

    old, new = map(graph_of, objects)
    patch = program.patch(old, new)
    assert patch.codes == set()
    assert {row.name for row in patch.replacements} == {"work"}
    program.apply(patch)

    expected = (2 * 10 + 2) * 1000 + 3 + 30 + 5 + ord("l") + (10 + 3) + 10
    assert program.call("work", 10, is_msvc=is_msvc) == expected
    assert program.call("count", is_msvc=is_msvc) == 2
    assert program.call("untouched", 2, is_msvc=is_msvc) == 5
    assert program.call("pick", 5, is_msvc=is_msvc) == ord("g")
    assert program.number("shared") == 12

    again = program.patch(
        old, graph_of(compiled(tmp_path, clang, target, SOURCE, level, "-DWORK=-calls", name="third.c"))
    )
    program.apply(again)
    assert program.call("work", 3, is_msvc=is_msvc) == -3


@levels
@targets
def test_an_object_is_not_different_from_itself(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    objects = [
        compiled(tmp_path, clang, target, SOURCE, level, f"-DWORK={BEFORE}", *sections, name=f"{number}.c")
        for number, sections in enumerate(((), ("-ffunction-sections", "-fdata-sections")))
    ]
    other = compiled(tmp_path, clang, target, OTHER, level, name="other.c")
    program = Emulated(linked(target, [objects[0], other], tmp_path / "program", "start"))
    for path in objects if target.is_macho else objects[:1]:
        patch = program.patch(graph_of(objects[0]), graph_of(path))
        assert set(patch.comparison.reason.values()) == set()
        assert patch.replacements == ()


@targets
def test_diff_says_what_changed(kind: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    old, new = (
        compiled(tmp_path, clang, target, SOURCE, "-O1", f"-DWORK={work}", name=name)
        for name, work in (("old.c", BEFORE), ("new.c", AFTER))
    )
    assert [(row.name, row.status) for row in diff(old, new).functions] == [("work", "changed")]
    assert diff(old, old).functions == ()


CLASSES = """
struct Base {{ int x; Base(int a) : x(a) {{}} virtual int value(int); virtual int other(int a) {{ return a - x; }} }};
struct Derived : Base {{ Derived(int a) : Base(a) {{}} int value(int) override; }};
{more}
int Base::value(int a) {{ return a + x; }}
int Derived::value(int a) {{ return {value}; }}
template <typename T> T kept(T a) {{ static T sum; return sum += a; }}
Derived one(5); Base &known = one;
extern "C" int start(int a) {{ return known.value(a) * 100 + known.other(a) + kept(a); }}
"""
NEW_CLASS = (
    "struct Third : Base { Third() : Base(7) {} int value(int a) override { return kept(a) * 2; } int kept(int); };"
)


@levels
@targets
def test_a_virtual_function_changes_and_uses_a_new_class(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    target, flags = TARGETS[kind], (level, "-fno-exceptions")
    if target.is_macho:
        flags = (*flags, "-fno-use-init-array")
    texts = [
        CLASSES.format(more="", value="a * x"),
        CLASSES.format(
            more=NEW_CLASS + " int Third::kept(int a) { return a + x; }",
            value="Base::value(a) + [&] { Third t; Base *base = &t; return base->value(a) + base->other(1); }()",
        ),
    ]
    objects = [
        compiled(tmp_path, clang, target, text, *flags, name=f"{number}.cc") for number, text in enumerate(texts)
    ]
    names = ("??_7type_info@@6B@", "??3@YAXPEAX_K@Z", "_fltused")
    if target.is_macho:
        names = ("__ZTVN10__cxxabiv117__class_type_infoE", "__ZTVN10__cxxabiv120__si_class_type_infoE", "__ZdlPvm")
    rows = [f'.globl "{name}"\n"{name}": .quad 0, 0, 0, 0' for name in names]
    support = compiled(tmp_path, clang, target, "\n".join([".data", *rows, ""]), name="support.s")
    program = Emulated(linked(target, [objects[0], support], tmp_path / "program", "start"))
    is_msvc = not target.is_macho
    for name in constructors(program):
        program.call(name, is_msvc=is_msvc)
    assert program.call("start", 6, is_msvc=is_msvc) == 6 * 5 * 100 + (6 - 5) + 6
    program.apply(program.patch(*map(graph_of, objects)))
    assert program.call("start", 6, is_msvc=is_msvc) == (6 + 5 + (6 + 7) * 2 + (1 - 7)) * 100 + (6 - 5) + 12


def constructors(program: Emulated) -> list[str]:
    """What runs before main: nothing calls it here."""
    names = ("_GLOBAL__sub_I_", "??__E", "__cxx_global_var_init")
    found = [name for name in program.image.symbols.name if name.startswith(names)]
    return found[-1:] if any(name.startswith("_GLOBAL__sub_I_") for name in found) else found


CASES = " ".join(f"case {n}: total += {7 * n * n + 3}; return helper({n}) + total * {n};" for n in range(24) if n != 7)
SWITCH = f"""
extern int helper(int); int total;
int near(int x) {{ return x * 77; }}
int start(int x) {{ switch (x) {{ {CASES} case 7: total++; return VALUE; }} return 17; }}
int after(int x) {{ return start(x) + near(x); }}
"""


@levels
@targets
def test_a_jump_table_goes_with_its_function(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    """Wherever the compiler puts it: behind the code on x86-64 Mach-O, in a section of constants elsewhere."""
    target = TARGETS[kind]
    objects = [
        compiled(tmp_path, clang, target, SWITCH, level, f"-DVALUE={value}", name=f"{number}.c")
        for number, value in enumerate(("total", "total * 2 + 100"))
    ]
    other = compiled(tmp_path, clang, target, "int helper(int x) { return x + 1; } int _fltused;", name="other.c")
    program, total = Emulated(linked(target, [objects[0], other], tmp_path / "program", "start")), 0
    assert len(graph_of(objects[0]).tables) == (kind == "macho-x86_64")
    for is_new in (False, True):
        if is_new:
            program.apply(program.patch(*map(graph_of, objects)))
        for case in range(26):
            total += 0 if case > 23 else 1 if case == 7 else 7 * case * case + 3
            expected = 17 if case > 23 else case + 1 + total * case
            expected = (total * 2 + 100 if is_new else total) if case == 7 else expected
            assert program.call("start", case, is_msvc=not target.is_macho) == expected, case


@levels
@targets
def test_other_numbers_of_the_same_cases_are_a_change(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    """The code may be the same, and only the table another one."""
    bodies = [f"total ^= {n * n + 1}; return {n * 7919 % 1000};" for n in range(16)]
    graphs = []
    for name, order in (("old.c", range(16)), ("new.c", (0, 9, 2, 3, 4, 5, 6, 7, 8, 1, *range(10, 16)))):
        cases = " ".join(f"case {number}: {body}" for number, body in zip(order, bodies, strict=True))
        text = f"int total; int start(int x) {{ switch (x) {{ {cases} }} return -1; }}"
        graphs.append(graph_of(compiled(tmp_path, clang, TARGETS[kind], text, level, name=name)))
    found = compare(graphs[0], graphs[1], correlate(graphs[0], graphs[1]))
    (block,) = np.flatnonzero(graphs[1].blocks.kind == BlockKind.CODE)
    assert found.status[block] == Status.CHANGED


THREADS = """
_Thread_local int mine = 5; {more}
int start(int x) {{ mine += x; return {value}; }}
"""
BOOTSTRAP = {
    "macho-x86_64": "leaq _storage(%rip), %rax; ret",
    "macho-arm64": "adrp x0, _storage@PAGE; add x0, x0, _storage@PAGEOFF; ret",
}


@levels
@pytest.mark.parametrize("kind", BOOTSTRAP)
def test_code_with_thread_local_variables_of_macho(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    """One that exists is reached through its descriptor, which in this program leads to the same place in all threads;
    one that is new is refused."""
    target = TARGETS[kind]
    code = BOOTSTRAP[kind].replace("; ", "\n")
    text = f".globl _bootstrap\n.p2align 2\n_bootstrap:\n{code}\n.data\n.p2align 3\n_storage: .long 40, 0\n"
    support = compiled(tmp_path, clang, target, text, name="support.s")
    sources = [("", "mine"), ("", "mine * 2"), ("_Thread_local int more = 3;", "mine + more++")]
    objects = [
        compiled(tmp_path, clang, target, THREADS.format(more=more, value=value), level, name=f"{number}.c")
        for number, (more, value) in enumerate(sources)
    ]
    image = linked(target, [objects[0], support], tmp_path / "program", "start", "-undefined", "dynamic_lookup")
    program = Emulated(image)
    # The loader's part: descriptors lead to what finds the variable.
    assert image.imported(program.address("mine")) == "_tlv_bootstrap"
    program.processor.mem_write(program.address("mine"), program.address("bootstrap").to_bytes(8, "little"))
    assert program.call("start", 1) == 41
    assert program.patch(graph_of(objects[0]), graph_of(objects[2])).codes >= {"new-thread-local"}
    program.apply(program.patch(graph_of(objects[0]), graph_of(objects[1])))
    assert program.call("start", 1) == 84


CATCHES = """
struct A { int a; }; struct B { int b; }; void throws(int);
int first(int x) { try { throws(x); } catch (FIRST &) { return 1; } return 0; }
int second(int x) { try { throws(x); } catch (SECOND &) { return 1; } return 0; }
int third(int x) { return x + 1; }
"""


@levels
@targets
def test_a_function_that_catches_something_else_has_changed(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    flags = (level, "-fcxx-exceptions", "-fexceptions")
    graphs = [
        graph_of(compiled(tmp_path, clang, TARGETS[kind], CATCHES, *flags, *caught, name=f"{number}.cc"))
        for number, caught in enumerate((("-DFIRST=A", "-DSECOND=B"), ("-DFIRST=B", "-DSECOND=A")))
    ]
    for old, new, expected in ((0, 1, {"first", "second"}), (0, 0, set[str]())):
        found = compare(graphs[old], graphs[new], correlate(graphs[old], graphs[new]))
        code = np.flatnonzero((found.status != Status.SAME) & (graphs[new].blocks.kind == BlockKind.CODE))
        # With MSVC's ABI a handler is a function of its own.
        names = " ".join(graphs[new].block_name(block) for block in code.tolist())
        assert {name for name in ("first", "second", "third") if name in names} == expected
