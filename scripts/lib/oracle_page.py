"""The section of docs/reliability.md about the linker, from what `scripts/oracle` printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reliability import write_section

_ROW = re.compile(
    r"^\.?(\S+), (.*): (\d+) fixups of code and data, (\d+) of debug information, (\d+) unwind rows: no difference",
    re.M,
)


def section(output: str) -> list[str]:
    """Markdown, line by line. `output`: of all runs; a run with a difference says nothing of this kind."""
    rows = _ROW.findall(output)
    programs = dict.fromkeys(name for name, *_ in rows)
    totals = [sum(int(row[column]) for row in rows) for column in (2, 3, 4)]
    lines = [
        "## Linking, held against GNU ld",
        "",
        "All objects of whole programs, linked in memory and by GNU ld at the same addresses; every byte of code and "
        "data, of debug information, and all unwind rows are compared. ld is told not to relax instructions and not to "
        "merge strings.",
        "",
        "```",
        "scripts/oracle --report",
        "```",
        "",
        f"{len(rows)} links of {', '.join(programs)}: {totals[0]:,} fixups of code and data, {totals[1]:,} of debug "
        f"information, {totals[2]:,} unwind rows, **no difference**.",
        "",
        "| program | links | fixups of code and data | of debug information | unwind rows |",
        "|---|---|---|---|---|",
    ]
    for name in programs:
        own = [row for row in rows if row[0] == name]
        sums = " | ".join(f"{sum(int(row[column]) for row in own):,}" for column in (2, 3, 4))
        lines.append(f"| {name} | {len(own)} | {sums} |")
    return [*lines, "", "Not covered here: lld and mold as the judge, relaxed instructions, other programs."]


if __name__ == "__main__":
    write_section("oracle", section(Path(sys.argv[1]).read_text()))
