"""An edit is found where it was made and nowhere else, whatever the compiler, the level and the layout."""

from __future__ import annotations

import pytest
from objects_from_c import COMPILERS, VARIANT_NAMES, VARIANTS, Pair, graph_of, pairs

from ipbp.stages.compare import Status, compare
from ipbp.stages.correlate import correlate

PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#define KEEP __attribute__((noinline))
int outside(int);
static int total, other;
static char small = 1, flag;
static double rates[4] = {1, 2, 3, 4};
KEEP static int helper(int x) { static int count; count++; flag = 3; if (small == 5) total = 7; return x * 3 + count; }
KEEP double scale(double x) { return x * 3.25 + 1.5; }
KEEP static void hello(void) { puts("hello"); }
KEEP int choose(int x)
{
    switch (x) {
    case 0: return outside(3);
    case 1: puts("one"); break;
    case 2: return helper(x);
    case 3: return 77;
    case 4: puts("four"); break;
    case 5: return outside(x) + 2;
    case 6: puts("six");
    }
    return 0;
}
KEEP int tail(int x) { if (x > 3) return helper(x + 1); hello(); return choose(x * x); }
KEEP int visit(int (*each)(int), int n) { int s = 0; for (int i = 0; i < n; i++) s += each(i) * i; return s; }
int main(int argc, char **argv)
{
    rates[argc] += 1.5;
    printf("%s %d\n", argv[0], helper(argc) + visit(helper, argc));
    other++; total += other; small++;
    return tail(argc) + (int)scale(rates[argc]) + memcmp(argv, "x", 1);
}
"""

variants = pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)


def edited(old: str, new: str) -> str:
    assert PROGRAM.count(old) == 1
    return PROGRAM.replace(old, new)


@variants
def test_the_same_source_has_no_difference_in_any_layout(compiler: str, flags: tuple[str, ...]) -> None:
    for pair in pairs(PROGRAM, PROGRAM, compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == set()
        assert pair.removed == set()
        assert pair.comparison.refusals == ()


@variants
@pytest.mark.parametrize(
    ("before", "after", "function"),
    [
        ("return x * 3 + count;", "return x * 5 + count + 1;", "helper"),
        ("x * 3.25 + 1.5", "x * 3.75 + 1.5", "scale"),
        ('puts("hello")', 'puts("good morning")', "hello"),
        ("case 3: return 77;", "case 3: return 78;", "choose"),
        ("case 3: return 77;", "case 3: return 77; case 7: return outside(9);", "choose"),
        ("return helper(x + 1);", "return helper(x + 2);", "tail"),
        ("s += each(i) * i", "s += each(i) * (i + 1)", "visit"),
        ("other++;", "other += 2;", "main"),
    ],
)
def test_a_one_line_edit_changes_exactly_the_edited_function(
    compiler: str, flags: tuple[str, ...], before: str, after: str, function: str
) -> None:
    for pair in pairs(PROGRAM, edited(before, after), compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == {function}
        assert pair.removed == set()
        assert pair.comparison.refusals == ()


@variants
def test_moved_lines_change_nothing_with_debug_information(compiler: str, flags: tuple[str, ...]) -> None:
    for pair in pairs(PROGRAM, "\n\n\n/* moved */\n" + PROGRAM, compiler, (*flags, "-g")):
        assert pair.named(Status.CHANGED, Status.NEW) == set()


@variants
def test_reordered_functions_change_nothing(compiler: str, flags: tuple[str, ...]) -> None:
    scale = next(line for line in PROGRAM.splitlines() if "double scale" in line)
    moved = PROGRAM.replace(scale, "").replace("int main(", scale + "\nint main(")
    for pair in pairs(PROGRAM, moved, compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == set()


@variants
def test_a_new_static_and_a_new_function_are_new(compiler: str, flags: tuple[str, ...]) -> None:
    source = edited(
        "KEEP static void hello", "static int fresh; KEEP int added(void) { return ++fresh; }\nKEEP static void hello"
    )
    source = source.replace("int s = 0;", "int s = added();")
    for pair in pairs(PROGRAM, source, compiler, flags):
        assert pair.named(Status.NEW) == {"added", "fresh"}
        assert pair.named(Status.CHANGED) == {"visit"}


@variants
def test_a_removed_function_is_told(compiler: str, flags: tuple[str, ...]) -> None:
    source = edited(" hello(); return choose", " return choose")
    line = next(line for line in source.splitlines() if "void hello" in line)
    for pair in pairs(PROGRAM, source.replace(line, ""), compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == {"tail"}
        assert pair.removed == {"hello"}


@variants
def test_an_edit_inside_an_inlined_function_changes_its_callers(compiler: str, flags: tuple[str, ...]) -> None:
    source = "static inline __attribute__((always_inline)) int twice(int x) { return x * 2; }\n" + PROGRAM.replace(
        "return x * 3 + count;", "return twice(x) + count;"
    )
    for pair in pairs(source, source.replace("x * 2", "x * 7"), compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == {"helper"}


@variants
def test_another_initial_value_is_noted_and_changes_no_function(compiler: str, flags: tuple[str, ...]) -> None:
    for pair in pairs(PROGRAM, edited("small = 1", "small = 2"), compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == {"small"}
        assert "'small'" in pair.comparison.notes[0]
        assert pair.comparison.refusals == ()


@variants
def test_a_variable_that_becomes_zero_is_only_another_initial_value(compiler: str, flags: tuple[str, ...]) -> None:
    for pair in pairs(PROGRAM, edited("small = 1", "small = 0"), compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == {"small"}
        assert pair.comparison.refusals == ()


@variants
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("int shared[4] = {1};", "int shared[5] = {1};", "data-size-changed"),
        ("int shared[4];", "int shared[8];", "data-size-changed"),
        ("int shared[4];", "__thread int shared[4];", "data-kind-changed"),
        ("int shared[4] = {1};", "const int shared[4] = {1};", "data-kind-changed"),
        ("__thread int shared[4];", "__thread int shared[6];", "data-size-changed"),
        ("int shared[4]; int second;", "char shared[4]; long second;", "data-size-changed"),
    ],
)
def test_another_size_or_kind_of_a_variable_is_refused(
    compiler: str, flags: tuple[str, ...], old: str, new: str, code: str
) -> None:
    use = "int use(int i) { return shared[i]; }"
    for pair in pairs(f"{old}\n{use}", f"{new}\n{use}", compiler, flags):
        assert pair.codes == {code}
        assert "shared" in {refusal.symbol for refusal in pair.comparison.refusals}


def test_every_refusal_is_reported_together() -> None:
    for compiler in COMPILERS:
        pair = Pair(
            graph_of("int a[2]; int b; int c;", compiler, ()),
            graph_of("int a[3]; long b; _Thread_local int c;", compiler, ()),
        )
        assert {refusal.symbol for refusal in pair.comparison.refusals} == {"a", "b", "c"}


@variants
def test_a_changed_constant_table_changes_the_functions_that_use_it(compiler: str, flags: tuple[str, ...]) -> None:
    source = """
    static const char *const words[] = {"a", "b", "c", "d", "e"};
    const int limits[5] = {1, 2, 3, 4, 5};
    int unrelated(int x) { return x + 1; }
    const char *word(int i) { return words[i]; }
    int limit(int i) { return limits[i]; }
    """
    for pair in pairs(source, source.replace('"c"', '"see"'), compiler, flags):
        assert "word" in pair.named(Status.CHANGED, Status.NEW)
        assert pair.named(Status.CHANGED, Status.NEW) <= {"word", "words", "words.rel"}
    for pair in pairs(source, source.replace("3, 4", "3, 9"), compiler, flags):
        assert pair.named(Status.CHANGED, Status.NEW) == {"limit", "limits"}


COLD = """
int report(const char *) __attribute__((cold));
int work(int);
int f(int x) { if (__builtin_expect(x < 0, 0)) { report("a"); work(1); report("b"); } return work(x) + 1; }
int g(int x) { if (__builtin_expect(x < 5, 0)) { report("c"); work(2); report("d"); } return work(x) + 2; }
"""


@pytest.mark.parametrize(
    ("old", "new"), [('report("b")', 'report("bb")'), ("work(x) + 1", "work(x) + 11"), ("work(1)", "work(10)")]
)
def test_a_function_and_its_cold_part_change_together(old: str, new: str) -> None:
    for pair in pairs(COLD, COLD.replace(old, new), "gcc", ("-O2", "-fPIE")):
        assert "f.cold" in pair.new.symbols.name
        assert pair.named(Status.CHANGED, Status.NEW) == {"f", "f.cold"}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_constant_of_a_cold_part_alone_changes_its_function(compiler: str) -> None:
    source = """
    int report(const char *, int) __attribute__((cold));
    static const int limits[5] = {1, 2, 3, 4, 5};
    int unrelated(int x) { return x + 1; }
    int f(int x) { if (__builtin_expect(x < 0, 0)) { report("a", limits[x & 3]); report("b", x); } return x * 3; }
    """
    for pair in pairs(source, source.replace("3, 4", "3, 9"), compiler, ("-O2", "-fPIE")):
        assert pair.named(Status.CHANGED, Status.NEW) - {"f.cold"} == {"f", "limits"}


def test_short_and_long_tail_calls_are_the_same_code_also_with_a_switch_behind() -> None:
    source = """
    __attribute__((noinline)) static int last(int x) { static volatile int n; return n += x; }
    int go(int x, int y) {
        switch (x) { case 0: return last(y); case 1: y += 3; break; case 2: return last(y + 9); case 3: y *= 7; break;
                     case 4: y -= 11; break; case 5: return last(y ^ 5); case 6: y = -y; break; }
        for (int i = 0; i < y; i++) y ^= last(i);
        return last(y);
    }
    """
    for compiler in COMPILERS:
        for position in ("-fPIE", "-fno-pie"):
            for pair in pairs(source, source, compiler, ("-O2", position)):
                assert pair.named(Status.CHANGED, Status.NEW) == set()
            for pair in pairs(source, source.replace("y + 9", "y + 8"), compiler, ("-O2", position)):
                assert pair.named(Status.CHANGED, Status.NEW) == {"go"}


def test_reasons_are_said_in_words() -> None:
    flags = ("-O0", "-fPIE")
    pair = Pair(
        graph_of("void f(void); void g(void); void u(void) { f(); }", "gcc", flags),
        graph_of("void f(void); void g(void); void u(void) { g(); }", "gcc", flags),
    )
    assert list(pair.comparison.reason.values()) == ["now calls g instead of f"]
    texts = [graph_of(f'int puts(char *); void u(void) {{ puts("{text}"); }}', "gcc", flags) for text in ("on", "off")]
    assert 'a string constant differs: "on" -> "off"' in Pair(*texts).comparison.reason.values()
    sizes = [graph_of(f"int u(int x) {{ return x{more}; }}", "gcc", flags) for more in ("", " * 12345")]
    assert "size 9 -> 15" not in Pair(*sizes).comparison.reason.values()
    assert any(", size " in words for words in Pair(*sizes).comparison.reason.values())


def test_another_compiler_is_noted() -> None:
    source = "int f(int x) { return x; }"
    pair = Pair(graph_of(source, "gcc", ("-O2",)), graph_of(source, "clang-19", ("-O2",)))
    assert any("another compiler" in note for note in pair.comparison.notes)


def test_comparing_does_not_need_a_debug_section_and_repeats_itself() -> None:
    old, new = (graph_of(PROGRAM.replace("77", number), "gcc", ("-O2",)) for number in ("77", "79"))
    first, second = (compare(old, new, correlate(old, new)) for _ in range(2))
    assert dict(first.reason) == dict(second.reason)
    assert not [side for side in new.side if side.name.startswith(".debug")]


@pytest.mark.parametrize("linkage", ["", "__attribute__((used)) static "])
def test_a_variable_that_the_compiler_split_is_refused_when_it_is_whole_now(linkage: str) -> None:
    source = """
    struct pair { int left, right; };
    %sstruct pair both = {1, 2};
    void set(int x) { both.left = x; both.right += x; }
    int get(void) { return both.left * both.right; }
    """
    flags = ("-O2", "-fPIE")
    old = graph_of(source % "static ", "clang-19", flags)
    assert "both.0" in old.symbols.name
    assert Pair(old, graph_of(source % linkage, "clang-19", flags)).codes == {"variable-split"}
    assert Pair(old, old).codes == set()
