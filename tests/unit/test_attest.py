"""Run-pre matching on programs that really run: what it proves, what it finds and what it must not believe."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from running_program import WAIT, build, compile_object, graph_of, run, running

from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.attest import Attestation, attest
from ipbp.stages.lift import lift

WORK = r"""
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
extern int outside; extern __thread int per_thread; static __thread int own_thread = 3;
int shared = 7; static int count = 3; static const char *words[] = {"alpha", "beta", "gamma"};
static const double table[] = {1.5, 2.5, 3.5};
__attribute__((noinline)) static int helper(int n) { static int calls; calls++; own_thread += n; return n + count; }
__attribute__((noinline)) int pick(int n) {
  static int calls; calls += 2;
  switch (n) { case 0: return helper(1); case 1: return 7 + calls; case 2: return shared; case 3: return n * 3;
    case 4: return outside; case 5: return per_thread; case 6: return puts("six"); case 7: return 99; }
  return -1;
}
double work(int n) {
  printf("work %d %s\n", n, words[n % 3]); shared += (int)strlen(words[n % 3]) + pick(n) + abs(n);
  if (&outside == (int *)&shared) { shared = 1; }
  return table[n & 1] * 2.25 + shared;
}
int (*const of_the_library[])(const char *) = {puts, atoi};
void *addresses[] = {&shared, (void *)pick, &count};
int (*chosen(void))(int) { return n_th(pick); }
"""
WORK = WORK.replace("return n_th(pick);", "return shared ? pick : helper;")
OTHER = r"""
int outside = 5; __thread int per_thread = 6;
static int count = 9;
__attribute__((noinline)) static int helper(int n) { static int calls; return n * count + calls++; }
int other(int n) { return helper(n); }
"""
MAIN = WAIT + "double work(int); int other(int);\nint main(void) { work(1); other(2); ready_and_wait(); return 0; }\n"
SOURCES = {"main": MAIN, "work": WORK, "other": OTHER}
LINKS = {"pie": ["-pie"], "fixed": ["-no-pie"], "static": ["-static"], "static-pie": ["-static-pie"]}
CODES = {"pie": ["-fPIE"], "fixed": ["-fno-pie"], "static": ["-fno-pie"], "static-pie": ["-fPIE"]}


def assert_proved(graph: LinkGraph, found: Attestation) -> None:
    assert found.mismatched == ()
    code = graph.blocks.kind == BlockKind.CODE
    missing = np.isin(np.arange(len(graph.blocks)), found.missing)
    assert found.proved[code & ~missing].all()


def place(graph: LinkGraph, found: Attestation, name: str) -> int:
    return int(found.address[graph.symbols.name.index(name)])


@pytest.mark.parametrize(
    ("compiler", "level", "kind", "sections"),
    [
        *itertools.product(["gcc", "clang"], ["-O0", "-O2"], ["pie", "fixed", "static"], [True]),
        *itertools.product(["gcc", "clang"], ["-O0", "-O2"], ["pie"], [False]),
        ("gcc", "-O2", "static-pie", False),
    ],
)
def test_every_object_of_a_running_program_is_proved(
    compiler: str, level: str, kind: str, sections: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cc = request.getfixturevalue(compiler)
    flags = [level, "-g", *CODES[kind], *(["-ffunction-sections", "-fdata-sections"] if sections else [])]
    program, objects = build(tmp_path, SOURCES, *flags, cc=cc, link=LINKS[kind])
    with running(program) as process:
        image = process.image()
        for path in objects.values():
            graph = graph_of(path)
            found = attest(graph, image, process.read)
            assert_proved(graph, found)
            for symbol, name in enumerate(graph.symbols.name):
                if name and graph.symbols.block[symbol] >= 0 and graph.symbols.block[symbol] not in found.missing:
                    assert found.address[symbol] != -1, name


def test_addresses_are_those_of_the_linked_symbol_table_and_statics_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    program, objects = build(tmp_path, SOURCES, "-O0", "-g", link=["-pie"])
    with running(program) as process:
        image = process.image()
        work, other = graph_of(objects["work"]), graph_of(objects["other"])
        in_work, in_other = attest(work, image, process.read), attest(other, image, process.read)
        for name in ("helper", "count"):
            assert place(work, in_work, name) != place(other, in_other, name)
            both = {int(image.symbols.address[row]) for row in image.symbols.by_name[name]}
            assert both == {place(work, in_work, name), place(other, in_other, name)}
        shared = place(work, in_work, "shared")
        assert shared == int(image.symbols.address[image.symbols.by_name["shared"][0]])
        value = int.from_bytes(process.read([(place(work, in_work, "calls.0"), 4)])[0] or b"", "little")
        assert value in (1, 2)  # a static of a function, found at its running copy
        own = place(work, in_work, "own_thread")
        assert process.read([(own, 4)])[0] == (3).to_bytes(4, "little")  # the initial value, not a thread's own


@pytest.mark.parametrize("kind", ["pie", "fixed"])
def test_relaxed_instructions_are_the_code_that_was_compiled(kind: str, gcc: str, clang: str, tmp_path: Path) -> None:
    text = """
    extern __thread int per_thread; extern int shared, hidden_from_none; extern int outer(int); extern int (*fn)(int);
    extern __thread int own_general; static __thread int local_one, local_two; int n_of(int *p) { return *p; }
    int relaxed(int n) {
      if (shared == n) return outer(n);
      if (&shared == (int *)(long)n) return 3;
      shared += n_of(&shared) + per_thread; local_one += n; local_two -= n; own_general ^= n;
      return (shared & n) ^ hidden_from_none + (fn == outer) + n_of(&local_one);
    }
    int (*address(void))(int) { return outer; }
    int tail(int n) { return outer(n + 1); }
    """
    other = "__thread int per_thread = 4, own_general = 2; int shared = 1, hidden_from_none; int (*fn)(int);\n"
    other += "int outer(int n) { return n + 1; }\n"
    main = WAIT + "int relaxed(int); int main(void) { relaxed(3); ready_and_wait(); return 0; }\n"
    models = [[], ["-ftls-model=local-dynamic"], ["-ftls-model=initial-exec"], ["-fno-plt"], ["-mtls-dialect=gnu2"]]
    for number, (cc, model) in enumerate(itertools.product((gcc, clang), models)):
        for linker in ("bfd", "lld") if model else ("bfd", "gold", "lld"):
            folder = tmp_path / f"{number}-{linker}"
            sources = {"main": main, "relaxed": text, "other": other}
            options = [*LINKS[kind], f"-fuse-ld={linker}"]
            ld = clang if linker == "lld" else cc
            program, objects = build(folder, sources, "-O2", "-fPIC", *model, cc=cc, link=options, ld=ld)
            with running(program) as process:
                graph = graph_of(objects["relaxed"])
                found = attest(graph, process.image(), process.read)
                assert found.mismatched == (), (cc, model, linker)
                assert_proved(graph, found)


@pytest.mark.parametrize("kind", ["pie", "fixed"])
@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_each_linkers_calls_without_a_plt_are_the_code_that_was_compiled(
    linker: str, kind: str, gcc: str, clang: str, tmp_path: Path
) -> None:
    text = """
    extern int shared; extern int outer(int); extern int puts(const char *); extern int (*fn)(int);
    int relaxed(int n) { if (shared == n) return outer(n); return (fn == outer) + puts("far"); }
    int tail(int n) { return outer(n + 1); }
    """
    other = "int shared = 1; int (*fn)(int); int outer(int n) { return n + 1; }\n"
    main = WAIT + "int relaxed(int); int main(void) { relaxed(3); ready_and_wait(); return 0; }\n"
    sources = {"main": main, "relaxed": text, "other": other}
    for compiler, hints in itertools.product((gcc, clang), ("yes", "no")):
        flags = ["-O2", "-fPIC", "-fno-plt", f"-Wa,-mrelax-relocations={hints}"]
        options = [*LINKS[kind], f"-fuse-ld={linker}"]
        folder = tmp_path / f"{Path(compiler).name}-{hints}"
        program, objects = build(folder, sources, *flags, cc=compiler, link=options, ld=clang)
        with running(program) as process:
            graph = graph_of(objects["relaxed"])
            assert_proved(graph, attest(graph, process.image(), process.read))


@pytest.mark.parametrize("linker", ["bfd", "mold"])
@pytest.mark.parametrize("lifted", [False, True], ids=["object", "image"])
def test_the_code_tells_where_another_object_s_names_are(lifted: bool, linker: str, gcc: str, tmp_path: Path) -> None:
    # mold writes them as local symbols, which could be anybody's.
    main = WAIT + "int other(int); extern int shared; int main(void) { shared = other(3); ready_and_wait(); return 0; }"
    other = "int shared; __attribute__((noinline)) static int error(int n) { return n * n; }\n"
    other += "int other(int n) { return error(n) + 1; }\n"
    program, objects = build(tmp_path, {"main": main, "other": other}, "-O1", cc=gcc, link=[f"-fuse-ld={linker}"])
    with running(program) as process:
        image, graph = process.image(), graph_of(objects["main"])
        old, found = lift(graph, image, process.read) if lifted else (graph, attest(graph, image, process.read))
        for name in ("other", "shared"):
            (row,) = image.symbols.by_name[name]
            assert found.address[old.symbols.name.index(name)] == image.symbols.address[row]
        assert found.address[old.symbols.name.index("read")] == -1  # a stub is not the function


@pytest.mark.parametrize("flags", [("-O0",), ("-O2",), ("-O2", "-ffunction-sections", "-fdata-sections")])
@pytest.mark.parametrize("kind", ["pie", "static"])
def test_a_stripped_image_is_searched_for_the_object_s_code(
    kind: str, flags: tuple[str, ...], gcc: str, tmp_path: Path
) -> None:
    program, objects = build(tmp_path, SOURCES, *flags, *CODES[kind], cc=gcc, link=LINKS[kind])
    with running(program) as process:
        named = process.image()
        wanted = attest(graph_of(objects["work"]), named, process.read)
    run(["strip", "-s", "program"], tmp_path)
    with running(program) as process:
        image, graph = process.image(), graph_of(objects["work"])
        found = attest(graph, image, process.read)
    assert not image.symbols.files
    assert not (found.proved & ~wanted.proved).any()
    assert {"work", "pick", "helper"} <= {graph.block_name(block) for block in found.proved.nonzero()[0].tolist()}
    own = (graph.symbols.block >= 0) & (found.address != -1)  # a variable that no code uses is not found
    assert {"work", "pick", "helper", "count", "shared"} <= {graph.symbols.name[row] for row in own.nonzero()[0]}
    assert (found.address[own] - image.bias).tolist() == (wanted.address[own] - named.bias).tolist()


def test_another_object_s_code_is_not_found_in_a_stripped_image(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, SOURCES, "-O1", cc=gcc)
    run(["strip", "-s", "program"], tmp_path)
    other = WORK.replace("n * 3", "n * 5").replace("7 + calls", "8 + calls")
    with running(program) as process:
        found = attest(
            graph_of(compile_object(tmp_path, "edited", other, "-O1", cc=gcc)), process.image(), process.read
        )
    assert not found.proved.any()
