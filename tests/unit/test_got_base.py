"""Code that counts from the pointer table: whose table it is, and what it reaches from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from patch_maker import HIGH, Linked, compile_object, graph_of, link, make_arena, symbol, unit_of

from ipbp.arch.fields import GOT_RELATIVE, PC_RELATIVE
from ipbp.graph.edges import EdgeKind
from ipbp.graph.unit import UNBOUND
from ipbp.stages.got_base import BASE_KINDS
from ipbp.stages.layout import demand, layout
from ipbp.stages.targets import GOT_KINDS, carried_edges

FAR = 0x7FFF_F7E0_0000
OLD = HIGH + 0x100_0000
SOURCE = """
extern int far_function(int), near_function(int); extern int far_variable; static int own = 3;
static int helper(int x) { return x + own++; } int (*kept(void))(int) { return helper; }
int f(int x) { return far_function(x) + near_function(x) + far_variable + own + kept()(x); }
"""
KNOWN = {"far_function": FAR, "near_function": OLD, "far_variable": FAR + 0x1000}
LARGE = ("-O2", "-fPIC", "-mcmodel=large", "-fno-inline")


def fields(linked: Linked, *kinds: EdgeKind) -> dict[str, int]:
    """S for each symbol that fields of these kinds name, computed back from the bytes of the patch."""
    unit, columns = linked.units[0], linked.layout.units[0]
    edges, found = carried_edges(unit), {}
    for row in np.flatnonzero(np.isin(edges.kind, kinds)).tolist():
        place, kind = int(columns.block[edges.block[row]] + edges.offset[row]), int(edges.kind[row])
        number = int.from_bytes(
            linked.read(place, 4 if kind == EdgeKind.GOT_BASE_PCREL32 else 8), "little", signed=True
        )
        counted_from = place * int(PC_RELATIVE[kind]) + columns.got_base * int(GOT_RELATIVE[kind])
        found[unit.graph.symbols.name[int(edges.target[row])]] = number - int(edges.addend[row]) + counted_from
    return found


@pytest.fixture(params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.mark.parametrize("known_base", [UNBOUND, OLD + 0x8000, FAR])
def test_everything_is_reached_from_the_base_without_a_stub(compiler: str, known_base: int, tmp_path: Path) -> None:
    graph = graph_of(compile_object(tmp_path, SOURCE, compiler, *LARGE))
    linked = link([unit_of(graph, addresses=KNOWN, got_base=known_base)])
    base = linked.layout.units[0].got_base
    assert set(fields(linked, *BASE_KINDS).values()) == {base}
    assert linked.layout.stubs == ()
    reached = fields(linked, EdgeKind.GOT_OFFSET64, EdgeKind.PLT_OFFSET64)
    cells = fields(linked, *GOT_KINDS)
    reached |= {name: int.from_bytes(linked.read(cell, 8), "little") for name, cell in cells.items()}
    expected = {**KNOWN, **{name: linked.address(name) for name in ("own", "helper")}}
    assert {name: reached[name] for name in expected} == expected


def test_the_base_is_the_program_s_own_where_it_has_one(gcc: str, tmp_path: Path) -> None:
    graph = graph_of(compile_object(tmp_path, SOURCE, gcc, *LARGE))
    linked = link([unit_of(graph, addresses=KNOWN, got_base=OLD + 0x8000)])
    assert linked.layout.units[0].got_base == OLD + 0x8000


def test_units_without_a_base_share_one_in_the_patch_and_others_have_none(gcc: str, tmp_path: Path) -> None:
    large = graph_of(compile_object(tmp_path, SOURCE, gcc, *LARGE))
    small = graph_of(compile_object(tmp_path, "int g(int x) { return x; }", gcc, "-O2", name="small.c"))
    other = graph_of(compile_object(tmp_path, "static int v; int *h(void) { return &v; }", gcc, *LARGE, name="o.c"))
    linked = link([unit_of(large, addresses=KNOWN), unit_of(small), unit_of(other)])
    bases = [columns.got_base for columns in linked.layout.units]
    (got,) = [chunk for chunk in linked.layout.chunks if chunk.name == ".got"]
    assert bases == [got.start, UNBOUND, got.start]
    assert all(slot.address > got.start for slot in linked.layout.slots)


def test_the_demand_covers_the_base(gcc: str, tmp_path: Path) -> None:
    unit = unit_of(graph_of(compile_object(tmp_path, "static int v; int *h(void) { return &v; }", gcc, *LARGE)))
    taken, arena = link([unit]).layout.ends(), make_arena()
    assert all(end - arena.part(protection).start <= demand([unit])[protection] for protection, end in taken.items())


def test_a_function_that_existed_keeps_its_address_and_its_labels_mean_the_copy(gcc: str, tmp_path: Path) -> None:
    source = """
    .text; .globl f; .type f, @function
    f: leaq _GLOBAL_OFFSET_TABLE_(%rip), %rbx; movabs $f@GOTOFF, %rax; movabs $f@PLTOFF, %rax; inside: ret
    .size f, . - f
    .data; .globl table; .type table, @object; .size table, 28
    table: .quad inside@GOTOFF, _GLOBAL_OFFSET_TABLE_ - ., inside - .; .long f@PLT + 24
    """
    graph = graph_of(compile_object(tmp_path, source, gcc, name="unit.s"))
    linked = link([unit_of(graph, addresses={"f": OLD}, got_base=OLD + 64)])
    assert set(fields(linked, EdgeKind.PLT_OFFSET64).values()) == {OLD}
    table, inside = linked.address("table"), linked.address("inside")
    columns = linked.layout.units[0]
    assert columns.copy[symbol(graph, "f")] < inside
    first, second, third = (int.from_bytes(linked.read(table + 8 * n, 8), "little", signed=True) for n in range(3))
    assert (first + OLD + 64, second + table + 8, third + table + 16) == (inside, OLD + 64, inside)
    assert int.from_bytes(linked.read(table + 24, 4), "little", signed=True) + table == OLD


def test_the_size_of_what_another_file_defines_is_refused(gcc: str, tmp_path: Path) -> None:
    source = ".globl f; f: movl $outside@SIZE, %eax; movabs $own@SIZE, %rax; ret; .size f, . - f; .data\n"
    source += ".globl own; own: .quad 1, 2; .size own, 16"
    graph = graph_of(compile_object(tmp_path, source, gcc, name="unit.s"))
    refusals = layout([unit_of(graph, addresses={"outside": OLD})], make_arena()).refusals
    assert [(refusal.code, refusal.symbol) for refusal in refusals] == [("size-of-outside-symbol", "outside")]
