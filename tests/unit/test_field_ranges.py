"""The largest and the smallest result that a field holds, and one past each: refused and never cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patch_maker import LOW, compile_object, graph_of, link, make_arena, symbol, unit_of

from ipbp.arch import x86_64
from ipbp.arch.fields import ROWS
from ipbp.errors import Refusal
from ipbp.graph.edges import EdgeKind
from ipbp.graph.unit import Unit
from ipbp.stages.layout import layout
from ipbp.stages.relocate import relocate

WIDE = {
    EdgeKind.ABS32: EdgeKind.ABS64,
    EdgeKind.ABS32S: EdgeKind.ABS64,
    EdgeKind.ABS16: EdgeKind.ABS64,
    EdgeKind.ABS8: EdgeKind.ABS64,
    EdgeKind.PCREL32: EdgeKind.PCREL64,
    EdgeKind.PCREL16: EdgeKind.PCREL64,
    EdgeKind.PCREL8: EdgeKind.PCREL64,
    EdgeKind.BRANCH32: EdgeKind.PCREL64,
    EdgeKind.GOT_PCREL32: EdgeKind.GOT_PCREL64,
    EdgeKind.GOT_PCREL32_RELAX: EdgeKind.GOT_PCREL64,
    EdgeKind.GOT_PCREL32_REX_RELAX: EdgeKind.GOT_PCREL64,
    EdgeKind.GOT_PCREL32_REX2_RELAX: EdgeKind.GOT_PCREL64,
    EdgeKind.SIZE32: EdgeKind.SIZE64,
    EdgeKind.GOT_BASE_PCREL32: EdgeKind.GOT_BASE_PCREL64,
    EdgeKind.GOT_SLOT32: EdgeKind.GOT_SLOT64,
    EdgeKind.IMAGE32: EdgeKind.GOT_OFFSET64,
}
"""Every narrow kind, and the one with the same equation whose field holds every result."""
BOUNDS = {
    EdgeKind.ABS32: (0, 0xFFFF_FFFF),
    EdgeKind.ABS16: (-0x8000, 0xFFFF),
    EdgeKind.ABS8: (-0x80, 0xFF),
    EdgeKind.PCREL16: (-0x8000, 0x7FFF),
    EdgeKind.PCREL8: (-0x80, 0x7F),
    EdgeKind.SIZE32: (0, 0xFFFF_FFFF),
    EdgeKind.IMAGE32: (0, 0xFFFF_FFFF),
}
SIGNED_32 = (-0x8000_0000, 0x7FFF_FFFF)
SOURCE = """
.data; .globl holder; .type holder, @object; .size holder, 16; holder: .quad 0; .quad near
.globl own; .type own, @object; .size own, 24; own: .quad 1, 2, 3
"""


def unit_with(folder: Path, gcc: str, kind: EdgeKind, addend: int) -> Unit:
    """One field of this kind, in the middle of a variable."""
    graph = graph_of(compile_object(folder, SOURCE, gcc, name="unit.s"))
    target = symbol(graph, "own") if kind in (EdgeKind.SIZE32, EdgeKind.SIZE64) else symbol(graph, "near")
    edges = replace(
        graph.edges,
        kind=np.array([kind], dtype=np.uint8),
        addend=np.array([addend], dtype=np.int64),
        target=np.array([target], dtype=np.int32),
    )
    return unit_of(replace(graph, edges=edges), addresses={"near": LOW + 0x40_0000}, got_base=LOW + 0x50_0000)


def test_every_narrow_field_is_tested() -> None:
    thread_local = {EdgeKind.TPOFF32, EdgeKind.GOT_TPOFF32, EdgeKind.TLS_GD32, EdgeKind.TLS_LD32, EdgeKind.DTPOFF32}
    thread_local |= {EdgeKind.TLSDESC_PCREL32, EdgeKind.SECREL32}
    in_debug_information = {EdgeKind.SECTION16}
    assert set(WIDE) == {row.kind for row in x86_64.ROWS if 0 < row.width < 8} - thread_local - in_debug_information


@pytest.mark.parametrize("kind", WIDE, ids=lambda kind: kind.name)
def test_the_last_result_that_fits_is_written_and_the_next_is_refused(kind: EdgeKind, gcc: str, tmp_path: Path) -> None:
    wide = link([unit_with(tmp_path, gcc, WIDE[kind], 0)], make_arena(LOW))
    place = wide.address("holder") + 8
    without_addend = int.from_bytes(wide.read(place, 8), "little", signed=True)
    width = ROWS[kind].width
    for limit, past in zip(BOUNDS.get(kind, SIGNED_32), (-1, 1), strict=True):
        fits = link([unit_with(tmp_path, gcc, kind, limit - without_addend)], make_arena(LOW))
        written = limit.to_bytes(8, "little", signed=True)[:width]
        # The neighbours of the field stay as they were.
        assert fits.read(place - 8, 16) == bytes(8) + written + bytes(8 - width)
        unit = unit_with(tmp_path, gcc, kind, limit + past - without_addend)
        (refusal,) = relocate([unit], layout([unit], make_arena(LOW))).refusals
        assert refused(refusal, kind, limit + past)


def refused(refusal: Refusal, kind: EdgeKind, result: int) -> bool:
    """Whether the refusal says what does not fit where, and what to do."""
    assert refusal.code == "relocation-out-of-range"
    assert refusal.file == "unit.c"
    assert refusal.symbol == ("own" if kind == EdgeKind.SIZE32 else "near")
    narrow = ROWS[kind].width < 4
    assert "wider" in refusal.advice if narrow else "-fPIC" in refusal.advice
    return "'holder'" in refusal.fact and kind.name in refusal.fact and f"{result:#x}" in refusal.fact


def test_an_absolute_32_bit_field_is_refused_by_layout_only_where_it_cannot_hold_the_address(
    gcc: str, tmp_path: Path
) -> None:
    for name, kind, last in (("32", EdgeKind.ABS32, 0xFFFF_FFFF), ("32S", EdgeKind.ABS32S, 0x7FFF_FFFF)):
        source = f".data; .globl t; .type t, @object; .size t, 8; t: .reloc t, R_X86_64_{name}, v; .quad 0"
        graph = graph_of(compile_object(tmp_path, source, gcc, name=f"{name}.s"))
        assert graph.edges.kind.tolist() == [kind]
        linked = link([unit_of(graph, addresses={"v": last})], make_arena(LOW))
        assert linked.read(linked.address("t"), 4) == last.to_bytes(4, "little")
        refusals = layout([unit_of(graph, addresses={"v": last + 1})], make_arena(LOW)).refusals
        assert [(refusal.code, refusal.symbol) for refusal in refusals] == [("out-of-reach-data", "v")]
