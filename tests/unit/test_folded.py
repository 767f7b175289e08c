"""A static function that gold folded into another file's has no symbol; the debug information knows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_program import run

from ipbp.formats.elf_image import read_image
from ipbp.pipeline.folded import folded_elsewhere
from ipbp.stages.select import Replaced

ONE = """
__attribute__((noinline)) static int twin_one(int n) { return n * 7 - 3; }
__attribute__((noinline)) static int alone(int n) { return n * 9 - 4; }
int (*volatile taken)(int) = twin_one;
int one(int n) { return twin_one(n) + taken(n) + alone(n); }
"""
TWO = """
int one(int);
__attribute__((noinline)) static int twin_two(int n) { return n * 7 - 3; }
int two(int n) { return twin_two(n + 1) * 2; }
int main(int argc, char **argv) { return one(argc) + two(argc); }
"""


@pytest.mark.parametrize("folding", [True, False])
def test_an_entry_that_another_file_shares_is_refused(folding: bool, clang: str, tmp_path: Path) -> None:
    (tmp_path / "one.c").write_text(ONE)
    (tmp_path / "two.c").write_text(TWO)
    link = ["-fuse-ld=gold", *(["-Wl,--icf=all"] if folding else [])]
    run(["gcc", "-O2", "-g", "-ffunction-sections", "-c", "one.c", "two.c"], tmp_path)
    run([clang, *link, "one.o", "two.o", "-o", "program"], tmp_path)
    image = read_image(str(tmp_path / "program"), 0x10000)
    assert bool(image.symbols.by_name.get("twin_two")) != folding

    def refused(name: str) -> list[str]:
        (row,) = image.symbols.by_name[name]
        replaced = Replaced(0, name, int(image.symbols.address[row]), int(image.symbols.size[row]))
        return [refusal.fact for refusal in folded_elsewhere(image, [replaced])]

    assert refused("alone") == refused("one") == []
    assert len(refused("twin_one")) == folding
    for fact in refused("twin_one"):
        assert "one.c" in fact
        assert "two.c" in fact
