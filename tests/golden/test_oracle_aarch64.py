"""AArch64: every relocation in every kind of image, and compiled code: the bytes are those of the system linkers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from aarch64_rows import IMAGE, PREAMBLE, ROWS
from elftools.elf.elffile import ELFFile
from oracle import Surroundings, compare, link_with
from patch_maker import HIGH, LOW, compile_object, graph_of, link, make_arena, undefined_names, unit_of
from relocation_rows import LOW_ONLY, Row

from ipbp.errors import IpbpError
from ipbp.formats.elf_relocations import edge_kinds
from ipbp.graph.edges import EdgeKind

OFFSETS = {"near_function": 0x40_1234, "near_data": 0x50_7670, "far_data": 0xC000_5A50}
OPTIONS = {
    "static": ["-static"],
    "fixed": ["-no-pie"],
    "pie": ["-pie", "--no-dynamic-linker"],
    "shared": ["-shared", "-Bsymbolic"],
}
SECTIONS = {"near_function": ".image_text", "near_data": ".image_data", "far_data": ".image_far"}


def _slow_but_for(row: Row, kind: str) -> list[pytest.MarkDecorator]:
    return [] if kind == ("pie" if "pie" in row.images else "static") else [pytest.mark.slow]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        pytest.param(row, kind, marks=_slow_but_for(row, kind), id=f"{row.name} {kind}")
        for row in ROWS
        for kind in row.images
    ],
)
def test_a_field_holds_what_the_linkers_put_into_it(
    row: Row, kind: str, aarch64: str, clang: str, tmp_path: Path
) -> None:
    assembler = [clang, "--target=aarch64-linux-gnu"] if row.but_ld else [aarch64]
    path = compile_object(tmp_path, PREAMBLE.format(code=row.code, data=row.data), *assembler, name="row.s")
    assert row.number in _numbers(path), "the assembler did not make this relocation"
    image = compile_object(tmp_path, IMAGE, aarch64, name="image.s")
    base = LOW if kind in LOW_ONLY else HIGH
    places = {name: base + offset for name, offset in OFFSETS.items()} | {"small": 0x1234}
    graph = graph_of(path)
    known = {name: places[name] for name in undefined_names(graph) if name in places}
    ours = link([unit_of(graph, addresses=known)], make_arena(base + 0x1000, 0x4_3000))
    around = Surroundings({}, [image], {section: places[name] for name, section in SECTIONS.items()})
    for linker in _linkers(clang)[1 if row.but_ld else 0 : 1 if row.but_lld else 2]:
        theirs = link_with([*linker, *OPTIONS[kind]], ours, [path], tmp_path, around)
        verdict = compare(ours, theirs.relocated())
        assert verdict.differences == (), linker
        assert verdict.fixups > 0


def test_every_relocation_that_the_reader_knows_has_a_row() -> None:
    numbers = np.arange(2048, dtype=np.uint32)
    without = {number: EdgeKind(kind) for number, kind in enumerate(edge_kinds(numbers, "aarch64").tolist()) if kind}
    for row in ROWS:
        without.pop(row.number, None)
    # What thread-local ones compute depends on the process: they are compared with linked images where attested.
    assert all(re.match("TP_|GOT_TP|TLSDESC|DTPOFF", kind.name) for kind in without.values()), without


SOURCE = (Path(__file__).parent / "test_oracle_relocate.py").read_text().split('SOURCE = """')[1].split('"""')[0]
MODELS = {
    "pie": ("-fPIE",),
    "pic": ("-fPIC",),
    "fixed": ("-fno-pie",),
    "pie_debug": ("-fPIE", "-g"),
    "branch_protection": ("-fPIE", "-mbranch-protection=standard"),
    "large_fixed": ("-fno-pie", "-mcmodel=large"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_every_block_has_the_bytes_that_ld_gives_it(
    compiler: str, level: str, model: str, aarch64: str, clang: str, tmp_path: Path
) -> None:
    if compiler == "gcc":
        path = compile_object(tmp_path, SOURCE, aarch64, level, *MODELS[model])
    else:
        path = compile_object(tmp_path, SOURCE, clang, "--target=aarch64-linux-gnu", level, *MODELS[model])
    graph = graph_of(path)
    base = LOW if "fixed" in model else HIGH
    outside = {name: base + 0x40_0000 + 64 * n for n, name in enumerate(undefined_names(graph))}
    ours = link([unit_of(graph, addresses=outside)], make_arena(base))
    theirs = link_with([*_linkers(clang)[0], "-static"], ours, [path], tmp_path, Surroundings(outside))
    verdict = compare(ours, theirs)
    assert verdict.differences == ()
    assert verdict.fixups == len(graph.edges)


def test_calls_of_what_is_far_go_through_a_stub(aarch64: str, tmp_path: Path) -> None:
    graph = graph_of(compile_object(tmp_path, "void far(void); void f(void) { far(); }", aarch64, "-O2"))
    for distance, stubs in ((0x700_0000, 0), (0x900_0000, 1), (-0x900_0000, 1)):
        ours = link([unit_of(graph, addresses={"far": HIGH + distance})], make_arena(HIGH))
        assert len(ours.layout.stubs) == stubs
        for stub in ours.layout.stubs:
            words = np.frombuffer(ours.read(stub.address, 16), "<u4")
            assert [word & 0x9F00001F for word in words[:1]] == [0x90000010]  # adrp x16
            assert int.from_bytes(ours.read(stub.slot, 8), "little") == HIGH + distance


def test_big_endian_is_refused(aarch64: str, tmp_path: Path) -> None:
    path = compile_object(tmp_path, "int f(void) { return 1; }", aarch64, "-mbig-endian")
    with pytest.raises(IpbpError) as refused:
        graph_of(path)
    assert refused.value.code == "object-wrong-architecture"


def _numbers(path: Path) -> set[int]:
    with path.open("rb") as file:
        tables = [table for table in ELFFile(file).iter_sections() if table["sh_type"] == "SHT_RELA"]
        return {row["r_info_type"] for table in tables for row in table.iter_relocations()}


def _linkers(clang: str) -> list[list[str]]:
    return [["aarch64-linux-gnu-ld"], [clang.replace("clang", "ld.lld"), "-m", "aarch64linux"]]
