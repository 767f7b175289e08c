"""The running image as the old side: an unedited object must find itself in it, an edited one exactly its edits."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from running_program import WAIT, build, compile_object, graph_of, running

from ipbp.graph.model import LinkGraph
from ipbp.stages.compare import Comparison, Status, compare
from ipbp.stages.correlate import correlate
from ipbp.stages.lift import lift

WORK = r"""
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
extern int outside; extern __thread int per_thread;
int shared = 7; static int count = 3; static const char *words[] = {"alpha", "beta", "gamma"};
static const double table[] = {1.5, 2.5, 3.5};
__attribute__((noinline)) static int helper(int n) { static int calls; calls++; return n + count; }
__attribute__((noinline)) int pick(int n) {
  static int calls; calls += 2;
  switch (n) { case 0: return helper(1); case 1: return 7 + calls; case 2: return shared; case 3: return n * 3;
    case 4: return outside; case 5: return per_thread; case 6: return puts("six"); case 7: return 99; }
  return -1;
}
double work(int n) {
  printf("work %d %s\n", n, words[n % 3]); shared += (int)strlen(words[n % 3]) + pick(n) + abs(n);
  return table[n & 1] * 2.25 + shared;
}
void *addresses[] = {&shared, (void *)pick, &count};
int (*chosen(void))(int) { return shared ? pick : helper; }
"""
OTHER = r"""
int outside = 5; __thread int per_thread = 6;
static int count = 9;
__attribute__((noinline)) static int helper(int n) { static int calls; return n * count + calls++; }
int other(int n) { return helper(n); }
"""
MAIN = WAIT + "double work(int); int other(int);\nint main(void) { work(1); other(2); ready_and_wait(); return 0; }\n"
SOURCES = {"main": MAIN, "work": WORK, "other": OTHER}
LINKS = {"pie": ["-pie"], "fixed": ["-no-pie"], "static": ["-static"]}
CODES = {"pie": ["-fPIE"], "fixed": ["-fno-pie"], "static": ["-fno-pie"]}
SECTIONS = ["-ffunction-sections", "-fdata-sections"]


def judged(old: LinkGraph, new: LinkGraph) -> tuple[Comparison, dict[str, str]]:
    """The comparison, and what it says of named blocks that are not the same."""
    comparison = compare(old, new, correlate(old, new))
    anchors = new.blocks.anchor.tolist()
    named = [block for block in comparison.reason if new.symbols.name[anchors[block]]]
    words = {new.block_name(b): f"{Status(comparison.status[b]).name}: {comparison.reason[b]}" for b in named}
    return comparison, words


@pytest.mark.parametrize(
    ("compiler", "level", "kind"),
    list(itertools.product(["gcc", "clang"], ["-O0", "-O2"], ["pie", "fixed", "static"])),
)
def test_an_unedited_object_finds_itself_in_the_image(
    compiler: str, level: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cc = request.getfixturevalue(compiler)
    flags = [level, "-g", *CODES[kind]]
    program, _objects = build(tmp_path, SOURCES, *flags, cc=cc, link=LINKS[kind])
    with running(program) as process:
        for name, text in SOURCES.items():
            new = graph_of(compile_object(tmp_path, name, text, *flags, *SECTIONS, cc=cc))
            old, found = lift(new, process.image(), process.read)
            comparison, words = judged(old, new)
            assert words == {}
            assert [old.block_name(block) for block in comparison.removed] == []
            assert comparison.notes == ()
            assert comparison.refusals == ()
            assert found.mismatched == ()


@pytest.mark.parametrize(
    ("compiler", "level", "kind"),
    list(itertools.product(["gcc", "clang"], ["-O0", "-O2"], ["pie", "fixed"])),
)
def test_an_edit_is_found_where_it_is_and_nowhere_else(
    compiler: str, level: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cc = request.getfixturevalue(compiler)
    flags = [level, "-g", *CODES[kind]]
    program, _objects = build(tmp_path, SOURCES, *flags, cc=cc, link=LINKS[kind])
    edits = {
        "work": ('printf("work %d', 'printf("now it works: %d'),
        "pick": ("return 99;", "return 98;"),
        "chosen": ("shared ? pick : helper", "shared ? helper : pick"),
        "helper": ("return n + count;", "return n - count * 2 + (int)shared;"),
    }
    with running(program) as process:
        for function, (before, after) in edits.items():
            text = WORK.replace(before, after)
            assert text != WORK
            new = graph_of(compile_object(tmp_path, "work", text, *flags, *SECTIONS, cc=cc))
            old, _found = lift(new, process.image(), process.read)
            _comparison, words = judged(old, new)
            named = {name for name in words if "." not in name}
            assert named == {function}, words
