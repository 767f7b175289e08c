"""A header that a hundred units include and two of them use: all are compiled again, two functions are patched."""

from __future__ import annotations

from pathlib import Path

from planned import build_sources, plan_for, write_sources
from running_program import running

UNITS = 100
USERS = (7, 42)


def sources() -> dict[str, str]:
    files = {
        f"unit{n}.c": f'#include "wide.h"\nstatic int kept{n} = {n};\n'
        f"int f{n}(int x) {{ return x * {'FACTOR' if n in USERS else n} + ++kept{n}; }}\n"
        for n in range(UNITS)
    }
    calls = " + ".join(f"f{n}(1)" for n in range(UNITS))
    declared = "".join(f"int f{n}(int);\n" for n in range(UNITS))
    main = f"{declared}int main(void) {{ ready_and_wait(); return {calls}; }}\n"
    return {**files, "wide.h": "#define FACTOR 3\nextern int declared;\n", "main.c": main}


def test_only_the_units_that_use_what_changed_are_patched(tmp_path: Path) -> None:
    with running(build_sources(tmp_path / "tree", sources(), "-O2")) as process:
        write_sources(tmp_path / "tree", {"wide.h": "#define FACTOR 5\nextern int declared, more;\n"})
        outcome = plan_for(process)
    assert outcome.plan is not None
    assert {row.name: row.status for row in outcome.plan.functions} == {f"f{n}": "changed" for n in USERS}
    assert {Path(row.file).name for row in outcome.plan.functions} == {f"unit{n}.c" for n in USERS}
    assert outcome.plan.times["compile"] > 0
