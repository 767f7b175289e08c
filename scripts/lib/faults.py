"""The tests of faults, all of them, and the section of docs/reliability.md that says what was tried."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path

from reliability import write_section

FILES = (
    "test_debugger_dies",
    "test_engine_dies",
    "test_faults",
    "test_odd_paths",
    "test_private_files",
    "test_consent",
)


def main(words: list[str]) -> int:
    """pytest's status. The section is written whether or not something failed: it says so."""
    options = [word for word in words if word != "--report"]
    files = [f"tests/live/{name}.py" for name in FILES]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        done = subprocess.run([sys.executable, "-m", "pytest", f"--junitxml={results}", *options, *files], check=False)
        if "--report" in words:
            write_section("faults", section(results, options))
    return done.returncode


def section(results: Path, options: list[str]) -> list[str]:
    """A row for each test: how many cases of it there were, passed, failed, and were skipped."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for case in xml.parse(results).iter("testcase"):
        name = re.sub(r"\[.*", "", case.get("name", ""), flags=re.DOTALL)
        kinds = {child.tag for child in case}
        kind = "skipped" if "skipped" in kinds else "failed" if kinds & {"failure", "error"} else "passed"
        found.setdefault((case.get("classname", "").rpartition(".")[2], name), Counter())[kind] += 1
    lines = [
        "## Faults",
        "",
        "What was done to patches while they were made, with gdb and with lldb (`scripts/faults`).",
        "",
    ]
    lines += ["| what | passed | failed | skipped |", "|---|---|---|---|"]
    for (_file, name), counts in found.items():
        what = name.removeprefix("test_").replace("_", " ")
        lines.append(f"| {what} | {counts['passed']} | {counts['failed']} | {counts['skipped']} |")
    return [*lines, "", f"By `scripts/faults {' '.join(options)}`.".replace(" `", "`").replace("By`", "By `")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
