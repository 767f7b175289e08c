"""New thread-local variables get a function and a guard of their own, which call the old function first."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import compiled

from ipbp.arch.x86_64_flow import steps
from ipbp.formats.elf_object import read_object
from ipbp.graph.model import LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.sources import sources_of
from ipbp.stages.branches import with_local_branches
from ipbp.stages.compare import Status
from ipbp.stages.initialisers import THREAD_GUARD, judge_thread_initialisers, with_initialisers
from ipbp.stages.separation import Inseparable
from ipbp.stages.thread_initialisers import maker_of, needs_maker, with_maker
from ipbp.stages.unwind import described_blocks, unwind_records, unwind_section

SOURCE = """
struct Foo { int v; Foo(int); ~Foo(); };
static thread_local Foo old(1);
static thread_local Foo fresh(2);
thread_local Foo last(old.v);
int use() { return old.v + fresh.v + last.v; }
"""
OLD = 0x123456
GXX, CLANG = "g++", "clang++-19"


def unit_of(compiler: str, level: str) -> tuple[Unit, np.ndarray]:
    """As if `old` and the guard were there, and all functions that a unit with them has."""
    content = compiled(SOURCE, compiler, ("-std=c++17", level, "-g", "-ffunction-sections"), "u.cc")
    graph = with_local_branches(read_object(content, "u.o"))
    names = [graph.block_name(block) for block in range(len(graph.blocks))]
    is_new = np.array([name.endswith(("fresh", "last")) for name in names])
    address = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    maker, (guard,) = maker_of(graph), graph.symbols.name.rows_of([THREAD_GUARD]).tolist()
    for block in (maker, names.index("_ZL3old"), int(graph.symbols.block[guard])):
        address[graph.symbols.block == block] = OLD
    carried = np.flatnonzero(is_new | np.array([block == maker for block in range(len(names))])).astype(np.int32)
    return Unit("u.cc", graph, carried, address, address.copy()), is_new


def called(graph: LinkGraph, block: int) -> set[str]:
    targets = (graph.edges.target[graph.edges_of(part)].tolist() for part in with_initialisers(graph, block))
    return {graph.symbols.name[target] for row in targets for target in row}


@pytest.mark.parametrize("compiler", [GXX, CLANG])
def test_it_calls_the_old_one_and_makes_the_new_ones_under_its_own_guard(compiler: str) -> None:
    unit, is_new = unit_of(compiler, "-O0")
    maker = maker_of(unit.graph)
    assert needs_maker(unit.graph, is_new, unit.carried.tolist())
    made, parts = with_maker(unit, OLD, is_new, sources_of(unit.graph))
    assert maker in parts
    code = bytes(made.graph.content(maker))
    assert code[:10] == b"\x48\xb8" + OLD.to_bytes(8, "little")
    assert code[32:36] == bytes(unit.graph.content(maker))[:4]
    assert steps(code) is not None

    # Neither it nor its guard is what runs already.
    (guard,) = made.graph.symbols.name.rows_of([THREAD_GUARD]).tolist()
    assert made.address[guard] == UNBOUND
    assert int(made.graph.symbols.block[guard]) in made.carried.tolist()
    assert (made.address[made.graph.symbols.block == maker] == UNBOUND).all()
    old = made.graph.symbols.name.rows_of(["_ZL3old"])[0]
    assert made.address[old] == OLD

    # The head has an unwind row beside that of the rest, which counts from behind it.
    section = unwind_section(made.graph)
    assert section is not None
    records = unwind_records(section.content, "")
    blocks = described_blocks(made.graph, records, section)
    rows = [record for record, block in zip(records, blocks.tolist(), strict=True) if block == maker]
    starts = {int(section.addend[section.offset == record.pointer + 4][0]) for record in rows}
    assert starts == {0, 32}


@pytest.mark.parametrize("compiler", [GXX, CLANG, "aarch64-linux-gnu-g++"])
def test_in_optimised_code_it_is_refused(compiler: str) -> None:
    unit, is_new = unit_of(compiler, "-O2")
    with pytest.raises(Inseparable):
        with_maker(unit, OLD, is_new, sources_of(unit.graph))
    status = np.where(is_new, Status.NEW, Status.CHANGED).astype(np.uint8)
    refused = judge_thread_initialisers(unit.graph, status, unit.address, "u.cc")
    assert {row.code for row in refused} == {"new-initialiser"}
    assert all("`hotpatch deopt u.cc`" in row.advice for row in refused)
    assert {row.symbol for row in refused} >= {"last"}
