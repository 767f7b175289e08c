"""Inputs that once failed, and some hundred new ones for each target; `scripts/fuzz` does the same a million times."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage import damaged
from fuzz_targets import TARGETS, survives

KEPT = sorted((Path(__file__).parent / "inputs").rglob("*.bin"))
RUNS = {"object": 250, "debug": 100, "requests": 150, "foreign": 400, "macho-image": 300, "pe-image": 300}
SEED = 20_000_000


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem[:8]}")
def test_what_failed_once_survives(path: Path) -> None:
    survives(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_survive(name: str) -> None:
    for content in TARGETS[name].seeds():
        survives(TARGETS[name], content)


@pytest.mark.parametrize("name", TARGETS)
def test_bad_inputs_are_answered(name: str) -> None:
    target = TARGETS[name]
    for number in range(SEED, SEED + RUNS.get(name, 1000)):
        content = damaged(target.seeds(), number)
        try:
            survives(target, content)
        except Exception as error:
            raise AssertionError(f"scripts/fuzz --blind --target {name} --seed {number} --runs 1") from error
