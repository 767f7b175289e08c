"""`scripts/bench` measures what it says, on inputs of every size that it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "lib" / "bench.py"


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True, timeout=300)


def test_small_sizes_are_measured_with_their_growth() -> None:
    run = bench("diff", "index", "--sizes", "0.05,0.2", "--functions", "12", "--rounds", "1", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {part: [row["what"] for row in rows["rows"]] for part, rows in found.items()} == {
        "diff": ["diff"] * 2,
        "index": [*["symbol index, cold", "symbol index, kept"] * 2, "350k symbols, cold", "350k symbols, kept"],
    }
    for part in found.values():
        rows = [row for row in part["rows"] if "350k" not in row["what"]]
        assert all(0 < row["least"] <= row["median"] and row["x_hash"] > 0 for row in rows)
        assert rows[-1]["megabytes"] > 2 * rows[0]["megabytes"]
        assert [row["growth"] == 0 for row in rows] == [row["megabytes"] == rows[0]["megabytes"] for row in rows]
    assert all(row["compile"] > 0 for row in found["diff"]["rows"])


@pytest.mark.slow
def test_crates_are_measured_beside_cargo_with_each_linker() -> None:
    run = bench("rust", "--lines", "1000", "--rounds", "1", "--json")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)["rust"]["rows"]
    assert [row["shape"] for row in rows] == ["small", "large", "library"]
    for row in rows:
        assert row["rustc"] > 0
        assert row["ours"] >= row["least"] > row["diff"] > 0
        assert row["cargo"].keys() == {"bfd", "lld", "mold"}


@pytest.mark.slow
def test_types_are_measured_on_both_sides() -> None:
    run = bench("types", "--rounds", "1", "--json")
    assert run.returncode == 0, run.stderr
    plain, templates = json.loads(run.stdout)["types"]["rows"]
    for row in (plain, templates):
        assert row["types"] > 100
        assert row["new"] > row["known"] > 0
        assert row["compare"] > 0
    assert plain["cpu"] < plain["target"]


def test_announcements_are_measured_in_each_debugger_with_and_without_a_breakpoint() -> None:
    run = bench("symbols", "--sizes", "0.1", "--rounds", "1", "--json")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)["symbols"]["rows"]
    assert [(row["debugger"], row["has_breakpoint"]) for row in rows] == [
        (debugger, point) for debugger in ("gdb", "lldb") for point in (False, True)
    ]
    assert all(0 < row["least"] <= row["median"] and 0.05 < row["megabytes"] < 0.2 for row in rows)


def test_a_part_that_there_is_not_is_named() -> None:
    run = bench("link")
    assert run.returncode == 2
    assert "there is no link" in run.stderr
