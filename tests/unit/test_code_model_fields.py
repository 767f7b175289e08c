"""Programs of the medium and the large code model: the code that runs is known again, and what new code reaches."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running_program import WAIT, build, compile_object, graph_of, not_yet_running, running

from ipbp.graph.model import COMMON, BlockKind
from ipbp.stages.attest import attest
from ipbp.stages.compare import Status, compare
from ipbp.stages.correlate import correlate
from ipbp.stages.lift import lift

WORK = r"""
#include <stdio.h>
extern int outside[]; extern int other(int); extern int missing __attribute__((weak));
int shared[1000] = {7}; static int count = 3; static char zeros[5000];
static const char *const words[] = {"one", "two"};
static const double table[2000] = {1.5, 2.5, 3.5}; static int *const pointers[] = {shared, &count, outside};
__attribute__((noinline)) static int helper(int n) { static int calls; calls++; return n + count + zeros[n]; }
__attribute__((noinline)) int pick(int n) {
  switch (n) { case 0: return helper(1); case 1: return 7 + other(n); case 2: return shared[n]; case 3: return n * 3;
    case 4: return outside[n]; case 5: return *pointers[n & 1]; case 6: return puts("six"); case 7: return 99; }
  return -1;
}
double work(int n) {
  printf("work %d %s\n", n, words[n % 2]); shared[n] += words[n % 2][1] + pick(n) + (&missing ? missing : 1);
  return table[n] * 2.25 + shared[n];
}
void *addresses[] = {&shared, (void *)pick, &count};
int (*chosen(void))(int) { return shared[0] ? pick : helper; }
"""
OTHER = "int outside[40000] = {5}; static int count = 9; int other(int n) { return n * count++; }\n"
MAIN = WAIT + "double work(int); int main(void) { work(1); ready_and_wait(); return 0; }\n"
SOURCES = {"main": MAIN, "work": WORK, "other": OTHER}
MODELS = {"medium": ["-mcmodel=medium", "-mlarge-data-threshold=4000"], "large": ["-mcmodel=large"]}
LINKS = {"pie": ["-pie"], "fixed": ["-no-pie"], "static": ["-static"]}
CODES = {"pie": ["-fPIE"], "fixed": ["-fno-pie"], "static": ["-fPIC"]}
SECTIONS = ["-ffunction-sections", "-fdata-sections"]
LINKERS = {"pie": ("bfd", "lld"), "fixed": ("gold", "mold"), "static": ("bfd",)}


@pytest.mark.parametrize(("model", "kind"), list(itertools.product(MODELS, LINKS)))
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_an_object_is_proved_and_finds_itself_in_the_image(
    compiler: str, model: str, kind: str, clang: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cc = request.getfixturevalue(compiler)
    flags = ["-O0" if kind == "fixed" else "-O2", *CODES[kind], *MODELS[model]]
    new = graph_of(compile_object(tmp_path, "work", WORK, *flags, *SECTIONS, cc=cc))
    for linker in LINKERS[kind]:
        ld = clang if linker == "lld" else cc
        options = [*LINKS[kind], f"-fuse-ld={linker}"]
        program, objects = build(tmp_path / linker, SOURCES, *flags, cc=cc, link=options, ld=ld)
        with running(program) as process:
            graph, image = graph_of(objects["work"]), process.image()
            found = attest(graph, image, process.read)
            assert found.mismatched == (), linker
            assert found.missing == (), linker
            assert found.proved[graph.blocks.kind == BlockKind.CODE].all(), linker
            old, _lifted = lift(new, image, process.read)
            comparison = compare(old, new, correlate(old, new))
            changed = np.flatnonzero(comparison.status != Status.SAME).tolist()
            anchors = [new.symbols.name[int(new.blocks.anchor[block])] for block in changed]
            assert [name for name in anchors if name] == [], linker
            assert comparison.refusals == (), linker


@pytest.mark.parametrize("kind", ["pie", "fixed"])
def test_a_huge_variable_is_lifted_without_reading_it(kind: str, gcc: str, tmp_path: Path) -> None:
    far = "char far[3UL << 30];\n"
    sources = {"main": WAIT + far + "int main(void) { far[1] = 2; ready_and_wait(); return far[7]; }\n"}
    flags = ["-O1", *CODES[kind], "-mcmodel=medium"]
    program, objects = build(tmp_path, sources, *flags, cc=gcc, link=LINKS[kind])
    with not_yet_running(program) as process:
        new, image = graph_of(objects["main"]), process.image()

        def original(address: int, size: int) -> bytes | None:
            assert size < 1 << 30
            return image.original(address, size)

        old, _lifted = lift(new, replace(image, original=original), process.read)
        assert (compare(old, new, correlate(old, new)).status == Status.SAME).all()
        assert image.end - image.start > 3 << 30
        assert image.near_end - image.near_start < 1 << 20


def test_a_large_tentative_definition_is_one(gcc: str, tmp_path: Path) -> None:
    flags = ["-O1", "-fcommon", "-fPIE", "-mcmodel=medium"]
    sources = {
        "main": WAIT + "int big[100000]; int f(int x) { return big[x]; }"
        "int main(void) { big[7] = 3; ready_and_wait(); return f(7); }",
        "other": "int big[100000];",
    }
    program, objects = build(tmp_path, sources, *flags, cc=gcc, link=["-pie"])
    with running(program) as process:
        graph, image = graph_of(objects["main"]), process.image()
        found = attest(graph, image, process.read)
        assert found.mismatched == ()
        big = graph.symbols.name.index("big")
        assert graph.symbols.block[big] == COMMON
        assert process.read([(int(found.address[big]) + 28, 4)]) == [(3).to_bytes(4, "little")]
