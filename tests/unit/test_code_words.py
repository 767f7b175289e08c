"""What tells two pieces of code apart: their instructions as words, and the source lines that those are of."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_program import compile_object, graph_of

from ipbp.formats.line_rows import line_rows
from ipbp.graph.types import Waits
from ipbp.stages.code_words import CodeWords, likeness

SOURCE = """
extern int far(int);
int first(int x)
{
    x = far(x + 1);
    x = far(x + 2);
    return x;
}
int second(int x) { int room[40]; room[x] = x; return far(room[1]); }
int third(int x) { return far(x * 3) + far(5); }
"""


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_lines_are_those_of_the_source(tmp_path: Path, clang: str, compiler: str, version: str) -> None:
    cc = clang if compiler == "clang" else "gcc"
    graph = graph_of(compile_object(tmp_path, "lines", SOURCE, f"-gdwarf-{version}", "-ffunction-sections", cc=cc))
    block = CodeWords(graph, {}).block_of("first")
    found = [line_rows(graph, Waits(0, 0, file, {}), block) for file in (0, 1)]
    # Compilers number their files from 0 or from 1, and differ in what they count as the first and the last line.
    lines = {line for rows in found for _, line in rows if line}
    assert {5, 6, 7} <= lines <= set(range(3, 9))
    for rows in found:
        assert rows[0][0] == 0
        assert [offset for offset, _ in rows] == sorted(offset for offset, _ in rows)
    assert line_rows(graph, Waits(7, 0, 1, {}), block) == []


def test_words_are_what_a_function_does_wherever_it_lies(tmp_path: Path) -> None:
    def words(name: str, source: str) -> list[str]:
        code = CodeWords(graph_of(compile_object(tmp_path, name, source, "-O1")), {})
        return [word for _, word in code.of_block(code.block_of("first"))]

    same = words("a", SOURCE)
    assert likeness(same, words("b", SOURCE.replace("int first", "int before(int x) { return x; }\nint first"))) == 1
    other = words("c", SOURCE.replace("far(x + 2)", "far(x + 20)"))
    assert 0.5 < likeness(same, other) < 1
    assert likeness(same, words("d", SOURCE.replace("far(x + 1)", "x ^ 77 / x"))) < likeness(same, other)
