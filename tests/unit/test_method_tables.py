"""A table of methods after an edit: what values that exist would call through it."""

from __future__ import annotations

import pytest
from objects_from_rust import compiled, edited

from ipbp.formats.debug_types import types_of_graph
from ipbp.stages.method_tables import TableChanges, slots_of_graph, table_changes
from ipbp.stages.type_changes import TypeChanges, type_changes

SOURCE = """
pub trait Beast {
    fn legs(&self) -> u64;

    fn arms(&self) -> u64;

    fn call(&self, times: usize) -> String {
        "grr".repeat(times)
    }
}

pub struct Cat(u64);

impl Beast for Cat {
    fn legs(&self) -> u64 {
        self.0
    }

    fn arms(&self) -> u64 {
        0
    }
}

pub fn beast() -> Box<dyn Beast> {
    Box::new(Cat(4))
}
"""
CAT = "<unit::Cat as unit::Beast>"
OWN_CALL = (
    "        0\n    }\n",
    '        0\n    }\n\n    fn call(&self, times: usize) -> String {\n        "mew".repeat(times)\n    }\n',
)
MANGLINGS = ["", "-Csymbol-mangling-version=v0"]
"""Legacy is what rustc does by itself."""


def judged(old: str, new: str, mangling: str = "") -> tuple[TableChanges, TypeChanges]:
    before, after = (compiled(text, *mangling.split()) for text in (old, new))
    one, other = types_of_graph(before), types_of_graph(after)
    types = type_changes(one, other, "unit.rs")
    slots = {name: slots_of_graph(before, place) for name, place in one.tables.items()}
    return table_changes(before, one, slots, after, other, types, "unit.rs"), types


def test_a_table_is_known_by_its_name_with_a_function_in_each_slot() -> None:
    graph = compiled(SOURCE)
    types = types_of_graph(graph)
    slots = slots_of_graph(graph, types.tables[f"{CAT}::{{vtable}}"])
    names = {slot: {types.functions[link] for link in found} for slot, found in slots.items()}
    # What drops it would be at 0; size and alignment are between.
    assert names == {24: {"unit::{impl#0}::legs"}, 32: {"unit::{impl#0}::arms"}, 40: {"unit::Beast::call<unit::Cat>"}}


@pytest.mark.parametrize("mangling", MANGLINGS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        self.0\n", "        self.0 + 1\n"),
        ('"grr"', '"hiss"'),
        ("pub fn beast", "pub fn more() {}\n\npub fn beast"),
    ],
)
def test_other_code_in_the_same_slots_is_no_change(mangling: str, old: str, new: str) -> None:
    found, types = judged(SOURCE, edited(SOURCE, (old, new)), mangling)
    assert (found.successors, found.refusals, found.notes, types.refusals) == ({}, (), (), ())


@pytest.mark.parametrize("mangling", MANGLINGS)
@pytest.mark.parametrize("is_back", [False, True])
def test_a_method_of_its_own_takes_the_place_of_the_traits_and_back(mangling: str, is_back: bool) -> None:
    texts = [SOURCE, edited(SOURCE, OWN_CALL)]
    found, _ = judged(*(texts[::-1] if is_back else texts), mangling)
    assert not found.refusals
    ((new, old),) = found.successors.items()
    assert new != old
    assert all("call" in name for name in (new, old))


@pytest.mark.parametrize("mangling", MANGLINGS)
def test_methods_in_another_order_are_refused_by_their_numbers(mangling: str) -> None:
    order = (
        "    fn legs(&self) -> u64;\n\n    fn arms(&self) -> u64;\n",
        "    fn arms(&self) -> u64;\n\n    fn legs(&self) -> u64;\n",
    )
    found, _ = judged(SOURCE, edited(SOURCE, order), mangling)
    (refusal,) = found.refusals
    assert (refusal.code, refusal.symbol) == ("method-table-changed", CAT)
    assert "method 0 was 'unit::{impl#0}::legs'" in refusal.fact
    assert not found.successors


@pytest.mark.parametrize("mangling", MANGLINGS)
def test_a_method_that_takes_something_else_is_refused(mangling: str) -> None:
    new = edited(
        SOURCE,
        (
            'times: usize) -> String {\n        "grr".repeat(times)',
            'times: u64) -> String {\n        "grr".repeat(times as usize)',
        ),
    )
    found, _ = judged(SOURCE, new, mangling)
    assert [(row.code, row.symbol) for row in found.refusals] == [("method-table-changed", CAT)]
    assert "method 2" in found.refusals[0].fact


def test_a_table_of_another_size_is_a_layout() -> None:
    new = edited(
        SOURCE,
        (
            "    fn arms(&self) -> u64;\n",
            "    fn arms(&self) -> u64;\n\n    fn ears(&self) -> u64 {\n        2\n    }\n",
        ),
    )
    found, types = judged(SOURCE, new)
    assert not found.refusals
    assert [(row.code, row.symbol) for row in types.refusals] == [("layout-changed", f"{CAT}::{{vtable_type}}")]


def test_values_that_exist_are_dropped_as_before_and_that_is_said() -> None:
    new = SOURCE + "\nimpl Drop for Cat {\n    fn drop(&mut self) {\n        self.0 = 0;\n    }\n}\n"
    found, _ = judged(SOURCE, new)
    assert not found.refusals
    assert found.notes == (f"values that exist behind '{CAT}' are dropped as before",)


ONCE = """
use std::sync::OnceLock;

#[inline(never)]
pub fn start(value: u32) -> u32 {
    std::hint::black_box(value)
}

pub fn one() -> &'static u32 {
    static VALUE: OnceLock<u32> = OnceLock::new();
    VALUE.get_or_init(|| start(5))
}

pub fn other() -> &'static u32 {
    static VALUE: OnceLock<u32> = OnceLock::new();
    VALUE.get_or_init(|| start(5) + 0)
}
"""


@pytest.mark.parametrize("is_back", [False, True])
def test_methods_that_llvm_made_one_are_told_when_they_are_several(is_back: bool) -> None:
    texts = [ONCE, edited(ONCE, ("start(5) + 0", "start(5) + 7"))]
    found, _ = judged(*(texts[::-1] if is_back else texts), "-O")
    assert {row.code for row in found.refusals} == {"entry-shared"}
    assert all("OnceLock" in row.fact or "once_lock" in row.fact for row in found.refusals)
