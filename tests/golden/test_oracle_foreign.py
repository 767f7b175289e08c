"""Mach-O and COFF: every fixup of an object, computed where lld put everything, gives lld's bytes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import lief
import numpy as np
import pytest
from foreign_formats import TARGETS, compiled, graph_of, known_addresses, linked
from foreign_rows import SOURCES, SUPPORT, THREADS
from patch_maker import make_arena, unit_of

from ipbp.arch.fields import WIDTH
from ipbp.formats import coff_relocations, macho_relocations
from ipbp.graph.image import LoadedImage
from ipbp.graph.layout import Chunk, Layout, UnitLayout
from ipbp.graph.model import UNDEFINED, BlockKind, LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.attest import attest
from ipbp.stages.got_base import image_base
from ipbp.stages.layout import layout
from ipbp.stages.relocate import relocate
from ipbp.stages.targets import BRANCHES, GOT_KINDS, carried_edges

SOURCE = (Path(__file__).parent / "test_oracle_relocate.py").read_text().split('SOURCE = """')[1].split('"""')[0]
CXX = """
struct Base { virtual int f(int); virtual ~Base(); int x = 1; };
struct Derived : Base { int f(int) override; double scale = 1.5; };
int Base::f(int a) { if (a > 7) throw a; return a + x; } Base::~Base() { x = 0; }
int Derived::f(int a) {
  try { return Base::f(a) * int(scale); } catch (int e) { return e; } catch (Base *) { return 2; } }
template <typename T> T once(T a) { static T kept = 3; return kept += a; }
int start(int a) { Derived d; Base *b = &d; return b->f(a) + once(a) + once(char(a)); }
"""
HINTED = """
extern int far_away; int table[8] = {1, 2, 3}; static int counter; const char *names[2] = {"one", "two"};
int sum(int x) { return table[x] + table[x + 1]; }
int count(int x) { counter += x; return counter; }
int *where(void) { return &far_away; }
const char *name(int x) { return names[x & 1]; }
"""
targets = pytest.mark.parametrize("kind", TARGETS)


def without_the_linkers_choice(graph: LinkGraph, block: int, content: bytes, stubs: Collection[str]) -> bytes:
    """The bytes without those of fixups that lead to cells or stubs: `attest` follows them."""
    octets = bytearray(content)
    rows = graph.edges_of(block)
    columns = (column[rows].tolist() for column in (graph.edges.offset, graph.edges.kind, graph.edges.target))
    for offset, kind, target in zip(*columns, strict=True):
        is_call = kind in BRANCHES and graph.symbols.name[target] in stubs
        if kind in GOT_KINDS or is_call:
            # With the instruction, which may be another one.
            first = max(offset - 2, 0) if graph.machine == "x86_64" and not is_call else offset
            octets[first : offset + 4] = bytes(offset + 4 - first)
    return bytes(octets)


def compare(graph: LinkGraph, image: LoadedImage) -> tuple[list[str], int]:
    """Names of the blocks whose bytes are not the linker's, and how many fixups were compared."""
    found = attest(graph, image, lambda ranges: [image.original(*row) for row in ranges])
    assert [(graph.block_name(block), reason) for block, reason in found.mismatched] == []
    named = known_addresses(graph, image)
    address = np.where(named == UNBOUND, found.address, named)
    block = address[graph.blocks.anchor]
    # Descriptors of thread-local variables are the loader's and never carried: they hold offsets in the threads.
    compared = (block != UNBOUND) & (graph.blocks.size > 0) & (graph.blocks.kind != BlockKind.TLS_DESCRIPTORS)
    # Strings that only variables lead to cannot be found: what a variable holds may have changed.
    unknown = graph.edges.block[address[graph.edges.target] == UNBOUND]
    assert set(graph.blocks.kind[unknown].tolist()) <= {BlockKind.DATA, BlockKind.TLS_DESCRIPTORS}
    compared[unknown] = False
    carried = np.flatnonzero(compared).astype(np.int32)
    assert set(np.flatnonzero(graph.blocks.kind == BlockKind.CODE).tolist()) <= set(carried.tolist())
    nothing = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    unit = Unit("unit", graph, carried, address, nothing, image_base(image))
    columns = UnitLayout(block, nothing, address, nothing, nothing, image_base(image))
    chunk = Chunk(".text", "rx", image.start, image.end - image.start, 1)
    made = relocate([unit], Layout((columns,), (chunk,), (), (), None, (), ())).segments["rx"]
    stubs, wrong = set(image.stubs.values()), []
    for row in carried.tolist():
        size, place = len(graph.content(row)), int(block[row])
        both = made[place - image.start :][:size], image.original(place, size)
        ours, theirs = (without_the_linkers_choice(graph, row, side or b"", stubs) for side in both)
        if size and ours != theirs:
            wrong.append(graph.block_name(row))
    edges = carried_edges(unit)
    return wrong, int(np.count_nonzero((WIDTH[edges.kind] > 0) & ~np.isin(edges.kind, GOT_KINDS)))


