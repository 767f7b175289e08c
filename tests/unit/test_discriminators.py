"""Static variables of one C++ function that have one name are told apart by who uses them, not by their number."""

from __future__ import annotations

import pytest
from objects_from_c import compiled

from ipbp.formats.elf_object import read_object
from ipbp.stages.correlate import UNPAIRED, correlate
from ipbp.stages.discriminators import without_discriminator

FUNCTION = """
int first(), second(), third(), made(int);
struct Made {{ int n; Made(int x) : n(made(x)) {{}} ~Made(); }};
{how} int f(int x)
{{
{blocks}
    return 0;
}}
int use(int x) {{ return f(x); }}
"""
A = "if (first() == x) { static int n = 10; return ++n; }\n"
B = "if (second() == x) { static int n = 20; return ++n; }\n"
C = "if (third() == x) { static Made n{x}; return ++n.n; }\n"


def pairs(before: str, after: str, compiler: str, level: str, how: str = "") -> dict[str, str]:
    """New variable or guard -> the old one, "?" where that is ambiguous, "" where there is none."""
    flags = (level, "-ffunction-sections", "-fdata-sections")
    old, new = (
        read_object(compiled(FUNCTION.format(how=how, blocks=blocks), compiler, flags, "unit.cc"), "unit.cc")
        for blocks in (before, after)
    )
    found = correlate(old, new)
    doubtful = {row for row, _ in found.ambiguous}
    result = {}
    for row, name in enumerate(new.symbols.name):
        if name.startswith(("_ZZ1fiE1n", "_ZGVZ1fiE1n")):
            pair = int(found.symbol[row])
            result[name] = "?" if row in doubtful else old.symbols.name[pair] if pair != UNPAIRED else ""
    return result


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_they_move_up_and_down_with_the_blocks_that_they_are_in(compiler: str, level: str) -> None:
    one, other, guard = "_ZZ1fiE1n", "_ZZ1fiE1n_0", "_ZGVZ1fiE1n"
    assert pairs(A + B, A + B, compiler, level) == {one: one, other: other}
    assert pairs(A + B, B + A, compiler, level) == {one: other, other: one}
    assert pairs(A + B, B, compiler, level) == {one: other}
    assert pairs(B, A + B, compiler, level) == {one: "", other: one}
    assert pairs(C, A + C, compiler, level) == {one: "", other: one, f"{guard}_0": guard}
    assert pairs(A + C, C, compiler, level) == {one: other, guard: f"{guard}_0"}


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_where_nothing_tells_them_apart_that_is_said(compiler: str) -> None:
    alike = A.replace("10", "70")
    assert set(pairs(A + A, alike + A + A, compiler, "-O0").values()) == {"?"}


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_an_optimiser_that_puts_them_in_a_row_does_not_mix_them_up(compiler: str) -> None:
    one, other = (f"if (x == {x}) {{ static int n = {x}0; return ++n; }}\n" for x in (1, 2))
    assert set(pairs(one + other, one.replace("1", "7") + one + other, compiler, "-O2").values()) == {"?"}


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_where_other_files_share_them_by_their_names_a_move_is_ambiguous(compiler: str) -> None:
    one, other = "_ZZ1fiE1n", "_ZZ1fiE1n_0"
    assert pairs(A + B, A + B, compiler, "-O0", "inline") == {one: one, other: other}
    assert pairs(A + B, B + A, compiler, "-O0", "inline") == {one: "?", other: "?"}
    assert pairs(B, A + B, compiler, "-O0", "inline") == {one: "?", other: "?"}
    assert pairs(A, A + B, compiler, "-O0", "inline") == {one: one, other: ""}


def test_what_the_name_itself_ends_with_is_no_number() -> None:
    assert without_discriminator("_ZZ1fiE1n_0") == "_ZZ1fiE1n"
    assert without_discriminator("_ZZ1fiE1n__12_") == "_ZZ1fiE1n"
    assert without_discriminator("_ZZ1fiE3n_0") == "_ZZ1fiE3n_0"
    assert without_discriminator("_ZZ1fiE1sB5cxx11_0") == "_ZZ1fiE1sB5cxx11"
    assert without_discriminator("_ZZ1fiENKUliE_clEiE1n_0") == "_ZZ1fiENKUliE_clEiE1n"
