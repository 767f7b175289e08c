"""The compiler's one function that initialises a unit's variables is taken apart, or it is not run."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from objects_from_c import compiled

from ipbp.arch.flow import reachable
from ipbp.arch.machines import machine_of
from ipbp.formats.elf_object import read_object
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.sources import sources_of
from ipbp.stages.anchors import with_anchored_uses
from ipbp.stages.branches import with_local_branches
from ipbp.stages.initialisers import entries, priority, variables_of, with_initialisers
from ipbp.stages.separation import Inseparable, separated

SOURCE = """
struct Foo { int v; Foo(int); ~Foo(); int get() const; };
int outside(int); void seen(const char *, Foo *);
struct Two { Two(const Foo &, const Foo &); ~Two(); };
struct List { List(const Foo *, const Foo *); };
static int plain = outside(1);
Foo first(1);
static Foo second(2);
static Two both(Foo(3), Foo(4));
static Foo row[3] = {1, 2, 3};
inline Foo shared(5);
static bool done = (seen("x", &first), true);
namespace { Foo hidden(first.get()); }
namespace inner { static Foo deep(7); }
Foo last(8);
__attribute__((init_priority(200))) Foo early(9);
"""
NAMES = {
    "plain": "_ZL5plain",
    "first": "first",
    "second": "_ZL6second",
    "both": "_ZL4both",
    "row": "_ZL3row",
    "done": "_ZL4done",
    "hidden": "_ZN12_GLOBAL__N_16hiddenE",
    "deep": "_ZN5innerL4deepE",
    "last": "last",
    "early": "early",
}
VARIABLES = list(NAMES)[:-1]
GXX, CLANG = "g++", "clang++-19"
ARM_GXX, ARM_CLANG = "aarch64-linux-gnu-g++", "clang++-19 --target=aarch64-linux-gnu"
COMPILERS = (GXX, CLANG, ARM_GXX, ARM_CLANG)


def graph_of(compiler: str, *flags: str, source: str = SOURCE) -> LinkGraph:
    program, *target = compiler.split()
    content = compiled(source, program, (*target, "-std=c++17", "-O0", "-g", "-ffunction-sections", *flags), "unit.cc")
    return with_local_branches(read_object(content, "unit.o"))


def initialised(graph: LinkGraph, new: Collection[str]) -> list[str]:
    """Names of the variables to which the main function of the arrays refers when only these are new, in order."""
    is_new = np.array([graph.block_name(block) in {NAMES[name] for name in new} for block in range(len(graph.blocks))])
    rows = [(block, section) for block, section in entries(graph) if "GLOBAL__" in graph.block_name(block)]
    meant = with_anchored_uses(graph)
    blocks = [block for block, _ in rows if all(variables_of(meant, with_initialisers(graph, block), is_new))]
    apart = separated(graph, blocks, range(len(graph.blocks)), is_new, sources_of(graph))
    main = next(block for block, section in rows if priority(section) == 65535)
    found: list[str] = []
    for part in with_initialisers(apart, main):
        listed = machine_of(graph.machine).flow.steps(bytes(apart.content(part)))
        assert listed is not None
        runs = np.array([[step.offset, step.end] for step in reachable(listed)])
        for row in range(apart.edges_of(part).start, apart.edges_of(part).stop):
            if ((runs[:, 0] <= apart.edges.offset[row]) & (apart.edges.offset[row] < runs[:, 1])).any():
                found.append(apart.symbols.name[apart.edges.target[row]])
    known = {linkage: name for name, linkage in NAMES.items()}
    return list(dict.fromkeys(known[name] for name in found if name in known))


@pytest.mark.parametrize("flags", [(), ("-fno-pie",), ("-fPIC",), ("-fno-exceptions",), ("-gdwarf-4",)], ids=str)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_each_variable_alone_is_initialised_without_the_others(compiler: str, flags: tuple[str, ...]) -> None:
    graph = graph_of(compiler, *flags)
    # What is used by others that exist is refused; of what it uses itself there are traces.
    uses = {"done": {"first"}, "hidden": {"first"}}
    for name in VARIABLES:
        if name == "first":
            continue
        assert set(initialised(graph, [name])) - {"early"} == {name} | uses.get(name, set()), name


@pytest.mark.parametrize("compiler", [ARM_GXX, ARM_CLANG])
@pytest.mark.parametrize("flag", ["-mbranch-protection=standard", "-fomit-frame-pointer", "-fdata-sections"])
def test_frames_that_are_guarded_or_have_no_pointer_are_known(compiler: str, flag: str) -> None:
    assert set(initialised(graph_of(compiler, flag), ["both", "row"])) - {"early"} == {"both", "row"}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_several_are_initialised_in_their_order(compiler: str) -> None:
    found = initialised(graph_of(compiler), ["last", "second", "row", "deep"])
    assert sorted(set(found) - {"early"}) == ["deep", "last", "row", "second"]


@pytest.mark.parametrize("compiler", [GXX, ARM_GXX])
def test_a_variable_that_is_used_to_initialise_one_that_exists_is_refused(compiler: str) -> None:
    with pytest.raises(Inseparable, match="so does '_ZL4done'"):
        initialised(graph_of(compiler), ["first"])


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flags", [("-O2",), ("-g0",)], ids=str)
def test_without_lines_or_in_optimised_code_it_is_refused(compiler: str, flags: tuple[str, ...]) -> None:
    if "clang" in compiler and flags == ("-g0",):
        assert initialised(graph_of(compiler, *flags), ["second"]) == ["second"]
        return
    with pytest.raises(Inseparable):
        initialised(graph_of(compiler, *flags), ["second"])


@pytest.mark.parametrize("compiler", COMPILERS)
def test_variables_that_a_macro_makes_together_are_not_told_apart(compiler: str) -> None:
    pair = "#define PAIR(a, b) static Foo a(1); static Foo b(a)\n"
    source = SOURCE.replace("static Foo second(2);", "PAIR(first_of, second);")
    with pytest.raises(Inseparable):
        initialised(graph_of(compiler, source=pair + source), ["second"])


def test_priorities_come_before_what_has_none() -> None:
    sections = [".init_array", ".init_array.00200", ".init_array.101"]
    assert sorted(sections, key=priority) == [".init_array.101", ".init_array.00200", ".init_array"]
