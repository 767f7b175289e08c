"""Units without debug information in a program whose other units have it: which are its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_program import compile_object, graph_of, run

from ipbp.build.command import Command
from ipbp.build.entries import of_files, undescribed
from ipbp.formats.elf_image import read_image
from ipbp.pipeline.homes import has_undescribed


def test_only_what_no_described_unit_has_makes_a_file_a_part_of_the_program(tmp_path: Path) -> None:
    main = compile_object(tmp_path, "main", "int plain(int); int main(void) { return plain(0); }\n", "-g")
    plain = compile_object(tmp_path, "plain", "int plain(int x) { return x; }\n")
    (tmp_path / "hand.s").write_text(".globl by_hand\nby_hand: ret\n")
    run(["gcc", "-c", "hand.s"], tmp_path)
    run(["gcc", str(main), str(plain), "hand.o", "-o", "program"], tmp_path)
    image = read_image(str(tmp_path / "program"))
    inline = "__attribute__((weak)) int plain(int x) { return x; }\n"
    other = compile_object(tmp_path, "other", f"{inline}int main(void) {{ return plain(1); }}\n")
    assert has_undescribed(image, graph_of(plain))
    assert has_undescribed(image, graph_of(tmp_path / "hand.o"))
    assert not has_undescribed(image, graph_of(other))
    assert not has_undescribed(image, graph_of(main))


def test_the_names_in_a_symbol_table_leave_out_what_belongs_elsewhere() -> None:
    rows = [Command(Path("/p"), Path("/p", name), None, ("gcc", "-c", name)) for name in ("a.c", "sub/b.c", "c.S")]
    assert of_files(rows, ["crtstuff.c", "b.c", ""]) == tuple(rows[1:])
    assert of_files(rows, []) == tuple(rows)


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        ("-O2", False),
        ("-g", True),
        ("-g -O2 -g0", False),
        ("-g0 -ggdb3", True),
        ("-gz -grecord-gcc-switches -gno-column-info", False),
        ("-gdwarf-4", True),
        ("-gsplit-dwarf", True),
        ("-Wa,--gdwarf-5", True),
        ("-Wa,--noexecstack", False),
    ],
)
def test_a_command_that_asks_for_debug_information_would_be_described(options: str, asks: bool) -> None:
    command = Command(Path("/p"), Path("/p/a.c"), None, ("gcc", *options.split(), "-c", "a.c"))
    assert undescribed([command]) == (() if asks else (command,))
