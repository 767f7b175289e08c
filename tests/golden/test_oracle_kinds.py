"""Every relocation in every kind of image: the bytes are those of the system linkers at the same addresses."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from oracle import Surroundings, compare, link_with
from patch_maker import HIGH, LOW, compile_object, graph_of, link, make_arena, undefined_names, unit_of
from relocation_rows import IMAGE, LOW_ONLY, PREAMBLE, ROWS, Row

from ipbp.formats.elf_relocations import edge_kinds
from ipbp.graph.edges import EdgeKind

THREAD_LOCAL = {
    EdgeKind.TPOFF32,
    EdgeKind.TPOFF64,
    EdgeKind.GOT_TPOFF32,
    EdgeKind.TLS_GD32,
    EdgeKind.TLS_LD32,
    EdgeKind.DTPOFF32,
    EdgeKind.DTPOFF64,
    EdgeKind.TLSDESC_PCREL32,
    EdgeKind.TLSDESC_CALL,
}
"""What these compute depends on the process: they are compared with linked images where they are attested."""
OFFSETS = {"near_function": 0x40_0000, "near_data": 0x50_0000, "far_data": 0xC000_0000}
GOT = 0x60_0000
ABSOLUTE = {"small": 0x1234, "tiny": 0x56}
OPTIONS = {
    "static": ["-static"],
    "fixed": ["-no-pie"],
    "pie": ["-pie", "--no-dynamic-linker"],
    "shared": ["-shared", "-Bsymbolic"],
}
SECTIONS = {"near_function": ".image_text", "near_data": ".image_data", "far_data": ".image_far"}


def assembled(row: Row, folder: Path, gcc: str) -> tuple[Path, Path]:
    """The object as ipbp reads it, and as a linker does; two only where linkers do not know the relocation."""
    path = compile_object(folder, PREAMBLE.format(code=row.code, data=row.data), gcc, name="row.s")
    content = bytearray(path.read_bytes())
    wanted, found = row.stand_in or row.number, 0
    for table in ELFFile(BytesIO(path.read_bytes())).iter_sections():
        if table["sh_type"] == "SHT_RELA":
            for number, entry in enumerate(table.iter_relocations()):
                found += entry["r_info_type"] == wanted
                if entry["r_info_type"] == row.stand_in:
                    content[table["sh_offset"] + 24 * number + 8] = row.number
    assert found, "the assembler did not make this relocation"
    changed = folder / "changed.o"
    changed.write_bytes(content)
    return changed, path


CASES = [(row, kind) for row in ROWS for kind in row.images]


@pytest.mark.parametrize(("row", "kind"), CASES, ids=[f"{row.name} {kind}" for row, kind in CASES])
def test_a_field_holds_what_the_linkers_put_into_it(row: Row, kind: str, gcc: str, clang: str, tmp_path: Path) -> None:
    ours_path, theirs_path = assembled(row, tmp_path, gcc)
    image = compile_object(tmp_path, IMAGE, gcc, name="image.s")
    base = LOW if kind in LOW_ONLY else HIGH
    places = {name: base + offset for name, offset in OFFSETS.items()} | ABSOLUTE
    graph = graph_of(ours_path)
    known = {name: places[name] for name in undefined_names(graph) if name in places}
    unit = unit_of(graph, addresses=known, got_base=base + GOT)
    ours = link([unit], make_arena(base))
    around = Surroundings({}, [image], {section: places[name] for name, section in SECTIONS.items()})
    linkers = [["ld"]] if row.but_lld else [["ld"], [clang.replace("clang", "ld.lld")]]
    for linker in linkers:
        theirs = link_with([*linker, *OPTIONS[kind]], ours, [theirs_path], tmp_path, around)
        verdict = compare(ours, theirs.relocated())
        assert verdict.differences == (), linker
        assert verdict.fixups > 0


def test_every_relocation_that_the_reader_knows_has_a_row() -> None:
    numbers = np.arange(256, dtype=np.uint32)
    without = {number: kind for number, kind in enumerate(edge_kinds(numbers, "x86_64").tolist()) if kind}
    for row in ROWS:
        without.pop(row.number, None)
    assert set(without.values()) == THREAD_LOCAL


def test_every_kind_of_edge_comes_from_some_relocation() -> None:
    numbers = np.arange(2048, dtype=np.uint32)
    made = {kind for machine in ("x86_64", "aarch64") for kind in edge_kinds(numbers, machine).tolist()} - {0}
    # IMAGE32 and those behind it are of COFF (test_oracle_foreign).
    assert made == {int(kind) for kind in EdgeKind if kind < EdgeKind.IMAGE32}
