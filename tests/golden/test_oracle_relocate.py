"""The system linker as the judge: the same object linked by ld at the addresses that layout chose has the same bytes.

ld is told not to relax instructions (--no-relax), and mergeable sections lose their flag first, because ipbp neither
rewrites instructions nor merges strings. The cells that GOT edges read are compared by what they hold.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from patch_maker import HIGH, LOW, Linked, compile_object, graph_of, link, make_arena, undefined_names, unit_of

from ipbp.arch.x86_64 import GOT_RELATIVE, WIDTH
from ipbp.formats.debug_merge import merge_debug
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import LinkGraph
from ipbp.graph.unit import UNBOUND
from ipbp.stages.targets import GOT_KINDS, carried_edges

SOURCE = """
extern int ext_fn(int), ext_two(const char *); extern int ext_var; extern double ext_array[8];
static int counter; int shared = 3; static const char *names[] = {"alpha", "beta"};
static const int squares[] = {0, 1, 4, 9, 16, 25};
int tentative;
__attribute__((noinline)) static int helper(int x) { counter += x; return counter * shared + squares[x & 3]; }
int choose(int x) {
  switch (x) {
  case 0: return ext_fn(1);
  case 1: return helper(2);
  case 2: return 7 * x;
  case 3: ext_two("three"); return 9;
  case 4: return ext_var;
  case 5: return helper(5) + 1;
  }
  return names[x & 1][0];
}
int (*pointer)(int) = choose;
static int (*const table[])(int) = {helper, choose, ext_fn};
int through(int n, int x) { return table[n](x) + (int)(long)&helper; }
int rare(int x) {
  if (__builtin_expect(x < 0, 0)) { ext_two("rare one"); __builtin_abort(); }
  return helper(x) + tentative;
}
double mix(double a) { return a * 3.25 + ext_array[2] / 1e9; }
int jumps(int x) {
  static void *const labels[] = {&&one, &&two};
  goto *labels[x & 1];
one: return ext_fn(11);
two: return 22;
}
void store(void) { static int calls = 5; calls++; shared = 0x12345; ext_var = 77; *(volatile char *)&counter = 1; }
"""
MODELS = {
    "pie": ("-fPIE",),
    "pic": ("-fPIC",),
    "fixed": ("-fno-pie",),
    "pie_debug": ("-fPIE", "-g"),
    "fixed_debug4": ("-fno-pie", "-gdwarf-4"),
    "medium": ("-fPIC", "-mcmodel=medium", "-mlarge-data-threshold=16"),
    "medium_fixed": ("-fno-pie", "-mcmodel=medium", "-mlarge-data-threshold=16"),
    "large": ("-fPIC", "-mcmodel=large"),
    "large_fixed": ("-fno-pie", "-mcmodel=large"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_every_block_has_the_bytes_that_ld_gives_it(
    compiler: str, level: str, model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = compile_object(tmp_path, SOURCE, request.getfixturevalue(compiler), level, *MODELS[model])
    graph = graph_of(path)
    base = LOW if "fixed" in model else HIGH
    outside = {name: base + 0x40_0000 + 64 * n for n, name in enumerate(undefined_names(graph))}
    ours = link([unit_of(graph, addresses=outside)], make_arena(base))
    theirs = _link_with_ld(path, ours, outside, tmp_path)
    for block in range(len(graph.blocks)):
        address = int(ours.layout.units[0].block[block])
        expected = _read(theirs, address, len(graph.content(block)))
        got = ours.read(address, len(expected)) if expected else b""
        fields = _got_fields(ours, theirs, graph, block)
        assert _without(got, fields) == _without(expected, fields), graph.block_name(block)
    _compare_debug(ours, theirs)


def _link_with_ld(path: Path, ours: Linked, outside: dict[str, int], folder: Path) -> ELFFile:
    plain = folder / "plain.o"
    sections = subprocess.run(["readelf", "-SW", path], check=True, capture_output=True, text=True).stdout
    flags = [f"--set-section-flags={name}=alloc,readonly,data" for name in _mergeable(sections) if "debug" not in name]
    flags += [f"--set-section-flags={name}=debug,readonly" for name in _mergeable(sections) if "debug" in name]
    subprocess.run(["objcopy", *flags, path, plain], check=True)
    script = folder / "place.ld"
    script.write_text(_script(ours))
    output = folder / "oracle.elf"
    symbols = [f"--defsym={name}={value:#x}" for name, value in outside.items()]
    subprocess.run(
        [
            "ld",
            "-static",
            "--no-relax",
            "--build-id=none",
            "-e",
            "0",
            "-z",
            "norelro",
            "-T",
            script,
            *symbols,
            plain,
            "-o",
            output,
        ],
        check=True,
        capture_output=True,
    )
    return ELFFile(io.BytesIO(output.read_bytes()))


def _mergeable(table: str) -> list[str]:
    rows = [line.split("]", 1)[1].split() for line in table.splitlines() if "]" in line and "[Nr]" not in line]
    return [row[0] for row in rows if len(row) > 7 and "M" in row[6]]


def _script(ours: Linked) -> str:
    # One output section for each input section, where layout put its blocks; they keep their distances.
    graph, columns = ours.units[0].graph, ours.layout.units[0]
    lines = []
    for index in np.unique(graph.blocks.section).tolist():
        rows = np.flatnonzero(graph.blocks.section == index)
        bases = np.unique(columns.block[rows] - graph.blocks.offset[rows])
        assert len(bases) == 1, f"{graph.sections[index].name}: blocks were moved apart"
        name = graph.sections[index].name
        lines.append(f"  {name} {int(bases[0]):#x} : {{ *({name}) }}")
    ends = {protection: (end + 0x2FFF) & -0x1000 for protection, end in ours.layout.ends().items()}
    got = ends["r"] if columns.got_base == UNBOUND else columns.got_base
    lines += [
        f"  .common {ends['rw']:#x} : {{ *(COMMON) }}",
        f"  .got {got:#x} : {{ *(.got.plt) *(.got) }}",
        f"  .eh_frame {ends['r'] + 0x1000:#x} : {{ *(.eh_frame) }}",
        "  /DISCARD/ : { *(.comment) *(.note*) *(.llvm*) }",
    ]
    return "SECTIONS {\n" + "\n".join(lines) + "\n}\n"


def _read(elf: ELFFile, address: int, size: int) -> bytes:
    for section in elf.iter_sections():
        start = section["sh_addr"]
        if section["sh_flags"] & 2 and start <= address and address + size <= start + section["sh_size"]:
            return bytes(size) if section["sh_type"] == "SHT_NOBITS" else section.data()[address - start :][:size]
    assert size == 0, f"{address:#x} is not in ld's file"
    return b""


def _got_fields(ours: Linked, theirs: ELFFile, graph: LinkGraph, block: int) -> list[tuple[int, int]]:
    # Offsets and widths of the fields that point to cells; both cells must hold the same address.
    edges, address = carried_edges(ours.units[0]), int(ours.layout.units[0].block[block])
    rows = np.flatnonzero((edges.block == block) & np.isin(edges.kind, GOT_KINDS))
    fields = []
    for field, kind, addend in zip(*(c[rows].tolist() for c in (edges.offset, edges.kind, edges.addend)), strict=True):
        width = int(WIDTH[kind])
        counted_from = ours.layout.units[0].got_base if GOT_RELATIVE[kind] else address + field
        cells = []
        for content in (ours.read(address + field, width), _read(theirs, address + field, width)):
            cells.append(counted_from - addend + int.from_bytes(content, "little", signed=True))
        assert ours.read(cells[0], 8) == _read(theirs, cells[1], 8)
        fields.append((field, width))
    return fields


def _without(content: bytes, fields: list[tuple[int, int]]) -> bytes:
    masked = bytearray(content)
    for field, width in fields:
        masked[field : field + width] = bytes(width)
    return bytes(masked)


def _compare_debug(ours: Linked, theirs: ELFFile) -> None:
    for section in merge_debug(ours.units, ours.layout):
        expected = theirs.get_section_by_name(section.name)
        assert expected is not None
        assert section.content == expected.data(), section.name


def test_the_source_has_every_kind_of_edge_that_small_model_code_has(gcc: str, tmp_path: Path) -> None:
    kinds: set[int] = set()
    for options in MODELS.values():
        kinds |= set(graph_of(compile_object(tmp_path, SOURCE, gcc, "-O2", *options)).edges.kind.tolist())
    assert kinds >= {
        EdgeKind.ABS64,
        EdgeKind.ABS32,
        EdgeKind.ABS32S,
        EdgeKind.PCREL32,
        EdgeKind.BRANCH32,
        EdgeKind.GOT_PCREL32_REX_RELAX,
    }
