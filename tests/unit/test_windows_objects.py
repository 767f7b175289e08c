"""What objects of COFF say of functions and variables that a process of Windows needs: rows, sizes, alignments."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foreign_formats import TARGETS, Emulated, compiled, graph_of, linked

from ipbp.arch.x86_64_aligned import aligned_operands
from ipbp.build.debug_container import opened
from ipbp.build.producer import source_units
from ipbp.errors import Refusal
from ipbp.formats import coff_image
from ipbp.graph.layouts import UnitTypes
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.c_types import without_padding
from ipbp.stages.alignment import misaligned
from ipbp.stages.function_table import description_refusals, function_rows
from ipbp.stages.type_changes import NO_CHANGES
from ipbp.stages.unwind import unwind_links

TARGET = TARGETS["coff-x86_64"]
UNWOUND = ("-O1", "-fasynchronous-unwind-tables")
SOURCE = """
volatile int sink; int _fltused;
__attribute__((noinline)) int leaf(int x) { return x + 1; }
__attribute__((noinline)) int framed(int x) { volatile int room[40]; room[x & 7] = x; return room[x & 3] + leaf(x); }
__attribute__((noinline)) int other(int x) { volatile int room[90]; room[x & 7] = x; return room[x & 3] * WORK; }
int start(void) { return framed(sink) + other(2); }
"""
MINGW = "x86_64-w64-mingw32-gcc"
needs_mingw = pytest.mark.skipif(not shutil.which(MINGW), reason=f"needs {MINGW}: IPBP_SETUP_WINE=yes scripts/setup")


def blocks(graph: LinkGraph, *kinds: BlockKind) -> dict[str, int]:
    rows = np.flatnonzero(np.isin(graph.blocks.kind, kinds)).tolist()
    return {graph.block_name(block): int(graph.blocks.size[block]) for block in rows}


def block_of(graph: LinkGraph, name: str) -> int:
    return int(graph.symbols.block[graph.symbols.name.index(name)])


def unit_of(graph: LinkGraph, *carried: str) -> Unit:
    unbound = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    rows = np.array([block_of(graph, name) for name in carried], dtype=np.int32)
    return Unit("unit.c", graph, rows, unbound, unbound.copy())


@pytest.mark.parametrize("separate", [(), ("-ffunction-sections",)], ids=["together", "each alone"])
def test_each_row_is_of_one_function_and_what_it_leads_to_comes_along(
    separate: tuple[str, ...], clang: str, tmp_path: Path
) -> None:
    graph = graph_of(compiled(tmp_path, clang, TARGET, SOURCE, *UNWOUND, *separate, "-DWORK=2"))
    rows, links = function_rows(graph), unwind_links(graph)
    found = {graph.block_name(block): size for block, size in zip(rows.block.tolist(), rows.size.tolist(), strict=True)}
    sizes = blocks(graph, BlockKind.CODE)
    assert found.keys() == {"framed", "other", "start"}
    assert all(sizes[name] == size for name, size in found.items())
    assert rows.start.tolist() == [0, 0, 0]
    assert links.block.tolist() == rows.block.tolist()
    # What they lead to is apart for each: the change of one is none of the others.
    homes = graph.symbols.block[links.symbol]
    assert len(set(homes.tolist())) == 3
    assert all(graph.blocks.kind[home] == BlockKind.RODATA for home in homes.tolist())


def test_new_code_has_rows_in_the_order_of_addresses(clang: str, tmp_path: Path) -> None:
    objects = [
        compiled(tmp_path, clang, TARGET, SOURCE.replace("leaf(x)", more), *UNWOUND, f"-DWORK={work}", name=name)
        for name, work, more in (("old.c", "2", "leaf(x)"), ("new.c", "7", "leaf(x) * 3"))
    ]
    image = linked(TARGET, [objects[0]], tmp_path / "program.exe", "start")
    program = Emulated(image)
    patch = program.patch(*map(graph_of, objects))
    assert patch.codes == set()
    assert patch.carried >= {"framed", "other"}
    program.apply(patch)
    assert patch.layout is not None
    table = patch.layout.unwind
    assert table is not None
    assert (table.rows, len(table.content)) == (2, 24)
    found = list(struct.iter_unpack("<III", program.read([(table.address, 24)])[0] or b""))
    assert found == sorted(found)
    columns = patch.layout.units[0]
    for (start, end, described), name in zip(found, sorted_by_address(patch.new, columns.block), strict=True):
        block = block_of(patch.new, name)
        assert image.start + start == columns.block[block]
        assert end - start == patch.new.blocks.size[block]
        rows = function_rows(patch.new)
        symbol = int(rows.symbol[rows.block == block][0])
        home = int(patch.new.symbols.block[symbol])
        assert program.read([(image.start + described, 4)])[0] == bytes(patch.new.content(home))[:4]


def sorted_by_address(graph: LinkGraph, place: np.ndarray) -> list[str]:
    return sorted(("framed", "other"), key=lambda name: int(place[block_of(graph, name)]))


def test_functions_with_handlers_are_refused(clang: str, tmp_path: Path) -> None:
    source = """
extern void may(void); int plain(void) { may(); return 1; }
int guarded(void) { __try { may(); } __except (1) { return 2; } return 3; }
"""
    flags = ("-O1", "-fms-extensions", "-fasynchronous-unwind-tables")
    graph = graph_of(compiled(tmp_path, clang, TARGET, source, *flags))
    assert description_refusals(unit_of(graph, "plain")) == []
    found = description_refusals(unit_of(graph, "plain", "guarded"))
    assert [(row.code, row.symbol) for row in found] == [("unwind-data-not-carried", "guarded")]


@needs_mingw
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-Os"])
def test_sizes_are_without_fill_however_an_object_is_cut(level: str, tmp_path: Path) -> None:
    source = """
