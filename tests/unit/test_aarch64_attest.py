"""AArch64: an object is proved to be what a linker made a program of, and every fixup tells what it refers to."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from patch_maker import graph_of

from ipbp.arch.fields import FIELD_BITS
from ipbp.formats.elf_image import read_image
from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.attest import attest
from ipbp.stages.reading import read_blocks

SOURCE = """
#include <stdio.h>
extern int other(int); extern int other_var; extern __thread int outside;
static int counter; int shared = 3; static const char *names[] = {"alpha", "beta"};
static const int squares[] = {0, 1, 4, 9, 16, 25};
static __thread int mine = 5; __thread long both[3] = {1, 2, 3};
struct big { char pad[5000]; long v[4]; int w; short s; char c; }; static struct big huge;
__attribute__((noinline)) static int helper(int x) {
  counter += x;
  return counter * shared + squares[x & 3] + mine + (int)both[x & 1];
}
__attribute__((noinline)) int choose(int x) {
  switch (x) {
  case 0: return other(1);
  case 1: return helper(2);
  case 2: return 7 * x;
  case 3: puts("three"); return 9;
  case 4: return other_var + outside;
  case 5: return helper(5) + 1;
  }
  return names[x & 1][0];
}
static int (*const table[])(int) = {helper, choose, other};
int through(int n, int x) { return table[n](x) + (int)(long)&helper; }
int rare(int x) { return helper(x) + huge.w + huge.v[3] + huge.s + huge.c; }
double mix(double a) { return a * 3.25 + other_var / 1e9; }
void store(void) { static int calls = 5; calls++; shared = 0x12345; huge.v[1] = 77; huge.c = 1; }
"""
MAIN = """
int other(int x) { return x + 1; } int other_var = 4; __thread int outside = 9;
extern int choose(int), through(int, int), rare(int); extern double mix(double); extern void store(void);
int main(int c, char **v) { store(); return choose(c) + through(c & 1, 2) + rare(c) + (int)mix(c); }
"""
KINDS = {
    "pie": (["-fPIE"], ["-pie"]),
    "static": (["-fno-pie"], ["-static"]),
    "shared": (["-fPIC"], ["-shared"]),
    "large": (["-fno-pie", "-mcmodel=large"], ["-no-pie"]),
    "protected": (["-fPIE", "-mbranch-protection=standard"], ["-pie", "-Wl,-z,force-bti"]),
}


@dataclass(frozen=True)
class Program:
    graph: LinkGraph
    image: LoadedImage

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [self.image.original(address, size) for address, size in ranges]


Build = Callable[..., Program]


@pytest.fixture
def build(aarch64: str, clang: str, tmp_path: Path) -> Build:
    def made(compiler: str, level: str, kind: str, linker: str) -> Program:
        own, target = [aarch64], [clang, "--target=aarch64-linux-gnu"]
        compile_options, link_options = KINDS[kind]
        objects = []
        for name, text in (("unit", SOURCE), ("main", MAIN)):
            (tmp_path / f"{name}.c").write_text(text)
            objects.append(tmp_path / f"{name}.o")
            command = [*(own if compiler == "gcc" else target), level, *compile_options, "-c", tmp_path / f"{name}.c"]
            subprocess.run([*command, "-o", objects[-1]], check=True)
        driver = [*own, "-fuse-ld=bfd"] if linker == "ld" else [*target, "-fuse-ld=lld"]
        program = tmp_path / "program"
        subprocess.run([*driver, *link_options, *objects, "-o", program], check=True)
        image = replace(read_image(str(program)), is_executable=kind != "shared")
        return Program(graph_of(objects[0]), image)

    return made


CASES = [
    pytest.param(compiler, level, kind, linker, marks=[] if (level, kind) in FAST else [pytest.mark.slow])
    for FAST in ({("-O2", "pie"), ("-O0", "shared"), ("-O2", "large")},)
    for compiler in ("gcc", "clang")
    for level in ("-O0", "-O2")
    for kind in KINDS
    for linker in ("ld", "lld")
    if (compiler, kind) != ("clang", "large")  # has no thread-local variables there
]


@pytest.mark.parametrize(("compiler", "level", "kind", "linker"), CASES)
def test_every_function_is_proved(compiler: str, level: str, kind: str, linker: str, build: Build) -> None:
    program = build(compiler, level, kind, linker)
    found = attest(program.graph, program.image, program.read)
    assert found.mismatched == ()
    assert found.proved[program.graph.blocks.kind == BlockKind.CODE].all()
    own = program.graph.symbols.name
    assert not [name for name in (*own, *program.image.symbols.name) if name.startswith("$")]
    for name in {"counter", "huge", "squares"} & set(own) & set(program.image.symbols.name):
        where = {int(program.image.symbols.address[row]) for row in program.image.symbols.by_name[name]}
        assert int(found.address[own.index(name)]) in where


def test_fixups_of_code_tell_what_they_refer_to(build: Build) -> None:
    program = build("gcc", "-O2", "pie", "ld")
    kinds = _known(program)
    assert [kind for (kind, known) in kinds if not known] == []
    assert {kind for kind, _known in kinds} >= {
        EdgeKind.PAGE21,
        EdgeKind.LOW12,
        EdgeKind.LOW12_OF_32,
        EdgeKind.BRANCH26,
        EdgeKind.GOT_TP_PAGE21,
        EdgeKind.TP_HIGH12,
        EdgeKind.GOT_PAGE21,
    }


def test_what_lld_relaxes_still_tells_it(build: Build) -> None:
    kinds = _known(build("gcc", "-O2", "pie", "lld"))
    assert kinds[EdgeKind.GOT_LOW12, True] > 0  # `add` or `adr`, where the object loads a cell
    assert kinds[EdgeKind.GOT_LOW12, False] == 0
    assert kinds[EdgeKind.LOW12, True] > 0
    assert kinds[EdgeKind.LOW12, False] == 0


@pytest.mark.parametrize("linker", ["ld", "lld"])
def test_one_changed_bit_of_a_function_is_seen(linker: str, build: Build) -> None:
    program = build("gcc", "-O2", "pie", linker)
    graph, names = program.graph, program.graph.symbols.name
    found = attest(graph, program.image, program.read)
    block = int(graph.symbols.block[names.index("rare")])
    entry, size = int(found.address[names.index("rare")]), int(graph.blocks.size[block])
    unseen = []
    for at in range(0, size, 4):
        for bit in (0, 3, 7, 12, 23, 29, 31):

            def read(ranges: Sequence[tuple[int, int]], at: int = at, bit: int = bit) -> list[bytes | None]:
                return [_flipped(content, start, entry + at, bit) for (start, _), content in _pairs(program, ranges)]

            if attest(graph, program.image, read).proved[block]:
                unseen.append((at, bit))
    assert unseen == []


def _flipped(content: bytes | None, start: int, place: int, bit: int) -> bytes | None:
    if content is None or not start <= place < start + len(content):
        return content
    changed = bytearray(content)
    word = int.from_bytes(changed[place - start :][:4], "little") ^ 1 << bit
    changed[place - start : place - start + 4] = word.to_bytes(4, "little")
    return bytes(changed)


def _pairs(program: Program, ranges: Sequence[tuple[int, int]]) -> list[tuple[tuple[int, int], bytes | None]]:
    return list(zip(ranges, program.read(ranges), strict=True))


def _known(program: Program) -> Counter[tuple[EdgeKind, bool]]:
    graph = program.graph
    found = attest(graph, program.image, program.read)
    code = np.flatnonzero(graph.blocks.kind == BlockKind.CODE).astype(np.int64)
    reading = read_blocks(graph, code, found.address[graph.blocks.anchor[code]], program.image, program.read)
    kinds = graph.edges.kind[reading.edge]
    rows = zip(kinds.tolist(), reading.known.tolist(), FIELD_BITS[kinds].tolist(), strict=True)
    return Counter((EdgeKind(kind), known) for kind, known, bits in rows if bits != -1)
