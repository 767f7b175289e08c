"""Random programs for AArch64, patched with random edits in qemu-user, do what a fresh build does."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

from differential import case
from differential.options import Options
from differential.stub import case_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


def outcomes(chosen: Options, seeds: range, edits: int, folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        for step in case_of(seed, chosen, folder / str(seed)).run(edits):
            assert step.outcome not in (case.WRONG, case.TOOL), (seed, step)
            found[step.outcome] += 1
    return found


@pytest.mark.parametrize(
    ("language", "compiler", "level"), [("c", "gcc", "-O0"), ("c", "clang", "-O2"), ("csmith", "gcc", "-O2")]
)
def test_patches_do_what_a_fresh_build_does(language: str, compiler: str, level: str, tmp_path: Path) -> None:
    found = outcomes(Options(language, compiler, level, True, "qemu"), range(4, 6), 4, tmp_path)
    assert found[case.SAME] > 0, found


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("language", ["c", "csmith"])
def test_many_patches_do_what_a_fresh_build_does(language: str, compiler: str, tmp_path: Path) -> None:
    for number, level in enumerate(("-O0", "-O1", "-O2", "-Os")):
        chosen = Options(language, compiler, level, number % 2 == 0, "qemu")
        assert outcomes(chosen, range(10 * number, 10 * number + 8), 6, tmp_path / level)[case.SAME] > 0
