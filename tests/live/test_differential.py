"""`scripts/differential` sees wrong patches, counts refusals, and makes the same programs of the same seeds."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts" / "lib"))

from differential import __main__ as main  # noqa: E402
from differential import case  # noqa: E402
from differential.campaign import Campaign  # noqa: E402
from differential.generators import GENERATORS  # noqa: E402
from differential.options import Options, choose  # noqa: E402
from differential.reduce import Reduction  # noqa: E402
from differential.report import read, section  # noqa: E402
from reliability import write_section  # noqa: E402

pytestmark = pytest.mark.live
EDITS = 5


def steps(seed: int, options: Options, folder: Path) -> list[case.Step]:
    return list(case.Case(seed, options, folder).run(EDITS))


def options(language: str = "c", debugger: str = "core") -> Options:
    compiler = "rustc" if language == "rust" else "gcc"
    return Options(language, compiler, "-O0", True, debugger)


def _goes_wrong(seed: int, chosen: Options, folder: Path) -> bool:
    try:
        return case.WRONG in {step.outcome for step in steps(seed, chosen, folder)}
    except case.Endless:  # as some programs of csmith are
        return False


def test_a_patch_that_is_not_in_the_process_is_found(tmp_path: Path) -> None:
    found = [step for seed in range(3) for step in steps(seed, options(debugger="idle"), tmp_path / str(seed))]
    wrong = [step for step in found if step.outcome == case.WRONG]
    assert wrong
    assert all(step.codes == ["differs"] for step in wrong)


@pytest.mark.slow
def test_what_goes_wrong_is_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions differ in one line, and little is left around it."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, "")  # a reduction sets them for itself
    assert Reduction(7, options(debugger="idle"), EDITS, tmp_path, 0.0).run()
    before, after = ((tmp_path / number / "a.c").read_text().splitlines() for number in "01")
    assert len(before) < 60
    assert len(set(before) ^ set(after)) == 1


@pytest.mark.slow
def test_what_cvise_makes_of_a_text_in_its_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("cvise") is None:
        pytest.skip("cvise is not installed (apt-get install cvise)")
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, "")
    chosen = options("csmith", debugger="idle")
    seed = next(seed for seed in range(50) if _goes_wrong(seed, chosen, tmp_path / str(seed)))
    whole = (tmp_path / str(seed) / "project" / "program.c").stat().st_size
    assert Reduction(seed, chosen, EDITS, tmp_path / "small", 120.0).run()
    assert sum((tmp_path / "small" / version / "program.c").stat().st_size for version in "01") < 1.95 * whole


@pytest.mark.parametrize("language", ["c", "csmith", "cxx", "rust"])
def test_patches_without_a_debugger_do_what_a_fresh_build_does(language: str, tmp_path: Path) -> None:
    found = steps(4, options(language), tmp_path)
    assert {step.outcome for step in found} <= {case.SAME, case.UNCHANGED}
    assert any(step.outcome == case.SAME for step in found)


def test_the_core_by_ptrace_leaves_the_program_running_untraced(tmp_path: Path) -> None:
    """What `CoreHost` does is what a debugger does: `TracerPid` is 0 again, and no thread is stopped."""
    made = case.Case(3, options("cxx"), tmp_path)
    for _ in made.run(2):
        assert made.pid is not None
        for status in Path(f"/proc/{made.pid}/task").glob("*/status"):
            rows = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            assert rows["TracerPid"] == "0"
            assert not rows["State"].lower().startswith("t")


@pytest.mark.parametrize("language", sorted(GENERATORS))
def test_a_seed_makes_the_same_program_and_edits_again(language: str) -> None:
    generator = GENERATORS[language]

    def texts() -> list[dict[str, str]]:
        rng = Random("seed")
        program = generator.generate(rng)
        edited, _ = generator.edit(rng, program)
        return [generator.render(program), generator.render(edited)]

    assert texts() == texts()


def test_what_is_given_changes_no_other_choice() -> None:
    for seed in range(50):
        free = choose(seed, {})
        assert choose(seed, {"debugger": "lldb", "level": "-Os"}) == Options(
            free.language, free.compiler, "-Os", free.pie, "lldb", free.library, free.flags
        )


def test_a_second_file_may_be_a_library_where_there_are_two() -> None:
    rows = [choose(seed, {"library": True}) for seed in range(50)]
    assert {row.language for row in rows if row.library} == {"c", "cxx"}
    assert not any(choose(seed, {"library": True, "debugger": "qemu"}).library for seed in range(50))


def test_a_campaign_goes_on_with_its_log(tmp_path: Path) -> None:
    def campaign(count: int) -> list[int]:
        given = {"language": "c", "compiler": "gcc", "level": "-O0", "debugger": "core"}
        log = tmp_path / "log"
        Campaign(1, count, 2, 1, given, tmp_path / "keep", log).run()
        return [row["done"] for row in map(json.loads, log.read_text().splitlines()) if "done" in row]

    first = campaign(2)
    assert campaign(6)[: len(first)] == first
    assert len(set(campaign(6))) == len(campaign(6))


def test_the_report_counts_what_the_log_holds_and_leaves_other_sections_alone(tmp_path: Path) -> None:
    def row(outcome: str, *codes: str, **more: object) -> dict[str, object]:
        return {**options().to_json(), "seed": 7, "step": 0, "outcome": outcome, "codes": list(codes), **more}

    rows = [
        row("same", times={"all": 1.0}),
        row("wrong", "differs"),
        row("refused", "layout-changed"),
        row("refused", "variable-split"),
        row("tool", "x"),
    ]
    log, page = tmp_path / "log", tmp_path / "page.md"
    log.write_text("".join(json.dumps(line) + "\n" for line in [*rows, {"done": 7}]))
    write_section("faults", ["of another tool"], page)
    for _ in range(2):
        write_section("differential", section(read([log]), ["the command"]), page)
    text = page.read_text()
    assert text.count("of another tool") == text.count("## Random edits") == 1
    assert "4 edits of 1 programs (seeds 7 to 7): **1 wrong**, 1 patched and the same, 0 without" in text
    assert "In 25.0 % of all edits" in text
    assert "| C | 4 | 1 | 0 | 2 | 1 |" in text
    assert "Not counted: 1 rows" in text


def test_the_command_is_told_without_its_files() -> None:
    words = ["--log", "x", "--count", "9", "--keep", "y", "--seed", "3"]
    assert main._told(words) == "scripts/differential --count 9 --seed 3"
