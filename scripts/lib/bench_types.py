"""How long it takes to know the types of a C or C++ unit, and to compare them with those that run.

The new side is read for each patch; the old side is the new one of the patch before, or is read once in a session.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench_inputs import FLAGS, source_of
from measured import times_of

from ipbp.engine.garbage import look_seldom
from ipbp.formats.elf_archive import read_unit
from ipbp.graph.layouts import UnitTypes
from ipbp.graph.model import LinkGraph
from ipbp.pipeline import layouts
from ipbp.stages.layout_changes import layout_changes

TARGET = 100.0
"""Milliseconds that are aimed at for the C file."""
_LINES = 3000
_HEADERS = "arpa/inet errno fcntl math netdb netinet/in poll pthread signal stdio stdlib string sys/mman sys/socket"
_HEADERS_CXX = (
    "algorithm deque fstream functional future iostream list map memory regex string thread unordered_map vector"
)
_USER = """
struct item { std::string name; std::map<std::string, std::vector<int>> seen; std::function<int(int)> act; };
int work(std::vector<item> &all, const std::string &text) {
    static const std::regex way("([a-z]+)=([0-9]+)");
    std::unordered_map<std::string, std::shared_ptr<item>> known;
    for (auto &one : all) known[one.name] = std::make_shared<item>(one);
    std::smatch found;
    if (std::regex_search(text, found, way)) known[found[1]]->seen["x"].push_back(std::stoi(found[2]));
    std::sort(all.begin(), all.end(), [](const item &a, const item &b) { return a.name < b.name; });
    return known.size() + std::async([&] { return all.front().act(1); }).get();
}
"""
TEMPLATES = "".join(f"#include <{name}>\n" for name in _HEADERS_CXX.split()) + _USER
"""A unit of C++ with many of the library's templates."""
HEAD = (
    "what                    MB debug   types   new side ms   cpu ms   known ms   compare ms   compile ms   target ms"
)


@dataclass(frozen=True, slots=True)
class Row:
    """`megabytes` of debug information with `types` layouts: `new` and `cpu` to read it, `known` when it was read
    before, `compare` for the comparison. `compile`: gcc's time. All in milliseconds."""

    what: str
    megabytes: float
    types: int
    new: float
    cpu: float
    known: float
    compare: float
    compile: float
    target: float


def measure(folder: Path, rounds: int) -> Iterator[Row]:
    """A C file of 3,000 lines with system headers, and a C++ file with many of the library's templates."""
    includes = "".join(f"#include <{name}.h>\n" for name in _HEADERS.split())
    text, functions = "", 0
    while text.count("\n") < _LINES:
        functions += 12
        text = includes + source_of(functions, 0)
    yield _row("C, 3000 lines", folder / "unit.c", text, TARGET, rounds)
    yield _row("C++, many templates", folder / "unit.cpp", TEMPLATES, 0.0, rounds)


def line(row: Row) -> str:
    return (
        f"{row.what:22} {row.megabytes:9.2f} {row.types:7} {row.new:13.1f} {row.cpu:8.1f} {row.known:10.1f} "
        f"{row.compare:12.1f} {row.compile:12.0f} {row.target or '-':>11}"
    )


def _row(what: str, source: Path, text: str, target: float, rounds: int) -> Row:
    source.write_text(text)
    start = time.perf_counter()
    subprocess.run(
        ["g++" if source.suffix == ".cpp" else "gcc", "-w", *FLAGS, "-c", source], cwd=source.parent, check=True
    )
    compiling = (time.perf_counter() - start) * 1000
    graph = read_unit(source.with_suffix(".o").read_bytes(), str(source))
    look_seldom()
    types = _read(graph)
    size = sum(len(section.content) for section in graph.side if section.name in (".debug_info", ".debug_str"))
    new = times_of(lambda: _read(graph), rounds, layouts.forget)
    known = times_of(lambda: _read(graph), rounds)
    other = layouts.types_of_object(graph)
    compared = times_of(lambda: layout_changes(types, other, source.name), rounds)
    return Row(
        what, size / 1e6, len(types.aggregates), new.median, new.cpu, known.median, compared.median, compiling, target
    )


def _read(graph: LinkGraph) -> UnitTypes:
    return layouts.types_of_object(replace(graph, side=(*graph.side,)))  # as one that was not asked about before
