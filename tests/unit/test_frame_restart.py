"""When a call can begin again with the arguments that it was given."""

from __future__ import annotations

import pytest
from frame_sides import Version, version

from ipbp.errors import Refusal
from ipbp.stages.frame_restart import Restart, plan_restart

COMPILERS = ("gcc", "clang-19")
BEFORE = """
int step(int), total;
void keep(int *);
int f(int *list, int scale, const char *what) {
    int start = scale;
    start += step(*what);
    total += start;
    return start + *list;
}
"""


def restarted(
    one: Version, offset: int, other: Version, is_innermost: bool = True, takes_current: bool = False
) -> Restart | Refusal:
    old, new = one.side, other.side
    return plan_restart(old.function, old.rows, offset, new.function, new.rows, is_innermost, takes_current)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_arguments_are_taken_from_where_unoptimised_code_has_put_them(compiler: str) -> None:
    one = version(BEFORE, compiler)
    new = version(BEFORE.replace("+ *list", "- *list"), compiler)
    found = restarted(one, one.at("total +="), new)
    assert isinstance(found, Restart), found
    places = {row.name: (row.place, row.size) for row in one.side.function.parameters}
    assert {name: rows for name, *rows in found.arguments} == {
        "rdi": [*places["list"]],
        "rsi": [*places["scale"]],
        "rdx": [*places["what"]],
    }


def test_registers_that_still_hold_them_are_left_as_they_are() -> None:
    source = BEFORE.replace("step(*what)", "*what")
    one = version(source)
    found = restarted(one, one.at("start +="), version(source.replace("= scale", "= 2 * scale")))
    assert isinstance(found, Restart), found
    assert found.arguments == ()


def test_of_an_outer_frame_no_register_is_trusted() -> None:
    source = BEFORE.replace("step(*what)", "step(3)")
    one = version(source)
    found = restarted(one, one.behind_call("step"), version(source.replace("3", "4")), is_innermost=False)
    assert isinstance(found, Restart), found
    assert [name for name, *_ in found.arguments] == ["rdi", "rdx", "rsi"]


@pytest.mark.parametrize("change", ["scale += 1;", "keep(&scale);", "for (; scale < 4; scale++) step(0);"])
def test_an_argument_that_may_have_been_assigned_to_is_refused_unless_that_is_wanted(change: str) -> None:
    source = BEFORE.replace("total += start;", f"{change} total += start + step(2);\n    total++;")
    one, new = version(source), version(source.replace("+ *list", "- *list"))
    found = restarted(one, one.at("total++"), new)
    assert isinstance(found, Refusal)
    assert found.code == "frame-argument-gone"
    assert "'scale'" in found.fact
    assert "--current-arguments" in found.advice
    assert isinstance(restarted(one, one.at("total++"), new, takes_current=True), Restart)
    # Before the assignment it is as it was.
    assert isinstance(restarted(one, one.at("int start"), new), Restart)


def test_what_the_function_keeps_for_its_caller_is_put_back() -> None:
    source = BEFORE.replace("step(*what)", "step(1) * step(2) * step(3)")
    one = version(source)
    found = restarted(one, one.at("total +="), version(source.replace("3", "4")))
    assert isinstance(found, Restart), found
    assert {3, 6, 16} <= found.unwind.saved.keys()  # rbx, rbp and where it returns to


def test_an_argument_on_the_stack_is_where_the_caller_left_it() -> None:
    many = BEFORE.replace("const char *what", "const char *what, int a, int b, int c, int last").replace(
        "+ *list", "+ last"
    )
    one, new = version(many), version(many.replace("+ last", "- last"))
    assert isinstance(restarted(one, one.at("total +="), new), Restart)
    changed = many.replace("total += start;", "last++; total += start;\n    total++;")
    one = version(changed)
    found = restarted(one, one.at("total++"), new)
    assert isinstance(found, Refusal)
    assert "'last'" in found.fact


@pytest.mark.parametrize("compiler", COMPILERS)
def test_floating_point_arguments_come_from_the_frame_as_well(compiler: str) -> None:
    source = (
        "double g(void); double f(double weight, float share) {\n double one = g();\n return weight / share * one;\n}"
    )
    one, new = version(source, compiler), version(source.replace("/", "*"), compiler)
    found = restarted(one, one.at("return"), new)
    assert isinstance(found, Restart), found
    assert [(name, size) for name, _, size in found.arguments] == [("xmm0", 8), ("xmm1", 4)]


def test_a_function_that_takes_something_else_now_is_refused() -> None:
    one, new = version(BEFORE), version(BEFORE.replace("int scale", "long scale"))
    found = restarted(one, one.at("total +="), new)
    assert isinstance(found, Refusal)
    assert found.code == "frame-layout-changed"


def test_a_variadic_function_is_refused() -> None:
    source = (
        "int g(int *); int f(int n, ...) {\n int one = g(&n);\n __builtin_va_list l;\n __builtin_va_start(l, n);\n"
        " return one + __builtin_va_arg(l, int);\n}"
    )
    one = version(source)
    found = restarted(one, one.at("return"), version(source.replace("one +", "one -")))
    assert isinstance(found, Refusal)
    assert found.code == "frame-argument-gone"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_optimised_code_begins_again_while_its_arguments_are_in_their_registers(compiler: str) -> None:
    source = (
        "int step(int);\nint f(int *list, int scale) {\n if (scale > 2)\n  scale = step(scale);\n"
        " return *list + scale;\n}"
    )
    one = version(source, compiler, ("-O2",))
    new = version(source.replace("> 2", "> 3"), compiler, ("-O2",))
    assert isinstance(restarted(one, 0, new), Restart)
    found = restarted(one, one.behind_call("step"), new, is_innermost=False)
    assert isinstance(found, Refusal)
    assert found.code == "frame-argument-gone"
