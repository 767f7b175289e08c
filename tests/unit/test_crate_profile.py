"""What options of rustc say about whether a program can be patched."""

from __future__ import annotations

import pytest

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.crate_profile import refuse_lto
from ipbp.build.rustc_replay import asks_for_types


def crate(kind: str, *options: str) -> CrateCommand:
    words = [word for option in options for word in ("-C", option)]
    arguments = ("rustc", "--crate-name", "mill", "src/main.rs", "--crate-type", kind, *words)
    return CrateCommand("mill", "mill-1f", kind, "/w", "/w/t", "/w/src/main.rs", arguments, (), (), True, True)


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (["lto=fat"], 'lto = "fat"'),
        (["lto"], 'lto = "fat"'),
        (["lto=thin"], 'lto = "thin"'),
        (["linker-plugin-lto"], "-C linker-plugin-lto"),
    ],
)
def test_lto_over_crates_is_refused_by_its_name(options: list[str], setting: str) -> None:
    (refusal,) = refuse_lto([crate("lib", "linker-plugin-lto"), crate("bin", *options)])
    assert refusal.code == "lto"
    assert f"`{setting}`" in refusal.fact


@pytest.mark.parametrize("options", [[], ["lto=off"], ["lto=thin-local"], ["embed-bitcode=no"]])
def test_lto_within_a_crate_is_no_obstacle(options: list[str]) -> None:
    assert not refuse_lto([crate("lib", *options), crate("bin", *options)])


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("-C", "debuginfo=2"), True),
        (("-C", "debuginfo=full"), True),
        (("-g",), True),
        (("-C", "debuginfo=1"), False),
        (("-C", "debuginfo=line-tables-only"), False),
        (("-C", "debuginfo=2", "-C", "debuginfo=0"), False),
        ((), False),
    ],
)
def test_types_are_described_at_the_full_level_only(words: tuple[str, ...], asked: bool) -> None:
    assert asks_for_types(("rustc", "--crate-name", "app", *words)) is asked
