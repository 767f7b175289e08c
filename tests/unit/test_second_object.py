"""Optimised units: what initialises new variables comes out of an object without optimisation, or not at all."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from objects_from_c import compiled

from ipbp.formats.elf_object import read_object
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import Binding, LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.sources import sources_of
from ipbp.stages.branches import with_local_branches
from ipbp.stages.initialisers import STATE, Run, entries
from ipbp.stages.second_object import Beside, second_object
from ipbp.stages.separation import Inseparable

SOURCE = """
struct Foo { int v; Foo(int); ~Foo(); };
int outside(int);
static int helped(int x) { return outside(x) * outside(x + 1); }
inline int counted() { static int calls; return ++calls; }
static Foo old(1);
static int flag = (outside(3), 3);
static Foo fresh(helped(2));
static char letter = (outside(4), 66);
static int counter = counted();
struct Pair { int a, b; Pair(int x) : a(x), b(3) {} };
static Pair pair(outside(5));
Foo last(old.v);
int use() { return old.v + fresh.v + flag + letter + counter + last.v + pair.a; }
int more() { return pair.b; }
"""
GXX, CLANG = "g++", "clang++-19"
COMPILERS = (GXX, CLANG, "aarch64-linux-gnu-g++", "clang++-19 --target=aarch64-linux-gnu")
PLACE = 0x100000


@cache
def graph_of(compiler: str, level: str) -> LinkGraph:
    program, *target = compiler.split()
    flags = (*target, "-std=c++17", level, "-g", "-ffunction-sections", "-fdata-sections")
    content = compiled(SOURCE, program, flags, "u.cc")
    return with_local_branches(read_object(content, "u.o"))


def beside(compiler: str, new: Collection[str]) -> Beside:
    """As if these variables were new, and all others ran at places from PLACE on."""
    first, second = graph_of(compiler, "-O2"), graph_of(compiler, "-O0")
    is_new = np.zeros(len(first.blocks), dtype=np.bool_)
    address = np.full(len(first.symbols), UNBOUND, dtype=np.int64)
    for block in np.flatnonzero(np.isin(first.blocks.kind, STATE)).tolist():
        name = first.block_name(block)
        is_new[block] = name.removeprefix("_ZL").lstrip("0123456789").partition(".")[0] in new
        if not is_new[block]:
            address[first.symbols.block == block] = PLACE + block * 16
    carried = np.arange(len(first.blocks), dtype=np.int32)
    unit = Unit("u.cc", first, carried[address[first.blocks.anchor] == UNBOUND], address, address.copy())
    entry = next(block for block, _ in entries(first) if first.block_name(block).startswith("_GLOBAL"))
    names = tuple(first.block_name(block) for block in np.flatnonzero(is_new).tolist())
    mixed = [Run(int(first.blocks.anchor[entry]), names, 65535)]
    image = cast(LoadedImage, SimpleNamespace(symbols=SimpleNamespace(by_name={}, binding=(), address=())))
    return second_object(unit, is_new, sources_of(first).plain, mixed, second, image, sources_of(second))


def carried_names(unit: Unit) -> set[str]:
    return {unit.graph.block_name(block) for block in unit.carried.tolist()}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_its_variables_are_those_of_the_first_object(compiler: str) -> None:
    made = beside(compiler, {"fresh", "last"})
    (run,) = made.runs
    assert set(run.variables) == {"_ZL5fresh", "last"}
    names = made.second.graph.symbols.name
    first = made.first.graph.symbols
    # A local one is known to both by a name of its own, a global one by its name; one that exists by its place.
    (shared,) = (row for row, name in enumerate(first.name) if name.startswith("_ZL5fresh."))
    assert first.binding[shared] == Binding.GLOBAL
    (there,) = (row for row, name in enumerate(names) if name == first.name[shared])
    assert made.second.graph.symbols.block[there] < 0
    assert not {"_ZL5fresh", "last", "_ZL3old"} & carried_names(made.second)
    old = names.rows_of(["_ZL3old"])[0]
    assert made.second.address[old] >= PLACE
    # A local function comes along.
    assert "_ZL6helpedi" in carried_names(made.second)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_variable_of_an_inline_function_is_the_first_objects(compiler: str) -> None:
    made = beside(compiler, {"counter"})
    calls = "_ZZ7countedvE5calls"
    assert calls not in carried_names(made.second)
    assert made.second.address[made.second.graph.symbols.name.rows_of([calls])[0]] >= PLACE


@pytest.mark.parametrize("name", ["flag", "letter", "pair"])
def test_what_llvm_keeps_in_another_way_is_refused(name: str) -> None:
    with pytest.raises(Inseparable, match=r"keeps .* in another way"):
        beside(CLANG, {name})
    (run,) = beside(GXX, {name}).runs
    assert run.variables


def test_what_exists_in_another_way_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SOURCE.replace("fresh(helped(2))", "fresh(flag + helped(2))")
    monkeypatch.setattr("test_second_object.SOURCE", source)
    graph_of.cache_clear()
    try:
        with pytest.raises(Inseparable, match="keeps '_ZL4flag' in another way"):
            beside(CLANG, {"fresh"})
    finally:
        graph_of.cache_clear()
