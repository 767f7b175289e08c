"""The patch file as other tools see it: readelf, objdump, gdb and lldb read it as any linked program."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from patch_maker import HIGH, Linked, compile_object, graph_of, link, unit_of

from ipbp.formats.debug_merge import merge_debug
from ipbp.formats.debug_ranges import empty_dead_ranges
from ipbp.formats.elf_patch import patch_file, write_patch

SOURCE = """\
extern int other(int);
static int counter = 3;
struct pair { int left, right; } both;
static int zero;
__attribute__((noinline)) static int helper(int x)
{
    counter += x;
    return counter + zero++;
}
int carried(int x)
{
    both.left = helper(x);
    return other(both.left) + 1;
}
int stays(int x)
{
    return x * 2;
}
"""
SECOND = "static int counter = 8;\nint second(int x)\n{\n    return counter++ + x;\n}\n"
FAR = 0x7FFF_F7E0_0000
RUNNING = HIGH + 0x100_0000
FORMATS = ["-gdwarf-4", "-gdwarf-5"]


def _linked(tmp_path: Path, compiler: str, *options: str) -> Linked:
    first = graph_of(compile_object(tmp_path, SOURCE, compiler, "-O1", "-fPIE", *options, name="draw.c"))
    second = graph_of(compile_object(tmp_path, SECOND, compiler, "-O1", "-fPIE", *options, name="second.c"))
    known = {"other": FAR, "both": RUNNING, "counter": RUNNING + 64, "stays": RUNNING + 0x800}
    return link(
        [
            unit_of(first, carried=["helper", "carried", "zero"], addresses=known, name="draw.c"),
            unit_of(second, name="second.c"),
        ]
    )


def _run(*command: object) -> str:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    assert "arning" not in result.stderr, result.stderr
    return result.stdout


@pytest.fixture(params=[(c, f) for c in ("gcc", "clang") for f in FORMATS], ids=lambda pair: "".join(pair))
def patch(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Linked]:
    compiler, version = request.param
    linked = _linked(tmp_path, request.getfixturevalue(compiler), version)
    path = tmp_path / "patch.elf"
    write_patch(path, linked.units, linked.layout, linked.image)
    return path, linked


def test_readelf_and_objdump_have_no_complaint(patch: tuple[Path, Linked]) -> None:
    path, linked = patch
    everything = _run("readelf", "-aW", path)
    assert "DYN (Shared object file)" in everything
    _run("readelf", "--debug-dump=info,decodedline,abbrev,aranges,frames", path)
    code = _run("objdump", "-d", path)
    assert f"{linked.address('carried'):016x} <carried>:" in code
    assert "<stub$other>:" in code


def test_segments_are_where_the_file_says_and_hold_the_final_bytes(gcc: str, tmp_path: Path) -> None:
    linked = _linked(tmp_path, gcc, "-g")
    patch = patch_file(linked.units, linked.layout, linked.image)
    loads = [s for s in ELFFile(io.BytesIO(patch.content)).iter_segments() if s["p_type"] == "PT_LOAD"]
    assert [(s.address, s.file_offset, s.size) for s in patch.segments] == [
        (row["p_vaddr"], row["p_offset"], row["p_filesz"]) for row in loads if row["p_filesz"]
    ]
    for segment in patch.segments:
        assert segment.file_offset % 4096 == segment.address % 4096
        there = patch.content[segment.file_offset :][: segment.size]
        assert there == linked.image.segments[segment.protection]


def test_without_debug_information_the_segments_are_the_same(gcc: str, tmp_path: Path) -> None:
    linked = _linked(tmp_path, gcc, "-g")
    whole, plain = (
        patch_file(linked.units, linked.layout, linked.image, is_plain=is_plain) for is_plain in (False, True)
    )

    assert plain.segments == whole.segments
    end = max(segment.file_offset + segment.size for segment in whole.segments)
    start = min(segment.file_offset for segment in whole.segments)
    assert plain.content[start:end] == whole.content[start:end]
    names = [{row.name for row in ELFFile(io.BytesIO(file.content)).iter_sections()} for file in (whole, plain)]
    assert {name for name in names[0] - names[1] if not name.startswith(".debug_")} == set()
    assert ".debug_line" in names[0] - names[1]


def test_zeroed_memory_has_no_bytes_in_the_file(gcc: str, tmp_path: Path) -> None:
    source = "static char big[65536]; char *f(void) { return big; }"
    linked = link([unit_of(graph_of(compile_object(tmp_path, source, gcc, "-O2", "-fPIE")))])
    patch = patch_file(linked.units, linked.layout, linked.image)
    assert len(patch.content) < 65536
    assert [segment.protection for segment in patch.segments] == ["rx", "r"]
    load = list(ELFFile(io.BytesIO(patch.content)).iter_segments())[2]
    assert (load["p_filesz"], load["p_memsz"] >= 65536) == (0, True)


def test_local_and_global_symbols_keep_their_names_and_kinds(gcc: str, tmp_path: Path) -> None:
    linked = _linked(tmp_path, gcc)
    elf = ELFFile(io.BytesIO(patch_file(linked.units, linked.layout, linked.image).content))
    table = elf.get_section_by_name(".symtab")
    rows = {(s.name, s["st_info"]["bind"], s["st_info"]["type"]): s["st_value"] for s in table.iter_symbols()}
    assert rows["helper", "STB_LOCAL", "STT_FUNC"] == linked.address("helper")
    assert rows["carried", "STB_GLOBAL", "STT_FUNC"] == linked.address("carried")
    assert rows["zero", "STB_LOCAL", "STT_OBJECT"] == linked.address("zero")
    assert not {name for name, _binding, _type in rows} & {"stays", "both", "other"}
    local = [s["st_info"]["bind"] == "STB_LOCAL" for s in table.iter_symbols()]
    assert local == sorted(local, reverse=True)
    assert table["sh_info"] == sum(local)


def test_gdb_finds_lines_symbols_variables_and_breakpoints(patch: tuple[Path, Linked], gdb: str) -> None:
    path, linked = patch
    start = linked.address("carried")
    output = _run(
        gdb, "-nx", "-batch",
        "-ex", f"add-symbol-file {path} -o 0",
        "-ex", f"info symbol {start:#x}",
        "-ex", f"info line *{start:#x}",
        "-ex", "info line second.c:4",
        "-ex", "break draw.c:12",
        "-ex", "info address both",
        "-ex", "ptype both",
        "-ex", "info scope helper",
        "-ex", "print &zero",
        "-ex", f"info symbol {linked.layout.stubs[0].address:#x}",
    )  # fmt: skip
    assert "carried in section .text" in output
    assert 'Line 11 of "draw.c" starts at address' in output
    assert 'Line 4 of "second.c" starts at address' in output
    assert "Breakpoint 1 at" in output
    assert "file draw.c, line 12." in output
    assert f"{RUNNING:#x}" in output
    assert "int left;" in output
    assert f"{linked.address('zero'):#x}" in output
    assert "stub$other in section .stubs" in output


def test_gdb_has_no_line_of_a_function_that_is_not_carried(patch: tuple[Path, Linked], gdb: str) -> None:
    path, _linked = patch
    output = _run(gdb, "-nx", "-batch", "-ex", f"add-symbol-file {path} -o 0", "-ex", "info line draw.c:17")
    assert "starts at address 0x" not in output


def test_lldb_sets_breakpoints_by_line_and_knows_functions(patch: tuple[Path, Linked], lldb: str) -> None:
    path, linked = patch
    start = linked.address("carried")
    output = _run(
        lldb, "--no-lldbinit", "--batch",
        "-o", "target create --no-dependents /bin/true",
        "-o", f"target modules add {path}",
        "-o", f"target modules load --file {path} --slide 0",
        "-o", "breakpoint set --file draw.c --line 12",
        "-o", "breakpoint set --file second.c --line 4",
        "-o", f"image lookup --address {start:#x}",
        "-o", "image lookup --verbose --name helper",
        "-o", "breakpoint set --file draw.c --line 17",
    )  # fmt: skip
    assert "where = patch.elf`carried" in output
    assert "at draw.c:12:" in output
    assert "where = patch.elf`second at second.c:4:" in output
    assert "Summary: patch.elf`carried" in output
    assert "at draw.c:11" in output
    assert "patch.elf`helper at draw.c:" in output
    # stays() is not in the patch: no location for its line
    assert "pending" in output.rsplit("breakpoint set", 1)[1]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_ranges_of_code_that_is_not_carried_are_empty(
    compiler: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    linked = _linked(tmp_path, request.getfixturevalue(compiler), "-gdwarf-5")
    ranges = next(s for s in merge_debug(linked.units, linked.layout) if s.name == ".debug_rnglists")
    lists = ELFFile(io.BytesIO(patch_file(linked.units, linked.layout, linked.image).content)).get_dwarf_info()
    found = [entry for rows in lists.range_lists().iter_range_lists() for entry in rows]
    assert len(ranges.content) == lists.debug_rnglists_sec.size
    sizes = [row.end_offset - row.begin_offset for row in found]
    assert sizes.count(0) == 1
    assert len(sizes) >= 3


def test_ranges_that_count_from_a_dead_address_are_empty() -> None:
    # DWARF 5, 7.28 and 7.25: a header without offsets, then two lists.
    lists = [
        *(b"\x01\x07", b"\x04\x00\x2c", b"\x04\xb0\x01\xbb\x01"),  # base_addressx 7, two offset_pair
        *(b"\x03\x08\x10", b"\x01\x08", b"\x04\x01\x02", b"\x00"),  # startx_length 8; base_addressx 8; end
        *(b"\x04\x03\x04", b"\x00"),  # counts from the unit's own address
    ]
    body = b"\x05\x00\x08\x00" + bytes(4) + b"".join(lists)
    content = len(body).to_bytes(4, "little") + body
    emptied = content.replace(b"\x04\x00\x2c\x04\xb0\x01\xbb\x01", b"\x04\x00\x00\x04\x80\x00\x80\x00")
    assert emptied != content
    assert empty_dead_ranges(content, set(), {7}) == emptied
    assert empty_dead_ranges(content, set(), set()) == content


def test_a_file_that_cannot_be_written_whole_is_not_there_at_all(gcc: str, tmp_path: Path) -> None:
    linked = _linked(tmp_path, gcc)
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "patch.elf").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_patch(folder / "patch.elf", linked.units, linked.layout, linked.image)
    assert [path.name for path in folder.iterdir()] == ["patch.elf"]
