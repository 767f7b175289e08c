"""Where a running call may go on in the new code of its function, and where that is not proved."""

from __future__ import annotations

import pytest
from frame_sides import Version, version

from ipbp.errors import Refusal
from ipbp.stages.frame_remap import Remap, plan_remap

BEFORE = """
struct item { int value; struct item *next; };
int step(int), other(int), total;
int f(struct item *list, int scale) {
    int start = 5;
    start += scale;
    int value = list->value;
    for (int i = 0; i < 3; i++)
        start += step(i);
    total += start;
    return start + value * scale;
}
"""
COMPILERS = ("gcc", "clang-19")


def edited(*pairs: tuple[str, str]) -> str:
    text = BEFORE
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def remapped(
    new: str, place: str, compiler: str = "gcc", flags: tuple[str, ...] = ("-O0",), before: str = BEFORE
) -> tuple[Version, Remap | Refusal]:
    """What becomes of a call that stands at the line with `place`."""
    one, other = version(before, compiler, flags), version(new, compiler, flags)
    return other, plan_remap(one.side, one.at(place), other.side, False, False)


def returned(new: str, call: str, text: str = "", keeps_callee: bool = True) -> tuple[Version, Remap | Refusal]:
    one, other = version(BEFORE), version(new)
    return other, plan_remap(one.side, one.behind_call(call, text), other.side, True, keeps_callee)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_an_edited_line_is_begun_again(compiler: str) -> None:
    new, found = remapped(edited(("= list->value", "= list ? list->value : 7")), "int value =", compiler)
    assert isinstance(found, Remap), found
    assert new.line(found.offset) == "int value = list ? list->value : 7;"
    assert found.offset == new.at("int value =")
    assert new.source.splitlines()[found.line - 1].strip() == new.line(found.offset)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("place", ["start += scale", "total += start", "return start"])
def test_a_line_that_is_as_it_was_goes_on_where_it_is_now(compiler: str, place: str) -> None:
    new, found = remapped(edited(("int start = 5;", "\n\n    int start = 50;")), place, compiler)
    assert isinstance(found, Remap), found
    assert found.offset == new.at(place)


def test_in_the_middle_of_a_line_that_is_as_it_was() -> None:
    one, new = version(BEFORE), version(edited(("int start = 5;", "int start = 50;")))
    middle = one.side.words[[offset for offset, _ in one.side.words].index(one.at("int value =")) + 1][0]
    found = plan_remap(one.side, middle, new.side, False, False)
    assert isinstance(found, Remap), found
    assert found.offset - new.at("int value =") == middle - one.at("int value =")


def test_a_crash_in_the_middle_of_an_edited_line_begins_the_line_again() -> None:
    one, new = version(BEFORE), version(edited(("= list->value", "= list ? list->value : 7")))
    middle = one.side.words[[offset for offset, _ in one.side.words].index(one.at("int value =")) + 1][0]
    found = plan_remap(one.side, middle, new.side, False, False)
    assert isinstance(found, Remap), found
    assert found.offset == new.at("int value =")


def test_a_line_that_has_called_something_is_not_begun_again() -> None:
    before = edited(("int value = list->value;", "int value = step(1) + list->value;"))
    one = version(before)
    new = version(before.replace("list->value", "(list ? list->value : 7)"))
    found = plan_remap(one.side, one.behind_call("step"), new.side, False, False)
    assert isinstance(found, Refusal)
    assert found.code == "frame-place-changed"


def test_a_call_that_is_under_way_comes_back_behind_its_counterpart() -> None:
    new, found = returned(edited(("total += start;", "total += 2 * start;")), "step")
    assert isinstance(found, Remap), found
    assert found.offset == new.behind_call("step")
    assert not found.moves_stack


def test_a_call_whose_line_was_edited_comes_back_behind_the_one_that_calls_the_same() -> None:
    new, found = returned(edited(("step(i);", "step(i + 1);")), "step")
    assert isinstance(found, Remap), found
    assert found.offset == new.behind_call("step")


def test_a_call_that_is_not_there_any_more_has_no_counterpart() -> None:
    _, found = returned(edited(("step(i);", "other(i);")), "step")
    assert isinstance(found, Refusal)
    assert found.code == "frame-place-changed"


def test_a_call_that_is_dropped_is_made_again() -> None:
    new, found = returned(edited(("step(i);", "step(i + 1);")), "step", keeps_callee=False)
    assert isinstance(found, Remap), found
    assert found.offset == new.at("start += step")


