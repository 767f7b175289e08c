"""Debug information says the same whether its abbreviation tables are read whole or as far as they are needed."""

from __future__ import annotations

import io
import subprocess

import pytest
from elftools.common.exceptions import DWARFError
from elftools.elf.elffile import ELFFile

from ipbp.build.abbreviations import read_as_needed

SOURCE = "struct s { int a, b; }; int f(struct s *p, ...) { switch (p->a) { case 1: return p->b; } return sizeof *p; }"


@pytest.mark.parametrize("compiler", ["gcc -gdwarf-4", "gcc -gdwarf-5", "clang-19 -gdwarf-5"])
def test_all_entries_are_those_of_the_whole_tables(compiler: str, tmp_path) -> None:
    path = tmp_path / "unit.o"
    words = [*compiler.split(), "-O2", "-x", "c", "-c", "-", "-o", str(path)]
    subprocess.run(words, input=SOURCE.encode(), check=True, timeout=120)
    entries = []
    for change in (lambda dwarf: None, read_as_needed):
        dwarf = ELFFile(io.BytesIO(path.read_bytes())).get_dwarf_info()
        change(dwarf)
        entries.append([(die.tag, die.attributes) for cu in dwarf.iter_CUs() for die in reversed([*cu.iter_DIEs()])])
    assert entries[0] == entries[1]
    assert len(entries[0]) > 8

    dwarf = ELFFile(io.BytesIO(path.read_bytes())).get_dwarf_info()
    read_as_needed(dwarf)
    table = dwarf.get_abbrev_table(0)
    with pytest.raises(KeyError):
        table.get_abbrev(10_000)
    with pytest.raises(DWARFError):
        dwarf.get_abbrev_table(1 << 30)
