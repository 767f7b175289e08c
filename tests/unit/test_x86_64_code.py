"""The rules of the opcode map agree with capstone on real code, and say when they do not know."""

from __future__ import annotations

import numpy as np
import pytest
from keystone import KS_ARCH_X86, KS_MODE_64, Ks
from objects_from_c import COMPILERS, graph_of

from ipbp.arch.fields import ROWS, WIDTH
from ipbp.arch.x86_64_code import (
    UNSURE,
    branches,
    field_uses,
    immediate_sizes,
    is_branch,
    is_padding,
    operands_near,
    takes_address,
)
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import BlockKind


def assemble(text: str) -> bytes:
    octets, _count = Ks(KS_ARCH_X86, KS_MODE_64).asm(text)
    return bytes(octets)


MANY = r"""
#include <string.h>
static volatile char c; static volatile short s; static volatile int i; static volatile long l; static double d[4];
struct { unsigned a : 3, b : 9; } bits; float v[16]; int odd(int); long table[64];
int f(int x) { c = 3; s = 500; i = 70000; l = 1 << 30; c += 4; s ^= 0x1234; i <<= 3; l >>= 2; if (c == 9) i = -1;
  if (s == 1000) l = -5; if (i & 64) c = !c; bits.b = 77; i *= 100; l *= 3; d[1] = d[0] * 2.5; d[2] += x;
  return odd(i); }
void g(void) { for (int k = 0; k < 16; k++) v[k] = v[k] * 2 + 1; memset(table, 7, sizeof table); i = ~i; l = -l; }
int h(int n) { if (i == 123456 && s < 77 && c > 5) return 1; return (int)(l % 10) + (i & 0xff) + (bits.a == 2); }
"""


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3 -mavx2", "-Os"])
def test_immediate_sizes_are_capstones(compiler: str, level: str) -> None:
    graph = graph_of(MANY, compiler, (*level.split(), "-fPIE"))
    checked = 0
    for block in np.flatnonzero(graph.blocks.kind == BlockKind.CODE).tolist():
        code = bytes(graph.content(block))
        fields = np.array([field for field, _ in operands_near(code)], dtype=np.int64)
        if not len(fields):
            continue
        sizes = immediate_sizes(np.frombuffer(code, np.uint8), fields)
        uses = field_uses(code, fields.tolist())
        for field, size in zip(fields.tolist(), sizes.tolist(), strict=True):
            if size != UNSURE:
                assert uses[field].after == 4 + size
                checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("nop; nop; nop; nop; mov eax, dword ptr [rip + 64]", 0),
        ("nop; nop; nop; nop; lea rax, [rip + 64]", 0),
        ("nop; nop; nop; nop; mov byte ptr [rip + 64], 5", 1),
        ("nop; nop; nop; nop; cmp dword ptr [rip + 64], 5", 1),
        ("nop; nop; nop; nop; mov dword ptr [rip + 64], 5", 4),
        ("nop; nop; nop; nop; cmp qword ptr [rip + 64], 70000", 4),
        ("nop; nop; nop; nop; mov word ptr [rip + 64], 500", UNSURE),
        ("nop; nop; nop; nop; shl dword ptr [rip + 64], 3", UNSURE),
        ("nop; nop; nop; nop; imul eax, dword ptr [rip + 64], 100000", UNSURE),
    ],
)
def test_an_immediate_is_measured_or_called_unsure(text: str, size: int) -> None:
    code = assemble(text)
    ((field, _target),) = operands_near(code)
    octets = np.frombuffer(code, np.uint8)
    assert immediate_sizes(octets, np.array([field])).tolist() == [size]
    assert takes_address(octets, np.array([field])).tolist() == ["lea" in text]


def test_branches_are_found_with_their_targets() -> None:
    code = assemble("start: jne start; jmp start; call start; nop; loop start") + bytes.fromhex("0f8400010000")
    assert [(row.width, row.target) for row in branches(code)] == [(1, 0), (1, 0), (4, 0), (1, 0), (4, len(code) + 256)]


def test_calls_and_jumps_are_told_from_data_operands() -> None:
    code = bytes.fromhex("9090e800000000e9000000000f8400000000488b0500000000")
    fields = np.array([3, 8, 14, 21])
    assert is_branch(np.frombuffer(code, np.uint8), fields).tolist() == [True, True, True, False]


def test_padding_is_what_assemblers_write_between_functions() -> None:
    for text in ("90", "cccc", "0f1f00", "660f1f440000", "66662e0f1f840000000000", "6690", "0f1f8000000000" + "90", ""):
        assert is_padding(bytes.fromhex(text)), text
    for text in ("c3", "90c3", "0f0b", "488d7601", "0f1f"):
        assert not is_padding(bytes.fromhex(text)), text


def test_every_edge_kind_has_a_row() -> None:
    assert set(ROWS) == set(EdgeKind)
    for kind, row in ROWS.items():
        assert WIDTH[kind] == row.width
        assert row.highest - row.lowest < 1 << 65
        assert row.pc_relative == row.equation.endswith(("- P", "- Page(P)"))
