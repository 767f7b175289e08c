"""Copies of one function in the codegen units of a crate: which becomes which, and where each leads."""

from __future__ import annotations

from pathlib import Path

from running_program import compile_object, graph_of

from ipbp.graph.merge import merged
from ipbp.graph.model import LinkGraph
from ipbp.stages.compare import Status, compare
from ipbp.stages.copies import Copies, place_copies
from ipbp.stages.copy_pairs import pair_copies
from ipbp.stages.correlate import correlate

NAME = "_ZN5grain5grind17h0123456789abcdefE"
FLAGS = ("-O1", "-ffunction-sections", "-fdata-sections", "-fno-ipa-ra", "-fno-ipa-cp")


def unit(caller: str, body: str, more: str = "") -> str:
    """A codegen unit with a copy of the function and one caller of it."""
    copy = f'static int f(int) __asm__("{NAME}"); static __attribute__((noinline, noclone)) int f(int x) {{ {body} }}'
    return f"{copy} int {caller}(int x) {{ return f(x) + 1; }} {more}"


def crate(folder: Path, *units: str) -> LinkGraph:
    graphs = [graph_of(compile_object(folder, f"cgu{row}", text, *FLAGS)) for row, text in enumerate(units)]
    return merged("crate", graphs)


def placed(old: LinkGraph, new: LinkGraph) -> Copies:
    correlation = pair_copies(old, new, correlate(old, new))
    return place_copies(old, new, correlation, compare(old, new, correlation))


def copies(graph: LinkGraph) -> list[int]:
    return [block for block in range(len(graph.blocks)) if graph.block_name(block).startswith(NAME)]


def caller(graph: LinkGraph, name: str) -> int:
    return int(graph.symbols.block[list(graph.symbols.name).index(name)])


def test_every_copy_becomes_the_one_that_its_callers_call_now(tmp_path: Path) -> None:
    old = crate(tmp_path, unit("one", "return x * 3;"), unit("two", "return x * 3;"))
    new = crate(tmp_path, unit("two", "return x * 5;"), unit("one", "return x * 5;"))
    found = placed(old, new)
    assert not found.refusals
    assert not found.leads
    assert [found.comparison.status[block] for block in copies(new)] == [Status.CHANGED, Status.CHANGED]
    assert [int(found.comparison.old_block[block]) for block in copies(new)] == copies(old)[::-1]
    assert found.comparison.status[caller(new, "one")] == Status.SAME


def test_a_copy_that_is_gone_leads_to_the_one_that_is_left(tmp_path: Path) -> None:
    old = crate(tmp_path, unit("one", "return x * 3;"), unit("two", "return x * 3;"))
    shared = unit("one", "return x * 5;", "int two(int x) { return f(x) + 1; }")
    new = crate(tmp_path, shared, "int three(int x) { return x; }")
    found = placed(old, new)
    assert not found.refusals
    (left,) = copies(new)
    assert found.comparison.status[left] == Status.CHANGED
    assert {int(found.comparison.old_block[left]), *(one for one, _ in found.leads)} == set(copies(old))
    assert [new for _, new in found.leads] == [left]
    assert not any(old.block_name(block).startswith(NAME) for block in found.comparison.removed)


def test_an_unchanged_copy_more_is_remembered(tmp_path: Path) -> None:
    old = crate(tmp_path, unit("one", "return x * 3;"), unit("two", "return x * 3;"))
    shared = unit("one", "return x * 3;", "int two(int x) { return f(x) + 1; }")
    new = crate(tmp_path, shared, "int three(int x) { return x; }")
    found = placed(old, new)
    (left,) = copies(new)
    assert found.comparison.status[left] == Status.SAME
    assert not found.leads
    assert {int(found.comparison.old_block[left]), *(one for one, _ in found.same)} == set(copies(old))


def test_callers_that_part_ways_are_refused(tmp_path: Path) -> None:
    both = unit("one", "return x * 3;", "int two(int x) { return f(x) + 1; }")
    old = crate(tmp_path, both, "int three(int x) { return x; }")
    new = crate(tmp_path, unit("one", "return x * 5;"), unit("two", "return x * 7;"))
    assert [row.code for row in placed(old, new).refusals] == ["several-copies"]


def test_what_has_its_address_stored_becomes_what_has_it_stored_now(tmp_path: Path) -> None:
    stored = f"{unit('one', 'return x * 3;')} int (*const table[])(int) = {{f}};"
    old = crate(tmp_path, stored, unit("two", "return x * 3;"))
    new = crate(tmp_path, unit("two", "return x * 5;"), "int three(int x) { return x; }")
    assert [row.code for row in placed(old, new).refusals] == ["several-copies"]
    new = crate(tmp_path, unit("two", "return x * 5;"), stored.replace("* 3", "* 5"))
    found = placed(old, new)
    assert not found.refusals
    assert [int(found.comparison.old_block[block]) for block in copies(new)] == copies(old)[::-1]
