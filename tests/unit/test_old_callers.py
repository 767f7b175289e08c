"""Which old code must not be under way when what it calls is replaced."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import pairs

from ipbp.arch.x86_64_clobbers import EVERYTHING, changed_registers
from ipbp.graph.unit import UNBOUND
from ipbp.host.old_callers import places_of
from ipbp.host.safepoint import Stack
from ipbp.stages.old_callers import ARGUMENTS, NO_CALLEES, REGISTERS, SIGNATURE, THROWS, Callees, old_callers
from ipbp.stages.select import OldSide

LOOP = """
int more(void);
int loop(int n) { int sum = 0; while (more()) sum = sum * 3 + small(sum) * n; return sum; }
int other(int n) { return small(n) + small(n + 1); }
"""
SMALL = "__attribute__((noinline)) %s int small(int x) { return %s; }"


def reasons(
    before: str,
    after: str,
    compiler: str,
    entries: tuple[int, ...] = (),
    callees: Callees = NO_CALLEES,
    level: str = "-O2",
) -> set[tuple[str, str, str, bool]]:
    """(caller, callee, why, on undo) for the first pair of objects."""
    pair = pairs(before, after, compiler, (level,))[0]
    old = pair.old
    address = np.where(old.symbols.block >= 0, 0x1000 * (1 + np.arange(len(old.symbols))), UNBOUND)
    side = OldSide(old, address, np.ones(len(old.blocks), dtype=bool), {})
    place = 0x100000 + 0x1000 * np.arange(len(pair.new.blocks))
    found = old_callers(side, pair.new, pair.comparison, place, entries, "a.c", callees, level != "-O0")
    return {(row.caller, row.callee, row.why, row.on_undo) for row in found}


@pytest.mark.parametrize(
    ("code", "registers", "jumps"),
    [
        ("8d4701c3", {"rax"}, False),  # lea 1(%rdi), %eax; ret
        ("89f9d3e0c3", {"rcx", "rax"}, False),  # mov %edi, %ecx; shl %cl, %eax; ret
        ("53895c24f85bc3", set(), False),  # push %rbx; mov %ebx, -8(%rsp); pop %rbx; ret
        ("f20f58c1c3", {"xmm0"}, False),  # addsd %xmm1, %xmm0; ret
        ("ffe0", set(), True),  # jmp *%rax
    ],
)
def test_registers_that_code_writes_itself(code: str, registers: set[str], jumps: bool) -> None:
    one = {
        "rax": changed_registers(bytes.fromhex("31c0"))[0],
        "rcx": changed_registers(bytes.fromhex("31c9"))[0],
        "xmm0": changed_registers(bytes.fromhex("0f57c0"))[0],
    }
    assert changed_registers(bytes.fromhex(code)) == (sum(one[name] for name in registers), jumps)


@pytest.mark.parametrize("code", ["ffd0", "ff5708", "06"])  # call *%rax; call *8(%rdi); no instruction
def test_what_is_not_known_changes_everything(code: str) -> None:
    assert changed_registers(bytes.fromhex(code)) == (EVERYTHING, False)


def test_gcc_counts_on_the_registers_of_a_global_function_too() -> None:
    few, many = SMALL % ("", "x + 3"), SMALL % ("", "(x * 7 % (x + 2)) ^ (x / 3) ^ (x << (x & 3))")
    found = reasons(few + LOOP, many + LOOP.replace("sum * 3", "sum * 5").replace("n + 1", "n + 2"), "gcc")
    assert ("loop", "small", REGISTERS, False) in found
    assert ("other", "small", REGISTERS, False) in found
    assert not any(on_undo for *_names, on_undo in found), "the old code changes fewer"
    back = reasons(many + LOOP, few + LOOP.replace("sum * 3", "sum * 5"), "gcc")
    assert {row[3] for row in back if row[0] == "loop"} == {True}
    assert reasons(few + LOOP, few.replace("+ 3", "+ 4") + LOOP.replace("sum * 3", "sum * 5"), "gcc") == set()


def test_llvm_changes_how_a_local_function_is_called_and_nothing_else() -> None:
    few, many = SMALL % ("static", "x + 3"), SMALL % ("static", "(x * 7 % (x + 2)) ^ (x / 3)")
    edited = LOOP.replace("sum * 3", "sum * 5")
    found = reasons(few + LOOP, many + edited, "clang-19")
    assert {row[:3] for row in found} == {("loop", "small", ARGUMENTS)}
    assert {row[3] for row in found} == {False, True}
    taken = "int (*kept)(int) = small;"
    assert reasons(few + taken + LOOP, many + taken + edited, "clang-19") == set()
    assert reasons(few.replace("static", "") + LOOP, many.replace("static", "") + edited, "clang-19") == set()


def test_code_of_earlier_patches_counts_though_its_newest_version_stays() -> None:
    few, many = SMALL % ("static", "x + 3"), SMALL % ("static", "x * 7 % (x + 2)")
    assert reasons(few + LOOP, many + LOOP, "clang-19") == set()
    every = tuple(range(0x1000, 0x100000, 0x1000))
    assert ("loop", "small", ARGUMENTS, False) in reasons(few + LOOP, many + LOOP, "clang-19", every)


def test_a_cold_part_is_not_called() -> None:
    text = """
    void rare(int) __attribute__((cold));
    int more(void);
    int parted(int n) {
        int sum = 0;
        while (more()) { if (n == sum) { rare(%s); sum += more(); } sum += n; }
        return sum;
    }
    """
    pair = pairs(text % "n + 1", text % "n * 7", "gcc", ("-O2",))[0]
    names = {pair.old.block_name(block) for block in range(len(pair.old.blocks))}
    assert {"parted", "parted.cold"} <= names

    assert reasons(text % "n + 1", text % "n * 7", "gcc") == set()


@pytest.mark.parametrize(
    ("unwound", "found"),
    [
        ([0x5010, 0x6020], [0x5010, 0x6020]),  # all the way: what else is on the stack is no place to come back to
        ([0x5010], [0x5010, 0x7030, 0x7040]),  # the debugger knows no further
        ([], [0x7030, 0x7040]),
        ([0x9999], [0x9999, 0x7030, 0x7040]),  # not on the stack at all
    ],
)
def test_what_a_debugger_cannot_unwind_may_be_a_place_to_come_back_to(unwound: list[int], found: list[int]) -> None:
    words = [1, 0x5010, 0x7030, 0x7040, 2, 0x6020, 3]
    stack = Stack(7, 0x4000, b"".join(word.to_bytes(8, "little") for word in words))
    assert places_of(stack, unwound, [(0x7001, 0x7100)]) == [0x4000, *found]


def test_who_calls_what_takes_something_else_is_told_whatever_the_level() -> None:
    before = "int f(int x) { return x; } int g(int x) { return f(x) + 1; } int h(int x) { return g(x); }"
    after = "int f(int x, int y) { return x + y; } int g(int x) { return f(x, 2) + 1; } int h(int x) { return g(x); }"
    callees = Callees(frozenset({"f", "g"}), frozenset({"f"}))
    for compiler in ("gcc", "clang-19"):
        found = reasons(before, after, compiler, callees=callees, level="-O0")
        assert found == {("g", "f", SIGNATURE, False), ("g", "f", SIGNATURE, True)}


THROWN = """\
struct Left {{ ~Left(); }};
int more();
volatile int seen;
__attribute__((noinline)) int f(int x){} {{ {} return x + seen; }}
int g(int x) {{ Left left; try {{ while (more()) x += f(x); }} catch (int thrown) {{ return thrown; }} return x; }}
"""


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_who_was_compiled_for_a_function_that_throws_nothing_is_told(compiler: str, level: str) -> None:
    never, now = THROWN.format(" noexcept", ""), THROWN.format("", "if (x == 7) throw 5;")
    callees = Callees(frozenset({"_Z1fi"}))
    assert reasons(never, now, compiler, callees=callees, level=level) == {("_Z1gi", "_Z1fi", THROWS, False)}
    # What could throw before may throw something else, and what throws nothing any more may be called by all.
    other = now.replace("throw 5", "throw 6").replace("x += f(x)", "x -= f(x)")
    assert reasons(now, other, compiler, callees=callees, level=level) == set()
    assert reasons(now, never, compiler, callees=callees, level=level) == {("_Z1gi", "_Z1fi", THROWS, True)}


def test_a_caller_without_handlers_is_told_when_the_new_one_has_them_for_what_is_replaced() -> None:
    before = "int more(); int f(int x) { return x; } int g(int x) { while (more()) x += f(x); return x; }"
    after = (
        "int more(); int f(int x) { if (x == 7) throw 5; return x; }"
        "int g(int x) { try { while (more()) x += f(x); } catch (int thrown) { return thrown; } return x; }"
    )
    told = {("_Z1gi", "_Z1fi", THROWS, False)}
    assert reasons(before, after, "g++", callees=Callees(frozenset({"_Z1fi"})), level="-O0") == told
    assert reasons(before, after, "g++", level="-O0") == set()
