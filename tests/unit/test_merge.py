"""Several objects as one graph: names find their definitions, and what all bring along is there once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from running_program import compile_object, graph_of

from ipbp.graph.merge import merged
from ipbp.graph.model import UNDEFINED, LinkGraph
from ipbp.stages.correlate import correlate
from ipbp.stages.name_numbers import base_name
from ipbp.stages.unwind import described_blocks, unwind_records, unwind_section

FIRST = """
extern int shared; int helper(int); static int own(int x) { return x + 1; }
__attribute__((weak)) int common(void) { return 7; }
int first(int x) { return helper(x) + shared + own(x) + common(); }
"""
SECOND = """
int shared = 5; static int own(int x) { return x * 2; }
__attribute__((weak)) int common(void) { return 7; }
int helper(int x) { return own(x) + common(); }
"""


def both(folder: Path) -> LinkGraph:
    flags = ("-O0", "-g", "-ffunction-sections", "-fdata-sections")
    graphs = [graph_of(compile_object(folder, name, text, *flags)) for name, text in (("a", FIRST), ("b", SECOND))]
    return merged("both", graphs)


def row(graph: LinkGraph, name: str) -> int:
    (found,) = (index for index, known in enumerate(graph.symbols.name) if known == name)
    return found


def targets(graph: LinkGraph, name: str) -> list[int]:
    block = int(graph.symbols.block[row(graph, name)])
    return graph.edges.target[graph.edges_of(block)].tolist()


def test_a_name_that_one_object_uses_is_what_the_other_defines(tmp_path: Path) -> None:
    graph = both(tmp_path)
    assert row(graph, "helper") in targets(graph, "first")
    assert row(graph, "shared") in targets(graph, "first")
    assert graph.symbols.block[row(graph, "shared")] != UNDEFINED


def test_local_names_stay_apart_and_weak_ones_become_one(tmp_path: Path) -> None:
    graph = both(tmp_path)
    assert row(graph, "own.0") in targets(graph, "first")
    assert row(graph, "own.1") in targets(graph, "helper")
    assert row(graph, "common") in targets(graph, "first")
    assert row(graph, "common") in targets(graph, "helper")


def test_every_block_keeps_its_bytes_and_its_anchor(tmp_path: Path) -> None:
    graph = both(tmp_path)
    for block, anchor in enumerate(graph.blocks.anchor.tolist()):
        assert graph.symbols.block[anchor] == block
        assert len(graph.content(block)) in (0, int(graph.blocks.size[block]))
    assert np.all(np.diff(graph.edges.block) >= 0)


def test_one_unwind_table_describes_all_functions(tmp_path: Path) -> None:
    graph = both(tmp_path)
    section = unwind_section(graph)
    assert section is not None
    described = described_blocks(graph, unwind_records(section.content, "both"), section)
    names = [base_name(graph.block_name(block)) for block in described.tolist() if block >= 0]
    assert sorted(names) == ["common", "first", "helper", "own", "own"]


def test_of_several_local_definitions_of_one_name_each_is_its_own_next_version(tmp_path: Path) -> None:
    graph = both(tmp_path)
    pairs = correlate(graph, graph).symbol
    own = [index for index, name in enumerate(graph.symbols.name) if base_name(name) == "own"]
    assert len(own) == 2
    assert pairs[own].tolist() == own
