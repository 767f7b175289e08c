"""The system linker as the judge of compiled code: the same object linked by ld has the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import LinkerOutput, Surroundings, compare, link_with
from patch_maker import HIGH, LOW, Linked, compile_object, graph_of, link, make_arena, undefined_names, unit_of

from ipbp.formats.debug_merge import merge_debug
from ipbp.graph.edges import EdgeKind

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
    "large": ("-fPIC", "-mcmodel=large", "-g"),
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
    theirs = link_with(["ld", "-static"], ours, [path], tmp_path, Surroundings(outside))
    verdict = compare(ours, theirs)
    assert verdict.differences == ()
    assert verdict.fixups == len(graph.edges)
    _compare_debug(ours, theirs)


def _compare_debug(ours: Linked, theirs: LinkerOutput) -> None:
    for section in merge_debug(ours.units, ours.layout):
        expected = theirs.elf.get_section_by_name(section.name)
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
