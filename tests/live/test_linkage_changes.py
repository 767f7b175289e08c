"""C++: a function that is made global, or takes more, keeps its static variables, and so does a variable its value."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import Talk
from sessions import build_one, ipbp

pytestmark = pytest.mark.live


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_state_stays_when_the_linkage_changes(compiler: str, level: str, tmp_path: Path) -> None:
    project = build_one(tmp_path / "project", "static", level, compiler=compiler, suffix="cpp")
    path = project.folder / "static.cpp"
    static = path.read_text()
    plain = static.replace(") static unsigned count", ") unsigned count").replace(
        "static unsigned total", "unsigned total"
    )
    talk = Talk(project.program)
    assert [talk.ask("count 1"), talk.hear()] == ["made", "24104"]
    for text, factor, answer in ((plain, 2000, "10205"), (static, 3000, "16306")):
        path.write_text(text.replace("made.n * 10000", f"made.n * {factor}"))
        assert ipbp("apply", talk.process.pid, "gdb")["outcome"] == "patched"
        assert talk.ask("count 1") == answer
    more = static.replace("count(unsigned x)", "count(unsigned x, unsigned y)").replace("count(x)", "count(x, 500)")
    path.write_text(more.replace("100 + total", "100 + total + y"))
    assert ipbp("apply", talk.process.pid, "gdb")["outcome"] == "patched"
    assert talk.ask("count 1") == "54907"
    talk.kill()