struct three { int a, b, c; };
static struct three kept = {1, 2, 3}; static int alone; static short pair[2];
static const int limits[3] = {1, 2, 3};
__attribute__((noinline)) int one(void) { return 1; }
__attribute__((noinline)) int two(int x) { kept.b += x; kept.c++; alone++; pair[1]++; return limits[x % 3] + x; }
int three(int x) { return one() + two(x) + kept.a; }
"""
    (tmp_path / "unit.c").write_text(source)
    found = []
    for flags in ((), ("-ffunction-sections", "-fdata-sections")):
        subprocess.run([MINGW, level, *flags, "-c", "unit.c", "-o", "unit.o"], cwd=tmp_path, check=True)
        found.append(graph_of(tmp_path / "unit.o"))
    together, alone = (blocks(graph, BlockKind.CODE) for graph in found)
    names = ("one", "two", "three")
    assert [together[name] for name in names] == [alone[name] for name in names]
    data = blocks(found[1], BlockKind.DATA, BlockKind.BSS)
    assert (data["kept"], data["alone"], data["pair"]) == (12, 4, 4)
    assert blocks(found[1], BlockKind.RODATA).get("limits", 12) == 12
    # What is written to stays whole, though GNU's assembler names places inside of it by the section.
    assert blocks(found[0], BlockKind.DATA)["kept"] >= 12


@needs_mingw
def test_the_first_function_of_each_object_is_a_symbol_of_the_program(tmp_path: Path) -> None:
    texts = {
        "one.c": "int two(int x); int first(int x) { return x; } int main(void) { return first(two(3)); }",
        "two.c": "__attribute__((noinline)) static int inner(int x) { return x; } int two(int x) { return inner(x); }",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    subprocess.run([MINGW, "-O1", "-g", *texts, "-o", "program.exe"], cwd=tmp_path, check=True)
    table = coff_image.read_image((tmp_path / "program.exe").read_bytes(), "program.exe").symbols
    places = [table.address[row] for name in ("first", "main", "inner", "two") for row in table.by_name[name]]
    assert len(places) == len(set(places)) == 4


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0f2805 00000000", [(0, 7, True)]),  # movaps xmm0, [rip]
        ("660ffe00", [(0, 4, False)]),  # paddd xmm0, [rax]
        ("0f1005 00000000", []),  # movups xmm0, [rip]
        ("0f294424 20", []),  # movaps [rsp+0x20], xmm0
        ("c5f9fe00", []),  # vpaddd xmm0, xmm0, [rax]
        ("c5f82800", [(0, 4, False)]),  # vmovaps xmm0, [rax]
        ("f20f5800", []),  # addsd xmm0, [rax]
        ("8b00", []),  # mov eax, [rax]
    ],
)
def test_instructions_that_need_aligned_memory_are_known(code: str, expected: list[tuple[int, int, bool]]) -> None:
    assert aligned_operands(bytes.fromhex(code)) == expected


def test_an_assembler_s_least_alignment_counts_where_code_needs_it(clang: str, tmp_path: Path) -> None:
    source = """
static __attribute__((aligned(16))) float wide[4]; static int plain;
void use(void) { __asm__ volatile("movaps %0, %%xmm0" :: "m"(wide) : "xmm0"); plain++; }
"""
    graph = graph_of(compiled(tmp_path, clang, TARGET, source, "-O1", "-fdata-sections"))
    rows = np.isin(graph.blocks.kind, (BlockKind.DATA, BlockKind.BSS))
    graph = replace(graph, blocks=replace(graph.blocks, alignment=np.where(rows, 16, graph.blocks.alignment)))
    unit = unit_of(graph, "use")
    address = unit.address.copy()
    for name in ("wide", "plain"):
        address[graph.symbols.name.index(name)] = 0x1_4000_0008
    assert [row.symbol for row in misaligned([replace(unit, address=address)])] == ["wide"]
    strict = replace(unit, graph=replace(graph, least_alignment=1), address=address)
    assert {row.symbol for row in misaligned([strict])} == {"wide", "plain"}


def test_another_size_is_fill_where_both_sides_tell_the_type() -> None:
    names = ("count.0", "f.count", "f.count.1", "x")
    rows = [Refusal("data-size-changed", "", "", name) for name in names]
    kind = Refusal("data-kind-changed", "", "", "count.0")
    before, after = (UnitTypes({}, dict.fromkeys(names, ()), True) for names in (["f::count", "x"], ["f::count"]))
    types = replace(NO_CHANGES, sides=(before, after))
    assert without_padding([*rows, kind], types) == (*rows[2:], kind)
    assert without_padding([*rows, kind], NO_CHANGES) == (*rows, kind)


def test_debug_information_of_a_program_is_read(clang: str, tmp_path: Path) -> None:
    unit = compiled(tmp_path, clang, TARGET, SOURCE, "-gdwarf", "-DWORK=1", name="told.c")
    linked(TARGET, [unit], tmp_path / "program.exe", "start", "/debug:dwarf")
    (found,) = source_units(tmp_path / "program.exe")
    assert (found.name, found.source) == ("told.c", tmp_path / "told.c")
    with (tmp_path / "program.exe").open("rb") as file:
        names = [section.name for section in opened(file).iter_sections()]
    assert {".text", ".debug_info", ".debug_abbrev"} <= set(names)