@targets
def test_every_known_relocation_has_the_linkers_bytes(kind: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    path = compiled(tmp_path, clang, target, SOURCES[kind], name="rows.s")
    support = compiled(tmp_path, clang, target, SUPPORT[kind.split("-")[0]], name="support.s")
    image = linked(target, [path, support], tmp_path / "program", "start")
    wrong, count = compare(graph_of(path), image)
    assert wrong == []
    assert count >= 15
    assert numbers(kind, path) == known(kind) - SEEN_ELSEWHERE[kind]


SEEN_ELSEWHERE = {
    "macho-x86_64": set(),
    "macho-arm64": set(),
    "coff-x86_64": {0, 2, 5, 6, 7, 8, 9},  # of other assemblers, and below
    "coff-arm64": {0, 1, 9, 10, 11},
}


def numbers(kind: str, path: Path) -> set[int]:
    """Types of the relocations in a file."""
    if kind.startswith("macho"):
        program = lief.MachO.parse(str(path))
        return {int(row.type) & 0xF for row in program.at(0).relocations}
    unit, found = lief.COFF.parse(path.read_bytes()), set[int]()
    for section in unit.sections:
        found |= {int(row.type) & 0xFF for row in section.relocations}
    return found


def known(kind: str) -> set[int]:
    machine = TARGETS[kind].machine
    if kind.startswith("macho"):
        return {row >> 3 for row in np.flatnonzero(macho_relocations.KINDS[machine]).tolist()}
    return set(coff_relocations.KINDS[machine])


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
@targets
def test_compiled_code_has_the_linkers_bytes(kind: str, level: str, language: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    flags = [level, "-w", "-fasynchronous-unwind-tables"] + (
        ["-fcxx-exceptions", "-fexceptions"] if language == "c++" else []
    )
    text, name = (SOURCE, "unit.c") if language == "c" else (CXX, "unit.cc")
    path = compiled(tmp_path, clang, target, text, *flags, name=name)
    graph = graph_of(path)
    symbols = graph.symbols
    outside = [n for n, b in zip(symbols.name, symbols.block.tolist(), strict=True) if b == UNDEFINED and n]
    p = target.prefix
    rows = [f'.globl "{p}{name}"\n.p2align 4\n"{p}{name}": .quad 0,0,0,0' for name in outside]
    text = "\n".join([".text", f".globl {p}entry", f"{p}entry: ret", ".data", *rows, ""])
    support = compiled(tmp_path, clang, target, text, name="support.s")
    options = ["-ignore_optimization_hints"] if kind == "macho-arm64" else []
    image = linked(target, [path, support], tmp_path / "program", "entry", *options)
    wrong, count = compare(graph, image)
    assert wrong == []
    assert count > 20


@pytest.mark.parametrize("kind", THREADS)
def test_a_thread_local_variable_of_coff_is_refused(kind: str, clang: str, tmp_path: Path) -> None:
    graph = graph_of(compiled(tmp_path, clang, TARGETS[kind], THREADS[kind], name="threads.s"))
    placed = layout(
        [unit_of(graph, ["start"], {"_tls_index": 0x5555_5410_0000} if "x86" in kind else {})], make_arena()
    )
    assert {row.code for row in placed.refusals} == {"thread-local"}


@pytest.mark.parametrize("level", ["-O1", "-O2", "-Os"])
def test_code_is_proved_where_the_linker_followed_the_compilers_hints(level: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS["macho-arm64"]
    path = compiled(tmp_path, clang, target, HINTED, level)
    other = compiled(tmp_path, clang, target, "int far_away = 7; int entry(int x) { return x; }", name="other.c")
    graph = graph_of(path)
    image = linked(target, [path, other], tmp_path / "program", "entry")
    found = attest(graph, image, lambda ranges: [image.original(*row) for row in ranges])
    assert found.mismatched == ()
    code = np.flatnonzero(graph.blocks.kind == BlockKind.CODE)
    assert found.proved[code].all()
    rows = [(int(found.address[graph.blocks.anchor[block]]), block) for block in code.tolist()]
    same = [image.original(place, len(graph.content(block))) == bytes(graph.content(block)) for place, block in rows]
    assert not any(same), "the linker wrote other instructions"
    places = known_addresses(graph, image)
    assert (found.address[places != UNBOUND] == places[places != UNBOUND]).all()
