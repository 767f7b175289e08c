"""New code uses variables and types of libraries that the program has never mentioned, and that lie far away."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import build_one, debugged

pytestmark = pytest.mark.live

EDITS = [
    ("x + 1;", 'fprintf(stderr, "%d\\n", x) ? x + 100 : 0;', "05", "105"),
    (
        "return x + 2;",
        'try { throw std::out_of_range("far"); } catch (const std::logic_error &e) { return x + e.what()[0]; }',
        "11",
        "103",
    ),
    ("x + 3;", "(std::cerr << x) ? x + 300 : 0;", "25", "305"),
]


@pytest.mark.parametrize(
    ("debugger", "compiler", "flags"),
    [
        ("gdb", "g++", "-O2"),
        ("lldb", "clang++-19", "-O0 -fno-pie -no-pie"),
        pytest.param("lldb", "g++", "-O0 -fno-pie -no-pie", marks=pytest.mark.slow),
        pytest.param("gdb", "clang++-19", "-O2", marks=pytest.mark.slow),
    ],
)
def test_it_is_reached_where_the_program_was_not_linked_with_it(
    debugger: str, compiler: str, flags: str, tmp_path: Path
) -> None:
    link = ["-no-pie"] if "-no-pie" in flags else []
    words = [word for word in flags.split() if word != "-no-pie"]
    project = build_one(tmp_path / "quiet", "quiet", *words, compiler=compiler, link=link, suffix="cpp")
    source = project.folder / "quiet.cpp"
    with debugged(project.program, debugger) as (session, talk):
        for old, new, ask, answer in EDITS:
            source.write_text(source.read_text().replace(old, new))
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", outcome
            assert talk.ask(ask) == answer
        source.write_text(source.read_text().replace("x + 300", "x + 3000"))
        assert session.call("apply")["outcome"] == "patched"
        assert [talk.ask(row[2]) for row in EDITS] == ["105", "103", "3005"]
        assert session.call("undo 0")["outcome"] == "undone"
        assert [talk.ask(row[2]) for row in EDITS] == ["6", "3", "8"]
        assert talk.close() == 0
