"""Which functions of an edit would give memory out beside the program's own."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import compiled

from ipbp.formats.elf_object import read_object
from ipbp.stages.allocators import new_allocators

DEFINITION = {
    "void *operator new(unsigned long) { return 0; }": True,
    "void operator delete[](void *, unsigned long) noexcept {}": True,
    "void *operator new(unsigned long, std::align_val_t, const std::nothrow_t &) noexcept { return 0; }": True,
    "int *made(void *p) { return new (p) int(3); }": False,
    "struct Pool {}; void *operator new(unsigned long, Pool &) { return 0; }": False,
    "struct Own { void *operator new(unsigned long) { return 0; } }; Own *made() { return new Own; }": False,
}


@pytest.mark.parametrize("definition", DEFINITION)
def test_only_the_replaceable_ones_are_refused(definition: str) -> None:
    content = compiled(f"#include <new>\n{definition}", "g++", ("-std=c++17", "-O0"), "unit.cc")
    graph = read_object(content, "unit.o")
    refused = list(new_allocators(graph, np.arange(len(graph.blocks)).tolist(), "unit.cc"))
    assert bool(refused) == DEFINITION[definition], refused
