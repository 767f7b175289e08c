"""What layout gives each block, slot and stub, what a name means in a patch, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patch_maker import HIGH, LOW, Linked, compile_object, graph_of, link, make_arena, symbol, unit_of

from ipbp.errors import IpbpError
from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import Layout, Unwinder
from ipbp.graph.model import COMMON
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.arena import Arena, Part
from ipbp.stages.layout import demand, layout
from ipbp.stages.relocate import relocate
from ipbp.stages.targets import carried_edges

FAR = 0x7FFF_F7E0_0000
OLD = HIGH + 0x100_0000


def _codes(result: Layout) -> list[tuple[str, str | None]]:
    return [(refusal.code, refusal.symbol) for refusal in result.refusals]


def _branches(linked: Linked, function: str) -> dict[str, int]:
    """Where the calls and jumps of a carried function go, by the name that they target."""
    unit, columns = linked.units[0], linked.layout.units[0]
    block = int(unit.graph.symbols.block[symbol(unit.graph, function)])
    edges = carried_edges(unit)
    found = {}
    for row in np.flatnonzero((edges.block == block) & (edges.kind == EdgeKind.BRANCH32)).tolist():
        place = int(columns.block[block] + edges.offset[row])
        distance = int.from_bytes(linked.read(place, 4), "little", signed=True)
        found[unit.graph.symbols.name[int(edges.target[row])]] = place + 4 + distance
    return found


def _unit(tmp_path: Path, compiler: str, source: str, *options: str, **known: object) -> Unit:
    graph = graph_of(compile_object(tmp_path, source, compiler, *(options or ("-O2", "-fPIE"))))
    return unit_of(graph, **known)  # type: ignore[arg-type]


def test_each_kind_goes_to_the_part_with_its_protection(gcc: str, tmp_path: Path) -> None:
    source = """
    int zero, seven = 7; const int five = 5; int *const pointer = &seven; int *volatile used;
    int f(void) { return zero + seven + five + *pointer; }
    """
    linked = link([_unit(tmp_path, gcc, source, "-O0", "-fPIE")])
    chunks = {chunk.name: chunk for chunk in linked.layout.chunks}
    for name, chunk in {
        "f": ".text",
        "five": ".rodata",
        "pointer": ".data.rel.ro",
        "seven": ".data",
        "zero": ".bss",
    }.items():
        assert chunks[chunk].start <= linked.address(name) < chunks[chunk].end, name
    assert {name: chunk.protection for name, chunk in chunks.items()} == {
        ".text": "rx",
        ".rodata": "r",
        ".data.rel.ro": "r",
        ".eh_frame": "r",
        ".data": "rw",
        ".bss": "rw",
    }


def test_alignment_is_kept_and_code_is_at_16(gcc: str, tmp_path: Path) -> None:
    source = """
    char a = 1; char b __attribute__((aligned(256))) = 2; char c = 3;
    int f(void) { return a; } int g(void) { return b; } int h(void) { return c; }
    """
    linked = link([_unit(tmp_path, gcc, source, "-Os", "-fPIE")])
    assert linked.address("b") % 256 == 0
    assert [linked.address(name) % 16 for name in "fgh"] == [0, 0, 0]


def test_a_second_patch_starts_behind_the_first(gcc: str, tmp_path: Path) -> None:
    unit = _unit(tmp_path, gcc, "int v = 1; int f(void) { return v; }")
    arena = make_arena()
    first = link([unit], arena)
    second = link([unit], arena.taken(first.layout.ends()))
    for chunk in second.layout.chunks:
        assert all(chunk.start >= old.end for old in first.layout.chunks if old.protection == chunk.protection)


def test_a_full_arena_is_an_error_and_demand_says_so_before(gcc: str, tmp_path: Path) -> None:
    unit = _unit(tmp_path, gcc, "int big[1 << 19] = {1}; int f(void) { return big[0]; }")
    assert demand([unit])["rw"] > 1 << 20
    with pytest.raises(IpbpError) as caught:
        layout([unit], make_arena())
    assert caught.value.code == "arena-full"


def test_demand_is_never_less_than_what_layout_takes(gcc: str, tmp_path: Path) -> None:
    source = "extern int far(int); int v[3]; static int s = 3; int f(int x) { return far(x) + v[x] + s++; }"
    unit = _unit(tmp_path, gcc, source, addresses={"far": FAR})
    taken, arena = link([unit]).layout.ends(), make_arena()
    needed = demand([unit])
    assert all(end - arena.part(protection).start <= needed[protection] for protection, end in taken.items())


def test_a_far_function_is_called_through_a_stub_and_a_near_one_directly(gcc: str, tmp_path: Path) -> None:
    source = "extern int far(int), near(int); int f(int x) { return far(x) + near(x) + far(1); }"
    linked = link([_unit(tmp_path, gcc, source, addresses={"far": FAR, "near": OLD})])
    (stub,), (slot,) = linked.layout.stubs, linked.layout.slots
    calls = _branches(linked, "f")
    assert calls == {"far": stub.address, "near": OLD}
    assert linked.read(stub.address, 2) == bytes([0xFF, 0x25])
    distance = int.from_bytes(linked.read(stub.address + 2, 4), "little", signed=True)
    assert stub.address + 6 + distance == slot.address
    assert int.from_bytes(linked.read(slot.address, 8), "little") == FAR


def test_units_share_the_slot_of_one_target(gcc: str, tmp_path: Path) -> None:
    source = "extern int far(int); int (*f{0}(void))(int) {{ return far; }} int g{0}(int x) {{ return far(x) + 1; }}"
    units = [
        unit_of(
            graph_of(compile_object(tmp_path, source.format(n), gcc, "-O2", "-fPIC", name=f"u{n}.c")),
            addresses={"far": FAR},
        )
        for n in range(2)
    ]
    linked = link(units)
    assert len(linked.layout.slots) == len(linked.layout.stubs) == 1


def test_an_indirect_function_is_reached_through_a_cell_that_a_call_fills(gcc: str, tmp_path: Path) -> None:
    source = "extern int pick(int); int f(int x) { return pick(x) + 1; } int (*g(void))(int) { return pick; }"
    linked = link([_unit(tmp_path, gcc, source, "-O2", "-fPIC", resolvers={"pick": FAR})])
    (slot,), (stub,) = linked.layout.slots, linked.layout.stubs
    assert (slot.value, slot.resolver) == (UNBOUND, FAR)
    assert _branches(linked, "f") == {"pick": stub.address}
    assert not any(
        linked.layout.written(protection)[0] <= slot.address < linked.layout.written(protection)[1]
        for protection in ("rx", "r", "rw")
    )


def test_the_address_of_an_indirect_function_is_its_stub(gcc: str, tmp_path: Path) -> None:
    source = "extern int pick(int); int (*pointer)(int) = pick; int f(void) { return pointer(1); }"
    linked = link([_unit(tmp_path, gcc, source, resolvers={"pick": FAR})])
    (stub,) = linked.layout.stubs
    assert int.from_bytes(linked.read(linked.address("pointer"), 8), "little") == stub.address


RECURSIVE = """
int other(int);
int f(int x) { return x > 1 ? f(x - 1) + other(x) + f(x - 2) : 1; }
int (*pointer)(int) = f;
__attribute__((noinline)) int g(int x) { return f(x) + 1; }
"""


def test_calls_and_pointers_to_a_function_that_existed_mean_its_old_entry(gcc: str, tmp_path: Path) -> None:
    unit = _unit(tmp_path, gcc, RECURSIVE, "-O0", "-fPIE", addresses={"f": OLD, "other": OLD + 64})
    linked = link([unit])
    assert _branches(linked, "g") == {"f": OLD}
    assert _branches(linked, "f") == {"f": OLD, "other": OLD + 64}
    assert int.from_bytes(linked.read(linked.address("pointer"), 8), "little") == OLD


@pytest.mark.parametrize("options", [("-fPIE",), ("-fno-pie",)])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_jump_tables_and_labels_mean_the_carried_copy(
    compiler: str, options: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = """
    extern int a(int), b(int);
    int f(int x) {
      static void *const labels[] = {&&one, &&two};
      switch (x) { case 0: return a(1); case 1: return b(2); case 2: return a(77); case 3: return b(9) + 1;
        case 4: return a(11) * 3; case 5: return b(6); }
      goto *labels[x & 1];
    one: return a(21);
    two: return b(22);
    }
    """
    base = LOW if "-fno-pie" in options else HIGH
    known = {"a": base + 0x40_0000, "b": base + 0x40_0040}
    path = compile_object(tmp_path, source, request.getfixturevalue(compiler), "-O2", *options)
    graph = graph_of(path)
    there = link([unit_of(graph, addresses=known)], make_arena(base))
    # Nothing in f uses its own name, so an old entry makes no difference at all, however far away it is.
    for entry in (base + 0x50_0000, FAR):
        here = link([unit_of(graph, addresses={**known, "f": entry})], make_arena(base))
        assert here.image == there.image


def test_a_cold_part_goes_back_into_the_carried_copy(gcc: str, tmp_path: Path) -> None:
    source = """
    extern int rare(int), often(int);
    int f(int x) { if (__builtin_expect(x < 0, 0)) x = rare(x); return often(x) + 1; }
    __attribute__((cold)) int rare(int);
    """
    known = {"rare": OLD + 16, "often": OLD + 32}
    path = compile_object(tmp_path, source, gcc, "-O2", "-fPIE", "-freorder-blocks-and-partition")
    graph = graph_of(path)
    assert "f.cold" in graph.symbols.name
    without = link([unit_of(graph, addresses=known)])
    for entry in (OLD, FAR):
        linked = link([unit_of(graph, addresses={**known, "f": entry})])
        assert linked.image == without.image
        back = _branches(linked, "f.cold")["f"]
        assert linked.address("f") < back < linked.address("f") + 64


def test_an_undefined_name_is_the_carried_global_of_another_unit(gcc: str, tmp_path: Path) -> None:
    first = _unit(tmp_path, gcc, "extern int shared; int g(void); int f(void) { return g() + shared; }")
    path = compile_object(tmp_path, "int shared = 9; int g(void) { return 4; }", gcc, "-O2", "-fPIE", name="two.c")
    linked = link([first, unit_of(graph_of(path), name="two.c")])
    assert _branches(linked, "f") == {"g": linked.address("g", unit=1)}
    assert int(linked.layout.units[0].meaning[symbol(first.graph, "shared")]) == linked.address("shared", unit=1)


def test_two_definitions_of_a_name_are_refused_and_two_weak_ones_are_one(gcc: str, tmp_path: Path) -> None:
    def units(attribute: str) -> list[Unit]:
        source = f"{attribute} int g(void) {{ return 4; }} int f%d(void) {{ return g() + 1; }}"
        return [
            unit_of(graph_of(compile_object(tmp_path, source % n, gcc, "-O2", "-fPIC", name=f"u{n}.c"))) for n in (1, 2)
        ]

    assert _codes(layout(units(""), make_arena())) == [("duplicate-symbol", "g")]
    linked = link(units("__attribute__((weak))"))
    meanings = {
        int(columns.meaning[symbol(u.graph, "g")]) for u, columns in zip(linked.units, linked.layout.units, strict=True)
    }
    assert meanings == {linked.address("g", unit=0)}


def test_a_new_tentative_definition_gets_zeroed_memory_once(gcc: str, tmp_path: Path) -> None:
    units = []
    for n in range(2):
        source = f"extern int t; int f{n}(void) {{ return t++; }}"
        graph = graph_of(compile_object(tmp_path, source, gcc, "-O2", "-fPIE", name=f"u{n}.c"))
        columns = [column.copy() for column in (graph.symbols.block, graph.symbols.offset, graph.symbols.size)]
        for column, value in zip(columns, (COMMON, 4, 4), strict=True):
            column[symbol(graph, "t")] = value
        symbols = replace(graph.symbols, block=columns[0], offset=columns[1], size=columns[2])
        units.append(unit_of(replace(graph, symbols=symbols)))
    linked = link(units)
    places = {linked.address("t", unit=n) for n in range(2)}
    assert len(places) == 1
    bss = next(chunk for chunk in linked.layout.chunks if chunk.name == ".bss")
    assert bss.start <= places.pop() < bss.end


def test_every_target_that_cannot_be_given_is_refused_at_once(gcc: str, tmp_path: Path) -> None:
    source = """
    extern int nowhere(int); extern int far_data; __thread int mine; extern __thread int other;
    int f(int x) { return nowhere(x) + far_data + mine + other; }
    __attribute__((constructor)) static void start(void) { far_data = 1; }
    """
    unit = _unit(tmp_path, gcc, source, addresses={"far_data": FAR})
    assert sorted(_codes(layout([unit], make_arena()))) == [
        ("new-initialiser", ".init_array+0x0"),
        ("out-of-reach-data", "far_data"),
        ("thread-local", "other"),
        ("undefined-symbol", "nowhere"),
    ]


def test_an_absolute_address_above_2_gib_is_refused(gcc: str, tmp_path: Path) -> None:
    unit = _unit(tmp_path, gcc, "extern int v; int *f(void) { return &v; }", "-O2", "-fno-pie", addresses={"v": FAR})
    assert _codes(layout([unit], make_arena(LOW))) == [("out-of-reach-data", "v")]


def test_a_field_that_cannot_hold_its_result_is_refused_and_not_cut_off(gcc: str, tmp_path: Path) -> None:
    source = """
    int f(void) { return 1; }
    __asm__(".section .data.b, \\"aw\\"; .globl b; .type b, @object; .size b, 1; b: .byte f");
    """
    unit = _unit(tmp_path, gcc, source)
    # The layout is for high memory where a byte holds no address; ABS8 is refused as too far from the arena already.
    refused = layout([unit], make_arena())
    assert _codes(refused) == [("out-of-reach-data", "f")]
    assert [r.code for r in relocate([unit], layout([unit], make_arena(LOW))).refusals] == ["relocation-out-of-range"]


def test_an_arena_is_filled_up_to_its_last_byte(gcc: str, tmp_path: Path) -> None:
    unit = _unit(tmp_path, gcc, "char v[64] = {1}; char *f(void) { return v; }")
    parts = [Part("rx", HIGH, 4096), Part("r", HIGH + 4096, 4096), Part("rw", HIGH + 8192, 128)]
    assert link([unit], Arena(HIGH, tuple(parts)), (Unwinder(1, 2),)).layout.ends()["rw"] == HIGH + 8192 + 128
    with pytest.raises(IpbpError):
        link([unit], Arena(HIGH, (*parts[:2], Part("rw", HIGH + 8192, 127))), (Unwinder(1, 2),))
