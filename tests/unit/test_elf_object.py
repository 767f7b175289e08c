"""Reading an object loses nothing, moves nothing, and every edge means the place that the file's relocation means."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from objects_from_c import COMPILERS, LAYOUTS, SECTIONS, VARIANT_NAMES, VARIANTS, compiled, graph_of

from ipbp.arch.x86_64_code import is_padding
from ipbp.errors import IpbpError, Refused
from ipbp.formats.elf_object import read_object
from ipbp.graph.dump import dump
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import ABSOLUTE, COMMON, SIDE_BASE, UNDEFINED, Binding, BlockKind, LinkGraph

variants = pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)
layouts = pytest.mark.parametrize("sections", [(), SECTIONS], ids=["one .text", "sections"])

SOURCE = r"""
#include <stdio.h>
#include <string.h>
int outside(int); extern int far_away; extern __thread int their_tls;
__thread int our_tls = 5; static __thread int quiet;
static int one, two, three; static char c1, c2 = 1, c3 = 2; static long l1 = 9; int common_like;
static double weights[3] = {1.5, 2.5, 3.5}; const char *const names[] = {"red", "green", "blue"};
static int local(int x) { static int count; count += x; c1 = 3; if (c2 == 5) one = 7; c3 = c2; return count; }
int (*table[])(int) = {local, outside, local};
double half(double x) { return x * 0.5 + 3.25; }
int pick(int x) { switch (x) { case 0: return outside(1); case 1: puts("one"); break; case 2: return local(x);
  case 3: return 99; case 4: puts("four"); break; case 5: two = 70000; break; case 6: three += 500; } return 0; }
int second(int x) { switch (x) { case 0: return 8; case 1: puts("uno"); break; case 2: return pick(x + 1);
  case 3: return 7; case 4: puts("cuatro"); break; case 5: l1 <<= 3; break; case 6: return 4; }
  return our_tls + quiet; }
int main(int argc, char **argv) { char text[] = "a longer text that is copied"; struct { int a[12]; } big = {{1, 2, 3}};
  printf("%s %d %f", names[argc], second(argc), half(weights[argc])); far_away += their_tls; common_like++;
  return strlen(text) + big.a[argc] + table[argc](1); }
