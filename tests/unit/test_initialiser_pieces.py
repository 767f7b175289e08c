"""What runs when a patch is applied is for new variables only, whatever an optimiser has left of the others."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import compiled

from ipbp.formats.elf_object import read_object
from ipbp.graph.model import LinkGraph
from ipbp.graph.unit import UNBOUND
from ipbp.stages.branches import with_local_branches
from ipbp.stages.compare import Status, compare
from ipbp.stages.correlate import correlate
from ipbp.stages.initialisers import Initialisers, judge_initialisers

COMPILERS = ("g++", "clang++-19", "aarch64-linux-gnu-g++", "clang++-19 --target=aarch64-linux-gnu")
HEAD = "struct Foo { int v; Foo(int); ~Foo(); }; void seen(const char *); int outside(int);\n"
# Nothing refers to the variable once its constructor is inlined.
GONE = 'struct Registrar { Registrar(const char *name) { seen(name); } }; static Registrar registrar("a");\n'
FRESH = "Foo fresh(1);\n"


def graph_of(source: str, compiler: str, level: str) -> LinkGraph:
    program, *target = compiler.split()
    content = compiled(source, program, (*target, "-std=c++17", level, "-ffunction-sections"), "u.cc")
    return with_local_branches(read_object(content, "u.o"))


def judged(old: str, new: str, compiler: str, level: str, *, is_known: bool = True) -> Initialisers:
    before, after = graph_of(HEAD + old, compiler, level), graph_of(HEAD + new, compiler, level)
    status = compare(before, after, correlate(before, after)).status
    address = np.full(len(after.symbols), UNBOUND, dtype=np.int64)
    there = (after.symbols.block >= 0) & (status[np.maximum(after.symbols.block, 0)] != Status.NEW)
    address[there] = 0x1000
    return judge_initialisers(after, status, address, frozenset(), before if is_known else None, "u.cc")


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_was_initialised_without_a_trace_is_not_done_again(compiler: str, level: str) -> None:
    found = judged(GONE, GONE + FRESH, compiler, level)
    assert not found.runs
    assert [row.variables for row in found.mixed] == [("fresh",)]


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_unit_that_had_none_is_run_as_it_is(compiler: str, level: str) -> None:
    found = judged("int x;", "int x;" + GONE + FRESH, compiler, level)
    assert not found.mixed
    assert ["fresh" in row.variables for row in found.runs] == [True]
    # Not where nothing tells that it had none.
    assert judged("int x;", "int x;" + FRESH, compiler, level, is_known=False).mixed


@pytest.mark.parametrize("compiler", COMPILERS)
def test_another_initial_value_is_told_and_not_applied(compiler: str) -> None:
    found = judged("Foo old(1);", "Foo old(2);", compiler, "-O2")
    assert not found.runs
    assert not found.mixed
    assert len(found.notes) == 1
