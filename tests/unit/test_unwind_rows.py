"""Unwind rows of carried code: chosen, ended by a zero record, and good enough for a real throw."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patch_maker import LOW, compile_object, graph_of, link, make_arena, undefined_names, unit_of

from ipbp.errors import IpbpError
from ipbp.formats.elf_patch import write_patch
from ipbp.graph.layout import Unwinder
from ipbp.graph.unit import Unit
from ipbp.stages.layout import layout
from ipbp.stages.unwind import carried_table, unwind_records, unwind_section

SOURCE = """
extern int other(int);
int f(int x) { return other(x) + other(x + 1); }
int g(int x) { return other(x) * other(x + 2); }
int h(int x) { return other(x) - other(x + 3); }
"""

HOST = r"""
#include <cstdio>
#include <cstdlib>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
extern "C" void __register_frame_info(const void *, void *);
extern "C" void *__deregister_frame_info(const void *);
int destroyed;
extern "C" void count_destroyed() { destroyed++; }
extern "C" int thrower(int x) { if (x > 2) throw x; return x; }
// usage: host PATCH FUNCTION EH_FRAME OBJECT: maps the patch where it belongs and calls the function.
int main(int, char **argv) {
  int fd = open(argv[1], O_RDONLY);
  Elf64_Ehdr header; Elf64_Phdr row;
  if (pread(fd, &header, sizeof header, 0) != sizeof header) return 90;
  for (int i = 0; i < header.e_phnum; i++) {
    if (pread(fd, &row, sizeof row, header.e_phoff + i * sizeof row) != sizeof row) return 91;
    if (row.p_type != PT_LOAD) continue;
    char *start = (char *)(row.p_vaddr & -4096ul);
    void *got = mmap(start, row.p_vaddr + row.p_memsz - (unsigned long)start, PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (got != start) return 92;
    if (pread(fd, (void *)row.p_vaddr, row.p_filesz, row.p_offset) != (ssize_t)row.p_filesz) return 93;
  }
  int (*function)(int) = (int (*)(int))strtoul(argv[2], 0, 0);
  void *table = (void *)strtoul(argv[3], 0, 0), *object = (void *)strtoul(argv[4], 0, 0);
  __register_frame_info(table, object);
  int quiet = function(1), caught = function(7), passed = 0;
  try { function(40); } catch (int value) { passed = value; }
  bool same = __deregister_frame_info(table) == object;
  printf("%d %d %d %d %d\n", quiet, caught, passed, destroyed, (int)same);
}
"""
THROWING = """
extern "C" void count_destroyed(); extern "C" int thrower(int);
static void leave(int *) { count_destroyed(); }
extern "C" int patched(int x) {
  int guard __attribute__((cleanup(leave))) = 0;
  try { return thrower(x) + 1000; }
  catch (int value) { if (value == 40) throw; return value + 100; }
}
"""


def _described(unit: Unit) -> list[str]:
    table = carried_table([unit])
    assert table is not None
    symbols, starts = unit.graph.symbols, []
    for record in unwind_records(memoryview(table.content), "table"):
        if not record.is_cie:
            row = int(np.flatnonzero(table.offset == record.pointer + 4)[0])
            starts.append(symbols.name[int(table.target[row])])
    return starts


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_only_carried_functions_have_rows(compiler: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    graph = graph_of(compile_object(tmp_path, SOURCE, request.getfixturevalue(compiler), "-O2", "-fPIE"))
    assert _described(unit_of(graph)) == ["f", "g", "h"]
    assert _described(unit_of(graph, carried=["g"])) == ["g"]
    assert carried_table([unit_of(graph, carried=["none"])]) is None


def test_every_row_finds_its_common_record_and_the_table_ends_with_a_zero_record(gcc: str, tmp_path: Path) -> None:
    units = [
        unit_of(graph_of(compile_object(tmp_path, SOURCE, gcc, "-O2", name=f"u{n}.c")), carried=["f", "h"])
        for n in range(2)
    ]
    table = carried_table(units)
    assert table is not None
    assert table.content[-4:] == bytes(4)
    records = unwind_records(memoryview(table.content), "table")
    assert [record.is_cie for record in records] == [True, False, False] * 2
    common = [record.start for record in records if record.is_cie]
    assert [record.cie for record in records] == [common[0]] * 3 + [common[1]] * 3


def test_the_table_lies_at_its_address_and_points_to_the_copies(gcc: str, tmp_path: Path) -> None:
    graph = graph_of(compile_object(tmp_path, SOURCE, gcc, "-O2", "-fPIE"))
    known = {"other": 0x5555_5500_0000, "f": 0x5555_5500_1000}
    linked = link([unit_of(graph, addresses=known)])
    table = linked.layout.unwind
    assert table is not None
    assert table.address % 8 == 0
    content = linked.read(table.address, len(table.content))
    first = next(r for r in unwind_records(memoryview(content), "table") if not r.is_cie)
    field = first.pointer + 4
    start = table.address + field + int.from_bytes(content[field : field + 4], "little", signed=True)
    assert start == linked.address("f")


def test_the_unwinders_own_record_is_zeroed_memory_outside_of_what_is_written(gcc: str, tmp_path: Path) -> None:
    graph = graph_of(compile_object(tmp_path, SOURCE, gcc, "-O2", "-fPIE"))
    placed = link([unit_of(graph, addresses={"other": 0x5555_5500_0000})], unwinders=(Unwinder(1, 2),)).layout
    bss = next(chunk for chunk in placed.chunks if chunk.name == ".bss")
    (row,) = placed.registrations
    assert row.record % 16 == 0
    assert bss.start <= row.record <= bss.end - 64


@pytest.mark.parametrize("cut", [2, 6, 30])
def test_a_truncated_table_is_an_error(cut: int, gcc: str, tmp_path: Path) -> None:
    section = unwind_section(graph_of(compile_object(tmp_path, SOURCE, gcc, "-O2")))
    assert section is not None
    with pytest.raises(IpbpError) as caught:
        unwind_records(section.content[:cut], "unit.o")
    assert caught.value.code == "unwind-malformed"


def test_rows_whose_data_is_not_carried_are_refused(gcc: str, tmp_path: Path) -> None:
    graph = graph_of(compile_object(tmp_path, THROWING, gcc, "-O0", "-fno-pie", name="unit.cc"))
    unit = unit_of(graph, addresses=dict.fromkeys(undefined_names(graph), LOW + 0x40_0000))
    kept = [b for b in unit.carried.tolist() if not graph.sections[graph.blocks.section[b]].name.startswith(".gcc_ex")]
    placed = layout([replace(unit, carried=np.array(kept, dtype=np.int32))], make_arena(LOW))
    assert {refusal.code for refusal in placed.refusals} == {"unwind-data-not-carried"}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_a_real_throw_goes_through_carried_code(
    compiler: str, level: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "host.cc").write_text(HOST)
    host = tmp_path / "host"
    # The whole of libgcc_eh and libstdc++ that the patch may name.
    subprocess.run(["g++", "-static", "-no-pie", tmp_path / "host.cc", "-o", host], check=True)
    listing = subprocess.run(["nm", "--defined-only", host], check=True, capture_output=True, text=True).stdout
    names = {row[2]: int(row[0], 16) for row in map(str.split, listing.splitlines()) if len(row) == 3}
    graph = graph_of(
        compile_object(tmp_path, THROWING, request.getfixturevalue(compiler), level, "-fno-pie", name="unit.cc")
    )
    known = {name: names[name] for name in undefined_names(graph)}
    linked = link([unit_of(graph, addresses=known)], make_arena(LOW), unwinders=(Unwinder(0, 0),))
    write_patch(tmp_path / "patch.elf", linked.units, linked.layout, linked.image)
    table = linked.layout.unwind
    assert table is not None
    arguments = [hex(linked.address("patched")), hex(table.address), hex(linked.layout.registrations[0].record)]
    result = subprocess.run([host, tmp_path / "patch.elf", *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1001", "107", "40", "3", "1"]