@pytest.mark.parametrize(
    "edit",
    [
        ("int start = 5;", "int more = 1, start = 5;"),
        ("int start = 5;", "int room[20] = {scale}, start = room[1];"),
    ],
)
def test_a_variable_that_has_another_place_is_moved(edit: tuple[str, str]) -> None:
    new, found = remapped(edited(edit), "total += start")
    assert isinstance(found, Remap), found
    places = {
        name: (old.place, fresh.place, fresh.size)
        for name in ("start", "value", "list", "scale")
        for old in version(BEFORE).side.function.variables
        for fresh in new.side.function.variables
        if old.name == fresh.name == name and old.place != fresh.place
    }
    assert places, "this edit moves something"
    assert set(found.copies) <= set(places.values())
    assert places.get("start", found.copies[0]) in found.copies


def test_a_variable_of_another_type_is_refused() -> None:
    _, found = remapped(edited(("int start = 5;", "long start = 5;")), "total += start")
    assert isinstance(found, Refusal)
    assert found.code == "frame-layout-changed"


def test_a_variable_whose_address_somebody_may_have_is_not_moved() -> None:
    before = edited(("    total += start;", "    keep(&start), total += start;"))
    before = before.replace("int step(int)", "void keep(int *);\nint step(int)")
    after = before.replace("int start = 5;", "int room[20] = {scale}, start = room[1];")
    _, found = remapped(after, "return start", before=before)
    assert isinstance(found, Refusal)
    assert found.code == "frame-layout-changed"
    assert "'start'" in found.fact


def test_a_new_variable_that_gets_its_value_first_is_no_obstacle() -> None:
    # It takes the place that was free.
    _, found = remapped(
        edited(("    total += start;", "    { int twice = 2 * start; total += twice; }")), "total += start"
    )
    assert isinstance(found, Remap), found


def test_a_new_variable_without_a_value_is_refused() -> None:
    late = "    { int late = 1;\n    step(late);\n    total += late; }"
    before = BEFORE.replace("    total += start;", late)
    after = before.replace("late = 1;", "late = 1, extra = 5;").replace("+= late", "+= late + extra")
    # clang gives variables their places in their order, so that a new last one moves none.
    one, other = version(before, "clang-19"), version(after, "clang-19")
    found = plan_remap(one.side, one.at("total += late"), other.side, False, False)
    assert isinstance(found, Refusal)
    assert found.code == "frame-layout-changed"
    assert "'extra'" in found.fact
    # Behind a call that is under way the stack pointer stays where it is, which the new code counts on as well.
    one, other = version(before), version(after)
    found = plan_remap(one.side, one.behind_call("step", "step(late)"), other.side, True, True)
    assert isinstance(found, Refusal)
    assert "`finish`" in found.advice


def test_what_a_line_has_set_before_it_is_begun_again_may_not_be_read_by_it() -> None:
    before = BEFORE.replace("    total += start;", "    start++, total += *&list->value;")
    one, new = version(before), version(before.replace("*&list->value", "list ? list->value : 1"))
    inside = next(offset for offset, word in one.side.words if offset > one.at("start++") and "list" in word)
    found = plan_remap(one.side, inside, new.side, False, False)
    assert isinstance(found, Refusal)
    assert "done twice" in found.fact


def test_one_of_several_lines_that_are_alike_is_not_guessed() -> None:
    before = edited(("    total += start;", "    total += start;\n    total += start;"))
    _, found = remapped(BEFORE, "total += start", before=before)
    assert isinstance(found, Refusal) or found.offset == version(BEFORE).at("total += start")


@pytest.mark.parametrize("compiler", COMPILERS)
def test_optimised_code_goes_on_where_the_same_code_has_set_its_registers(compiler: str) -> None:
    one = version(BEFORE, compiler, ("-O2",))
    new = version(edited(("total += start;", "total += 2 * start;")), compiler, ("-O2",))
    assert isinstance(plan_remap(one.side, one.behind_call("step"), new.side, True, True), Remap)
    new = version(edited(("start += scale;", "start += 2 * scale;")), compiler, ("-O2",))
    found = plan_remap(one.side, one.behind_call("step"), new.side, True, True)
    assert isinstance(found, Refusal), found


def test_a_stack_pointer_that_moves_by_a_number_of_the_program_is_refused() -> None:
    before = edited(("int start = 5;", "int room[scale], start = 5;"), ("start += scale;", "start += scale + room[0];"))
    one, new = version(before), version(before.replace("total += start", "total += 3 * start"))
    found = plan_remap(one.side, one.at("total +="), new.side, False, False)
    assert isinstance(found, Refusal)


def test_a_frame_of_another_size_is_told_by_the_innermost_frame_only() -> None:
    leaf = BEFORE.replace("step(i)", "i")
    one, new = version(leaf), version(leaf.replace("total += start;", "total += step(start);"))
    found = plan_remap(one.side, one.at("int value ="), new.side, False, False)
    assert isinstance(found, Remap), found
    assert found.moves_stack
    assert found.depth > 16


