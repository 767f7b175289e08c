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
    machine = found.pop("machine")
    assert all(machine.values())
    assert found.pop("rounds") == 1
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
    assert [row["shape"] for row in rows] == ["small", "large", "library", "no git"]
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


@pytest.mark.live
def test_an_edit_goes_live_beside_what_else_a_user_could_do() -> None:
    run = bench("live", "gdb", "--cases", "small", "--rounds", "1", "--json")
    assert run.returncode == 0, run.stderr  # not so when a program does not run the edited code
    rows = {row["way"]: row for row in json.loads(run.stdout)["live"]["rows"]}
    ours = rows.pop("ipbp in gdb")
    assert {f"compile, link with {name}, restart" for name in ("bfd", "lld", "mold")} < rows.keys()
    assert [way for way in rows if rows[way]["keeps_state"]] == [
        "shared library, dlopen by gdb",
        "gdb's compile code",
        "frida's Interceptor.replace",
    ]
    assert 0 < ours["compiler"] < ours["live"]["median"]
    assert sum(ours["parts"].values()) == pytest.approx(ours["beyond"]["median"], rel=1e-6)  # of one round
    # However slow the machine is: a stop is a small part of the way, and the engine is no hog.
    assert 0 < ours["stopped"]["median"] < ours["live"]["median"] / 2
    assert 0 < ours["engine"] < 400


@pytest.mark.live
def test_the_stop_is_measured_beside_that_of_a_bare_ptrace_program() -> None:
    run = bench("growth", "gdb", "--of", "functions", "--counts", "1,100", "--rounds", "1", "--json")
    assert run.returncode == 0, run.stderr
    one, hundred = json.loads(run.stdout)["growth"]["rows"]
    assert (one["count"], hundred["count"]) == (1, 100)
    assert all(row["floor"]["median"] > 0 for row in (one, hundred))
    assert hundred["beyond"]["median"] < 50 * one["beyond"]["median"], "a hundred functions are not a hundred patches"


def test_the_page_holds_what_was_measured(tmp_path: Path) -> None:
    spread = {"least": 1.0, "median": 2.0, "most": 4.0}
    live = {"case": "small C file", "way": "ipbp in gdb", "live": spread, "compiler": 1.5, "beyond": spread}
    live |= {"stopped": spread, "gap": None, "engine": 100.0, "keeps_state": True, "target": 1.0, "note": ""}
    live |= {"parts": {"compare": 0.75, "stopped": 1.25}}
    growth = [
        {"what": "threads", "count": count, "debugger": "gdb", "stopped": dict(spread, median=2.0 * count)}
        | {"floor": spread, "beyond": spread, "cold": 5.0, "kept": 0.0, "engine": 100.0}
        | {"stop_target": 3.0 * (count == 1), "memory_target": 0.0}
        for count in (1, 10)
    ]
    found = {"machine": json.loads(in_scripts("bench_machine, json; print(json.dumps(bench_machine.machine()))"))}
    symbols = {"debugger": "lldb", "has_breakpoint": True, "megabytes": 20.0, "median": 9.0, "least": 8.0, "stopped": 7}
    types = {"what": "C, 3000 lines", "megabytes": 0.1, "types": 1500, "new": 60.0, "cpu": 16.0, "known": 0.1}
    types |= {"compare": 50.0, "compile": 900.0, "target": 100.0}
    found |= {"rounds": 3, "live": {"rows": [live]}, "growth": {"rows": growth}}
    found |= {"symbols": {"rows": [symbols]}, "types": {"rows": [types]}}
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(found))
    in_scripts(
        f"bench_page, json, pathlib; bench_page.write(json.load(open({str(saved)!r})), pathlib.Path({str(tmp_path)!r}))"
    )
    page = (tmp_path / "performance.md").read_text()
    assert "| ipbp in gdb | 2 | 2 | 1.00 / **2.00** / 4.00 |" in page
    assert "ipbp in gdb 2.0 (missed)" in page
    assert "| small C file, ipbp in gdb | 0.8 | 1.2 |" in page
    assert "What is above its aim" in page
    assert "measured 2.0 (met)" in page
    assert "stopped, gdb 1.00; edit to live without the compiler, gdb 0.00" in page
    assert "| lldb | 20.0 | yes | 9.0 | 7.0 |" in page
    assert "| C, 3000 lines | 0.10 | 1,500 | 60.0 | 16.0 | 0.1 | 50.0 | 900 |" in page
    assert "read and compared 110.0 (missed)" in page
    assert (tmp_path / "performance" / "threads.svg").read_text().count("<svg") == 1


def in_scripts(what: str) -> str:
    """What Python says after it has imported that."""
    return subprocess.run(
        [sys.executable, "-c", f"import {what}"],
        cwd=BENCH.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
