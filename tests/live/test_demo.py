"""The README's first command does what it says, in both debuggers, and its picture can be drawn from a run."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "scripts" / "lib"

pytestmark = pytest.mark.live


@pytest.mark.parametrize("words", [["gdb"], ["lldb"], ["rust", "gdb"], ["rust", "lldb"]], ids=" ".join)
def test_the_demo_shows_old_new_and_old_again(words: list[str]) -> None:
    run = subprocess.run([sys.executable, LIB / "demo.py", *words], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    shown = [line.strip() for line in run.stdout.splitlines()]
    pays = ["old" if line.endswith("pays 30") else "new" for line in shown if line.startswith("till ")]
    assert pays == ["old"] * 3 + ["new"] * 3 + ["old"] * 3
    # In Rust a format string has a function of its own for its arguments.
    result = next(
        line for line in shown if ("patched 4 functions" if "rust" in words else "patched 2 functions") in line
    )
    assert all(name in result for name in ("price", "serve"))
    for stage in ("compile", "diff", "link", "stopped"):
        assert f"{stage} " in result
    customers = [int(line.split()[3]) for line in shown if line.startswith("till ")]
    assert customers == sorted(customers), "the count went on through the patch and the undo"


def test_a_picture_is_one_well_formed_file(tmp_path: Path) -> None:
    program = (
        "import sys; from picture import Line, draw\n"
        "lines = [Line(0.0, 'typed', '$ a < b && c'), Line(9.0, 'result', 'patched')]\n"
        "open(sys.argv[1], 'w').write(draw(lines))"
    )
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    subprocess.run([sys.executable, "-c", program, tmp_path / "p.svg"], check=True, env=environment)
    texts = ET.parse(tmp_path / "p.svg").getroot().findall("{http://www.w3.org/2000/svg}text")
    assert [text.text for text in texts] == ["$ a < b && c", "patched"]
    assert "http" not in (tmp_path / "p.svg").read_text().replace("http://www.w3.org/2000/svg", "")