METHOD = """
int step(int);
struct S { int value; int get(int *pointer) __asm__("f"); };
int S::get(int *pointer) {
    int first = 5;
    first += *pointer;
    if (first > 3)
        value = first;
    return first + value;
}
"""


AFTER = METHOD.replace("+= *pointer", "+= pointer ? *pointer + step(1) + step(2) : step(3)")


def test_a_copy_of_an_argument_without_a_name_is_made_for_the_new_code() -> None:
    new, found = remapped(AFTER, "first +=", "clang-19", ("-O0", "-xc++"), METHOD)
    assert isinstance(found, Remap), found
    this = next(row for row in new.side.function.variables if row.name == "this")
    assert [(old, size) for old, _, size in found.copies] == [(this.place, 8)]


def test_no_copy_is_put_where_something_is_whose_address_is_known() -> None:
    before = METHOD.replace("    return first", "    int more[2];\n    step((int)(long)more);\n    return first")
    _, found = remapped(AFTER, "first +=", "clang-19", ("-O0", "-xc++"), before)
    assert isinstance(found, Refusal)
    assert "without a name" in found.fact


LOOP = """
struct big { long one, two, three; };
struct big make(int);
int step(int);
void use(long);
int f(int n) {
    for (;;) {
        n += step(n);
        use(make(n).two);
    }
}
"""
FIRST_IN_LOOP = LOOP.replace(
    "        n += step(n);\n        use(make(n).two);\n", "        use(make(n).two);\n        n += step(n);\n"
)
IN_ONE = LOOP.replace(
    "        n += step(n);\n        use(make(n).two);\n", "        use(make(n).two + step(n) + make(n).one);\n"
)


def looped(before: str, flags: tuple[str, ...] = ("-O0",)) -> Remap | Refusal:
    """What becomes of a call of `step` when what is made of `make`, in a place without a name, was edited."""
    assert before.count(".two") == 1
    one, other = version(before, flags=flags), version(before.replace(".two", ".three"), flags=flags)
    return plan_remap(one.side, one.behind_call("step"), other.side, True, True)


def test_what_an_expression_keeps_that_has_not_begun_may_have_been_edited() -> None:
    assert isinstance(looped(LOOP), Remap)


@pytest.mark.parametrize("before", [FIRST_IN_LOOP, IN_ONE], ids=["behind it", "in one with the call"])
def test_what_an_expression_keeps_may_not_when_its_code_was_run_before(before: str) -> None:
    found = looped(before)
    assert isinstance(found, Refusal)
    assert found.code == "frame-layout-changed"


KEPT = """
struct kept { long two, three; kept(int); ~kept(); };
int step(int);
void f(int n) __asm__("f");
void f(int n) {
    for (;;) {
        const kept &one = kept(n * 2);
        n += step(n);
        step(n);
    }
}
"""


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_lives_as_long_as_a_reference_to_it_was_begun_before(compiler: str) -> None:
    flags = ("-O0", "-xc++")
    one, other = version(KEPT, compiler, flags), version(KEPT.replace("n * 2", "n * 3 + 1"), compiler, flags)
    found = plan_remap(one.side, one.behind_call("step"), other.side, True, True)
    assert isinstance(found, Refusal)


REFERS = """
struct big { long one, two, three; };
int step(int), take(const big &);
int f(int n) __asm__("f");
int f(int n) {
    const int &kept = n * 2;
    n += 1;
    step(n);
    return kept + n;
}
"""
PASSES = REFERS.replace("const int &kept = n * 2", "const int kept = take(big{n, 2, 3})")


def grown(before: str, compiler: str) -> Remap | Refusal:
    """What becomes of a call when the next line but one gets a variable of its own."""
    flags = ("-O0", "-xc++")
    one = version(before, compiler, flags)
    other = version(before.replace("    step(n)", "    char more = n;\n    step(more)"), compiler, flags)
    return plan_remap(one.side, one.at("n += 1"), other.side, False, False)


def test_what_a_reference_leads_to_stays_its_own() -> None:
    found = grown(REFERS, "gcc")  # which puts the new variable there
    assert isinstance(found, Refusal)
    assert "refers to something" in found.fact
    assert isinstance(grown(REFERS, "clang-19"), Remap)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_was_passed_by_reference_only_may_be_overwritten(compiler: str) -> None:
    assert isinstance(grown(PASSES, compiler), Remap)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_optimised_code_may_keep_variables_without_a_name(compiler: str) -> None:
    assert version(LOOP, compiler).side.function.keeps_variables
    assert not version(LOOP, compiler, ("-O2",)).side.function.keeps_variables