__attribute__((weak)) void maybe(void) {}
void also(void) __attribute__((alias("maybe")));
"""


def placed(graph: LinkGraph, symbol: int, addend: int) -> tuple[object, int]:
    """A target as (section object or name, offset in it)."""
    block = int(graph.symbols.block[symbol])
    if block >= 0:
        start = int(graph.blocks.offset[block]) + int(graph.symbols.offset[symbol])
        return graph.sections[int(graph.blocks.section[block])].name, start + addend
    if block <= SIDE_BASE:
        return graph.side[SIDE_BASE - block].name, int(graph.symbols.offset[symbol]) + addend
    return f"outside {graph.symbols.name[symbol]}", addend


@variants
@layouts
def test_every_edge_means_what_its_relocation_means(compiler: str, flags: tuple[str, ...], sections) -> None:
    content = compiled(SOURCE, compiler, (*flags, *sections, "-g"))
    graph = read_object(content, "unit.o")
    found = set()
    for row in range(len(graph.edges)):
        block = int(graph.edges.block[row])
        section = graph.sections[int(graph.blocks.section[block])].name
        place = int(graph.blocks.offset[block]) + int(graph.edges.offset[row])
        found.add((section, place, placed(graph, int(graph.edges.target[row]), int(graph.edges.addend[row]))))
    for side in graph.side:
        for place, target, addend in zip(side.offset.tolist(), side.target.tolist(), side.addend.tolist(), strict=True):
            found.add((side.name, place, placed(graph, target, addend)))
    expected = set()
    file = ELFFile(io.BytesIO(content))
    symtab = file.get_section_by_name(".symtab")
    for table in file.iter_sections("SHT_RELA"):
        holder = file.get_section(table["sh_info"]).name
        for relocation in table.iter_relocations():
            symbol = symtab.get_symbol(relocation["r_info_sym"])
            home, addend = symbol["st_shndx"], relocation["r_addend"]
            if isinstance(home, int):
                target = (file.get_section(home).name, symbol["st_value"] + addend)
            else:
                target = (f"outside {symbol.name}", addend)
            expected.add((holder, relocation["r_offset"], target))
    assert found == expected
    assert len(found) > 50


@variants
@layouts
def test_the_blocks_put_together_are_the_sections(compiler: str, flags: tuple[str, ...], sections) -> None:
    graph = graph_of(SOURCE, compiler, (*flags, *sections))
    for index, section in enumerate(graph.sections):
        rebuilt, is_code, end = bytearray(section.content), False, 0
        for block in np.flatnonzero(graph.blocks.section == index).tolist():
            start, size = int(graph.blocks.offset[block]), int(graph.blocks.size[block])
            is_code = graph.blocks.kind[block] == BlockKind.CODE
            assert start >= end, "blocks do not overlap"
            end = start + size
            if len(section.content):
                assert graph.content(block) == section.content[start:end]
                rebuilt[start:end] = bytes(size)
        fill = bytes(rebuilt)
        assert is_padding(fill) if is_code else not any(fill)


@variants
@layouts
def test_edges_are_sorted_and_inside_their_blocks(compiler: str, flags: tuple[str, ...], sections) -> None:
    graph = graph_of(SOURCE, compiler, (*flags, *sections))
    keys = graph.edges.block.astype(np.int64) << 40 | graph.edges.offset
    assert (np.diff(keys) > 0).all()
    for block in range(len(graph.blocks)):
        assert set(graph.edges.block[graph.edges_of(block)].tolist()) <= {block}
        anchor = int(graph.blocks.anchor[block])
        assert (graph.symbols.block[anchor], graph.symbols.offset[anchor]) == (block, 0)
        assert graph.blocks.offset[block] % graph.blocks.alignment[block] == 0
    assert len(graph.first_edge) == len(graph.blocks) + 1


def uses(graph: LinkGraph, name: str) -> set[str]:
    """Names of the variables that a function refers to."""
    anchors = graph.blocks.anchor.tolist()
    block = next(b for b, anchor in enumerate(anchors) if graph.symbols.name[anchor] == name)
    targets = graph.symbols.block[graph.edges.target[graph.edges_of(block)]]
    return {graph.symbols.name[anchors[t]] for t in targets.tolist() if t >= 0} - {""}


@variants
def test_neighbours_in_one_section_are_not_confused_by_immediates(compiler: str, flags: tuple[str, ...]) -> None:
    source = """
    static volatile char a, b, c, d; static volatile short e, f, g; static volatile int h, i, j;
    void set_a(void) { a = 1; } void set_b(void) { b = 2; } void test_c(void) { if (c == 3) d = 4; }
    void set_e(void) { e = 500; } void set_f(void) { f = 600; } void shift_h(void) { h <<= 3; }
    void set_i(void) { i = 70000; } void test_j(void) { if (j == 80000) g = 700; } void add(void) { b += 100; }
    void mul(void) { j = i * 1000; }
    """
    expected = {"set_a": "a", "set_b": "b", "test_c": "cd", "set_e": "e", "set_f": "f", "shift_h": "h"}
    expected |= {"set_i": "i", "test_j": "jg", "add": "b", "mul": "ij"}
    for sections in ((), SECTIONS):
        graph = graph_of(source, compiler, flags + sections)
        for function, variables in expected.items():
            assert uses(graph, function) == set(variables), function


@variants
@layouts
def test_jump_tables_lead_into_their_own_function(compiler: str, flags: tuple[str, ...], sections) -> None:
    graph = graph_of(SOURCE, compiler, (*flags, *sections))
    code = graph.blocks.kind == BlockKind.CODE
    home = graph.symbols.block[graph.edges.target]
    seen = 0
    for block in range(len(graph.blocks)):
        rows = graph.edges_of(block)
        targets = home[rows]
        if graph.symbols.name[int(graph.blocks.anchor[block])] or code[block] or len(targets) < 6:
            continue
        users = set(graph.edges.block[home == block].tolist())
        assert set(targets.tolist()) == users
        seen += 1
    assert seen >= 2 or compiler != "gcc"


def test_strings_of_one_section_are_blocks_of_their_own() -> None:
    for compiler in COMPILERS:
        for flags in (("-O0",), ("-O2",)):
            graph = graph_of(SOURCE, compiler, flags)
            constants = [b for b in range(len(graph.blocks)) if graph.blocks.kind[b] == BlockKind.RODATA]
            texts = {bytes(graph.content(block)).rstrip(b"\0") for block in constants}
            assert {b"one", b"four", b"uno", b"cuatro", b"red", b"green", b"blue"} <= texts


def test_relative_tables_of_strings_mean_the_strings_of_their_labels() -> None:
    source = """
    static const char *const names[] = {"a", "bcd", "", "efghijklmnop", "q", "r"};
    const char *name(unsigned x) { return names[x]; }
    """
    graph = graph_of(source, "clang-19", ("-O2", "-fPIE"))
    table = int(graph.symbols.block[graph.symbols.name.index("names.rel")])
    rows = graph.edges_of(table)
    homes = graph.symbols.block[graph.edges.target[rows]].tolist()
    assert [bytes(graph.content(home)) for home in homes] == [
        b"a\0",
        b"bcd\0",
        b"\0",
        b"efghijklmnop\0",
        b"q\0",
        b"r\0",
    ]
    assert graph.edges.addend[rows].tolist() == [0, 4, 8, 12, 16, 20]


def test_private_labels_make_no_symbols() -> None:
    for compiler in COMPILERS:
        for compiler_flags in (("-O0", "-fPIE"), ("-O2", "-fno-pie")):
            graph = graph_of(SOURCE, compiler, compiler_flags)
            assert not [name for name in graph.symbols.name if name.startswith(".L")]


def test_symbols_keep_their_kind_and_place() -> None:
    graph = graph_of("int tentative; extern int there; int f(void) { return tentative + there; }", "gcc", ("-fcommon",))
    rows = {name: row for row, name in enumerate(graph.symbols.name) if name}
    assert graph.symbols.block[rows["tentative"]] == COMMON
    assert graph.symbols.offset[rows["tentative"]] == 4
    assert graph.symbols.block[rows["there"]] == UNDEFINED
    graph = graph_of(SOURCE, "gcc", ("-O0",))
    rows = {name: row for row, name in enumerate(graph.symbols.name) if name}
    assert graph.symbols.block[rows["also"]] == graph.symbols.block[rows["maybe"]] >= 0
    assert graph.symbols.binding[rows["maybe"]] == Binding.WEAK
    assert graph.blocks.kind[graph.symbols.block[rows["our_tls"]]] == BlockKind.TLS_DATA
    assert graph.blocks.kind[graph.symbols.block[rows["quiet"]]] == BlockKind.TLS_BSS
    assert graph.source == "unit.c"
    graph = graph_of('__asm__(".globl fixed; fixed = 0x1234");', "gcc", ())
    row = graph.symbols.name.index("fixed")
    assert (graph.symbols.block[row], graph.symbols.offset[row]) == (ABSOLUTE, 0x1234)


def test_overlapping_functions_stay_one_block() -> None:
    source = r"""__asm__(".text; .globl outer, inner; .type outer,@function; .type inner,@function;"
      "outer: nop; nop; inner: nop; ret; .size outer, .-outer; .size inner, .-inner");"""
    graph = graph_of(source, "gcc", ())
    rows = {name: row for row, name in enumerate(graph.symbols.name) if name}
    assert graph.symbols.block[rows["outer"]] == graph.symbols.block[rows["inner"]]
    assert graph.symbols.offset[rows["inner"]] == 2


def test_calls_to_local_functions_are_branches() -> None:
    source = "__attribute__((noinline)) static int f(int x) { return x * 3; } int g(int x) { return f(x) + f(x + 1); }"
    for compiler in COMPILERS:
        graph = graph_of(source, compiler, ("-O0", *SECTIONS))
        kinds = {EdgeKind(kind) for kind in graph.edges.kind}
        assert kinds == {EdgeKind.BRANCH32}


@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_compressed_debug_sections_read_as_plain_ones(method: str, tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.o", tmp_path / "packed.o"
    plain.write_bytes(compiled(SOURCE, "gcc", ("-g",)))
    subprocess.run(["objcopy", f"--compress-debug-sections={method}", plain, packed], check=True, timeout=60)
    assert packed.stat().st_size < plain.stat().st_size
    one, other = (read_object(path.read_bytes(), path.name) for path in (plain, packed))
    before, after = (
        {side.name: (bytes(side.content), side.offset.tolist(), side.addend.tolist()) for side in graph.side}
        for graph in (one, other)
    )
    assert before == after
    assert ".debug_info" in before


def test_cxx_sections_are_read_with_their_groups() -> None:
    source = r"""
    struct Base { virtual ~Base() {} virtual int go(int x) { return x; } };
    template <class T> struct Box : Base { T v; int go(int x) override { static int n; n++; return x * n + int(v); } };
    extern "C" int puts(const char *);
    int run(int x) { try { Box<int> b; Box<double> d; if (x) throw x; return b.go(x) + d.go(x); }
      catch (int y) { puts("caught"); return y; } }
    int boot() { puts("boot"); return 4; } int started = boot();
    """
    for compiler in ("g++", "clang++-19"):
        for sections in LAYOUTS[0][0], SECTIONS:
            graph = graph_of(source, compiler, ("-O0", "-x", "c++", *sections))
            groups = {section.group for section in graph.sections} - {""}
            assert any("Box" in group for group in groups)
            assert BlockKind.INIT in graph.blocks.kind
            assert "boot" in dump(graph)


def test_an_object_with_more_sections_than_a_short_counts_is_read(tmp_path: Path) -> None:
    count = 0xFF00 // 2 + 50
    function = '.section .text.f{0},"ax",@progbits\n.globl f{0}\n.type f{0},@function\nf{0}: call f0\nret\n'
    text = "".join(function.format(i) for i in range(count))
    path = tmp_path / "many.o"
    subprocess.run(["as", "-o", path], input=text.encode(), check=True, timeout=60)
    graph = read_object(path.read_bytes(), "many.o")
    assert len(graph.blocks) >= count
    assert graph.block_name(len(graph.blocks) - 1) == f"f{count - 1}"


def code_of(content: bytes) -> str:
    with pytest.raises(IpbpError) as raised:
        read_object(content, "unit.o")
    assert str(raised.value)
    return raised.value.refusals[0].code if isinstance(raised.value, Refused) else raised.value.code


def header(content: bytes, offset: int, value: bytes) -> bytes:
    return content[:offset] + value + content[offset + len(value) :]


def test_files_that_are_no_objects_are_refused_by_what_they_are(tmp_path: Path) -> None:
    content = compiled(SOURCE, "gcc", ("-O2",))
    assert code_of(b"") == "object-malformed"
    assert code_of(b"!<arch>\n" + bytes(100)) == "object-malformed"
    assert code_of(b"\x7fELF") == "object-malformed"
    assert code_of(header(content, 18, (40).to_bytes(2, "little"))) == "object-wrong-architecture"
    assert code_of(header(content, 4, b"\1")) == "object-wrong-architecture"
    program = tmp_path / "program"
    subprocess.run(
        ["gcc", "-x", "c", "-", "-o", program], input=b"int main(void) { return 0; }", check=True, timeout=60
    )
    assert code_of(program.read_bytes()) == "object-not-relocatable"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_bytecode_is_refused_and_fat_objects_are_not(compiler: str) -> None:
    assert code_of(compiled(SOURCE, compiler, ("-flto", "-O1"))) == "object-lto"
    assert "pick" in graph_of(SOURCE, compiler, ("-flto", "-ffat-lto-objects", "-O1")).symbols.name


def test_unknown_relocations_are_refused_by_name_all_at_once() -> None:
    content = bytearray(compiled("int g(int); int f(int x) { return g(x) + g(1); }", "gcc", ("-O0",)))
    file = ELFFile(io.BytesIO(bytes(content)))
    start = file.get_section_by_name(".rela.text")["sh_offset"]
    content[start + 8], content[start + 24 + 8] = 60, 36
    with pytest.raises(Refused) as raised:
        read_object(bytes(content), "unit.o")
    assert {refusal.code for refusal in raised.value.refusals} == {"relocation-unsupported"}
    text = str(raised.value)
    assert "R_X86_64 number 60" in text
    assert "R_X86_64_TLSDESC" in text


def test_an_unknown_compression_is_refused_when_debug_information_is_needed() -> None:
    content = bytearray(compiled(SOURCE, "gcc", ("-g", "-gz=zlib")))
    file = ELFFile(io.BytesIO(bytes(content)))
    content[file.get_section_by_name(".debug_info")["sh_offset"]] = 9
    graph = read_object(bytes(content), "unit.o")
    section = next(side for side in graph.side if side.name == ".debug_info")
    with pytest.raises(IpbpError) as raised:
        _ = section.content
    assert raised.value.code == "object-compression"
    assert ".debug_info" in str(raised.value)


@pytest.mark.parametrize("flags", [("-O0", "-g"), ("-O2", "-g", "-gz=zlib", *SECTIONS)], ids=["plain", "sections"])
def test_a_truncated_object_is_malformed_at_every_length(flags: tuple[str, ...]) -> None:
    content = compiled(SOURCE, "gcc", flags)
    for length in (*range(0, len(content), 97), len(content) - 1):
        assert code_of(content[:length]) == "object-malformed"


@pytest.mark.parametrize("flags", [("-O0",), ("-O2", *SECTIONS)], ids=["plain", "sections"])
def test_damaged_tables_give_a_graph_or_one_error(flags: tuple[str, ...]) -> None:
    content = compiled(SOURCE, "gcc", flags)
    sections = ELFFile(io.BytesIO(content))
    ranges = [range(64), range(sections["e_shoff"], len(content))]
    for section in sections.iter_sections():
        if section["sh_type"] in ("SHT_SYMTAB", "SHT_RELA", "SHT_GROUP"):
            ranges.append(range(section["sh_offset"], section["sh_offset"] + section["sh_size"]))
    random = np.random.default_rng(20240607)
    places = [place for span in ranges for place in span]
    for place in random.choice(places, 700).tolist():
        damaged = bytearray(content)
        damaged[place] ^= int(random.integers(1, 256))
        try:
            graph = read_object(bytes(damaged), "unit.o")
        except IpbpError:
            continue
        assert len(graph.first_edge) == len(graph.blocks) + 1


def test_functions_without_symbols_are_told_by_the_unwind_table() -> None:
    source = """
    int counted(int x) { return x + 1; }
    __asm__(".text; nop; nop; .cfi_startproc; .byte 0x6a, 7, 0x58, 0xc3; .cfi_endproc; nop;"
            ".cfi_startproc; .byte 0x6a, 8, 0x58, 0xc3; .cfi_endproc; nop; nop;"
            ".globl whole; .type whole, @function; whole: .cfi_startproc; ret; inner: nop; ret; .cfi_endproc;"
            ".size whole, 3");
    """
    for flags in ((), ("-ffunction-sections",)):
        graph = graph_of(source, "gcc", ("-O2", *flags))
        code = [bytes(graph.content(block)) for block in np.flatnonzero(graph.blocks.kind == BlockKind.CODE).tolist()]
        assert {b"\x6a\x07\x58\xc3", b"\x6a\x08\x58\xc3", b"\xc3\x90\xc3"} <= set(code)
