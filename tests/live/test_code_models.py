"""Programs of the medium and large code models, with variables that no 32-bit distance spans: patched, state kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import Edit, Talk
from sessions import build_one, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

BUILDS = {
    "gcc medium": ("gcc", ["-O2", "-mcmodel=medium"], "-pie"),
    "gcc large": ("gcc", ["-O2", "-mcmodel=large"], "-pie"),
    "gcc large, fixed": ("gcc", ["-O0", "-mcmodel=large", "-fno-pie"], "-no-pie"),
    "clang medium, fixed": ("clang", ["-O2", "-mcmodel=medium", "-fno-pie"], "-no-pie"),
    "clang large": ("clang", ["-O2", "-mcmodel=large", "-fPIE"], "-pie"),
}
CHANGE = Edit(
    "a new variable, a new function, and another distance",
    "large.c",
    [
        ("__attribute__((noinline)) int edited", "static int fresh[5000];\n__attribute__((noinline)) int edited"),
        (
            "return helper(x) + 100 * far_away[SIZE - 1];",
            "far_away[2] += 2; fresh[x] += 5;\n"
            "    return helper(x) + 1000 * far_away[SIZE - 1] + 100 * fresh[x]"
            ' + (int)strspn("aab", "a") * far_away[2];',
        ),
    ],
    [],
    ["edited"],
)


@pytest.mark.parametrize(
    ("debugger", "build"),
    [
        ("gdb", "gcc medium"),
        ("lldb", "gcc medium"),
        ("gdb", "gcc large"),
        ("lldb", "gcc large, fixed"),
        ("gdb", "clang medium, fixed"),
        ("lldb", "clang large"),
    ],
)
def test_far_variables_are_reached_by_new_code_and_keep_their_values(
    build: str, debugger: str, clang: str, tmp_path: Path
) -> None:
    compiler, flags, kind = BUILDS[build]
    project = build_one(
        tmp_path / "project", "large", *flags, compiler=clang if compiler == "clang" else compiler, link=[kind]
    )
    program = Talk(project.program)
    try:
        assert program.ask("edited 3") == "113"
        project.edit(CHANGE)
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(program.process.pid)
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", repr(outcome)
            assert "edited" in {row["name"] for row in outcome["functions"]}
            session.detach()
        # 3 + 11, the far variable's second count, the new one's first, and the far variable's other end.
        assert program.ask("edited 3") == str(14 + 2000 + 500 + 4)
        assert program.ask("?") == "12 2 2"
        assert program.close() == 0
    finally:
        program.kill()
