"""What Mach-O and COFF say in a way of their own: atoms, weak names, COMDAT sections, wide headers; damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_formats import TARGETS, compiled, graph_of, linked

from ipbp.errors import IpbpError, Refused
from ipbp.formats.coff_file import read_coff
from ipbp.formats.elf_linked import read_linked
from ipbp.formats.elf_object import read_object
from ipbp.formats.objects import read_any_object
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import UNDEFINED, Binding, BlockKind, LinkGraph, SymbolType, Visibility

targets = pytest.mark.parametrize("kind", TARGETS)
macho = pytest.mark.parametrize("kind", [kind for kind in TARGETS if TARGETS[kind].is_macho])
coff = pytest.mark.parametrize("kind", [kind for kind in TARGETS if not TARGETS[kind].is_macho])
EVERYTHING = """
extern int outside(int); static int counter = 3; const char *names[] = {"a", "b"}; _Thread_local int mine;
__attribute__((weak)) int weakly(int x) { return x; }
__attribute__((visibility("hidden"))) int hidden(int x) { return x; }
int work(int x) { static int inner; inner += mine++; return outside(x) + counter++ + inner + names[x & 1][0]; }
"""


def assembled(folder: Path, clang: str, kind: str, text: str) -> LinkGraph:
    return graph_of(compiled(folder, clang, TARGETS[kind], text, name="unit.s"))


def row(graph: LinkGraph, name: str) -> int:
    return graph.symbols.name.index(name)


def blocks(graph: LinkGraph, kind: BlockKind = BlockKind.CODE) -> dict[str, tuple[int, int]]:
    """Offset and size of each block of a kind."""
    rows = np.flatnonzero(graph.blocks.kind == kind).tolist()
    return {graph.block_name(b): (int(graph.blocks.offset[b]), int(graph.blocks.size[b])) for b in rows}


@macho
def test_an_atom_reaches_to_the_next_symbol_that_begins_one(kind: str, clang: str, tmp_path: Path) -> None:
    text = """.text
_one: .long 1
Lprivate: .long 2
.alt_entry _inside
_inside: .long 3
_two: .long 4
no_underscore: .long 5
{}"""
    graph = assembled(tmp_path, clang, kind, text.format(".subsections_via_symbols"))
    assert blocks(graph) == {"_one".removeprefix("_"): (0, 12), "two": (12, 4), "\1no_underscore": (16, 4)}
    inside = row(graph, "inside")
    assert (graph.block_name(int(graph.symbols.block[inside])), graph.symbols.offset[inside]) == ("one", 8)
    whole = assembled(tmp_path, clang, kind, text.format(""))
    assert blocks(whole) == {"one": (0, 20)}


@macho
def test_a_private_label_that_the_linker_knows_keeps_its_bytes_together(kind: str, clang: str, tmp_path: Path) -> None:
    text = """.section __TEXT,__const
_named: .quad 1
l_private: .quad 2, 3
_after: .quad 4
.data
_pointers: .quad l_private, l_private+8
.subsections_via_symbols"""
    graph = assembled(tmp_path, clang, kind, text)
    assert sorted(blocks(graph, BlockKind.RODATA).values()) == [(0, 8), (8, 16), (24, 8)]
    (block,) = np.flatnonzero(graph.blocks.offset[graph.blocks.kind == BlockKind.RODATA] == 8)
    assert graph.symbols.name[int(graph.blocks.anchor[block])] == ""
    assert graph.edges.addend.tolist() == [0, 8]
    assert set(graph.symbols.block[graph.edges.target].tolist()) == {int(block)}


@macho
def test_a_distance_between_two_other_places_is_refused(kind: str, clang: str, tmp_path: Path) -> None:
    text = """.text
_one: .long 1
.section __TEXT,__const
_two: .quad 2
.data
_three: .quad _one - _two
.subsections_via_symbols"""
    with pytest.raises(Refused) as raised:
        assembled(tmp_path, clang, kind, text)
    (refusal,) = raised.value.refusals
    assert refusal.code == "relocation-unsupported"
    assert "SUBTRACTOR" in refusal.fact
    assert "__DATA,__data" in refusal.fact


@targets
def test_scopes_are_those_of_the_source(kind: str, clang: str, tmp_path: Path) -> None:
    graph = graph_of(compiled(tmp_path, clang, TARGETS[kind], EVERYTHING))
    symbols = graph.symbols
    assert symbols.binding[row(graph, "work")] == Binding.GLOBAL
    assert symbols.binding[row(graph, "weakly")] == Binding.WEAK
    assert symbols.binding[row(graph, "counter")] == Binding.LOCAL
    assert symbols.type[row(graph, "work")] == symbols.type[row(graph, "weakly")] == SymbolType.FUNCTION
    assert symbols.block[row(graph, "outside")] == UNDEFINED
    assert graph.blocks.kind[symbols.block[row(graph, "weakly")]] == BlockKind.CODE
    assert not any(name.startswith(".weak.") for name in symbols.name)
    hidden = symbols.visibility[row(graph, "hidden")]
    assert hidden == (Visibility.HIDDEN if TARGETS[kind].is_macho else Visibility.DEFAULT)


@coff
def test_what_the_linker_keeps_one_of_is_a_group(kind: str, clang: str, tmp_path: Path) -> None:
    text = "inline int once(int x) { return x + 1; } int own(int x) { return once(x); } extern inline int held(void);"
    flags = ("-O0", "-ffunction-sections")
    graph = graph_of(compiled(tmp_path, clang, TARGETS[kind], text, *flags, name="unit.cc"))
    group = {graph.block_name(b): graph.sections[int(graph.blocks.section[b])].group for b in range(len(graph.blocks))}
    assert group["?once@@YAHH@Z"] == "?once@@YAHH@Z"
    assert group["?own@@YAHH@Z"] == ""
    binding = {name: int(graph.symbols.binding[row(graph, name)]) for name in ("?once@@YAHH@Z", "?own@@YAHH@Z")}
    assert list(binding.values()) == [Binding.WEAK, Binding.GLOBAL]


@coff
def test_what_follows_a_constant_without_a_name_is_not_its_own(kind: str, clang: str, tmp_path: Path) -> None:
    use = "leaq .Ltext(%rip), %rax" if "x86" in kind else "adrp x0, .Ltext; add x0, x0, :lo12:.Ltext"
    text = f'.text\nf: {use}\n.section .rdata,"dr"\nnamed: .quad 5\n.Ltext: .asciz "text"\nnext: .byte 1\n'
    graph = assembled(tmp_path, clang, kind, text.replace("; ", "\n"))
    assert blocks(graph, BlockKind.RODATA) == {"named": (0, 8), ".rdata+0x8": (8, 5), "next": (13, 1)}


@coff
def test_a_file_of_many_sections_has_a_wide_header(kind: str, clang: str, tmp_path: Path) -> None:
    sections = "\n".join(
        f'.section .data$with_a_long_name{n},"dw"\n.globl v{n}\nv{n}: .long {n}' for n in range(65_300)
    )
    path = compiled(tmp_path, clang, TARGETS[kind], sections + "\n.long v7@IMGREL\n", name="unit.s")
    assert path.read_bytes()[:4] == b"\0\0\xff\xff"
    graph = graph_of(path)
    block = int(graph.symbols.block[row(graph, "v65299")])
    assert bytes(graph.content(block)) == (65_299).to_bytes(4, "little") + bytes(4)
    assert graph.sections[int(graph.blocks.section[block])].name == ".data$with_a_long_name65299"
    assert [graph.symbols.name[int(target)] for target in graph.edges.target] == ["v7"]


def test_an_immediate_behind_the_field_is_said_by_the_type(clang: str, tmp_path: Path) -> None:
    """As cl.exe writes it; LLVM takes the immediate off what is added."""
    text = ".text\nf: movl $7, var(%rip)\n.data\n.globl var\nvar: .long 1\n"
    content = bytearray(compiled(tmp_path, clang, TARGETS["coff-x86_64"], text, name="unit.s").read_bytes())
    graph = read_any_object(bytes(content), "unit.o")
    file = read_coff(bytes(content), "unit.o")
    at, field = int(file.sections.relocations_at[0]), int(file.sections.offset[0]) + 2
    assert (content[at + 8], content[field : field + 4]) == (4, b"\xfc\xff\xff\xff")
    content[at + 8], content[field : field + 4] = 8, bytes(4)  # IMAGE_REL_AMD64_REL32_4
    other = read_any_object(bytes(content), "unit.o")
    assert graph.edges.kind.tolist() == other.edges.kind.tolist() == [EdgeKind.PCREL32]
    assert graph.edges.addend.tolist() == other.edges.addend.tolist() == [-8]


@targets
def test_a_truncated_object_is_told(kind: str, clang: str, tmp_path: Path) -> None:
    content = compiled(tmp_path, clang, TARGETS[kind], EVERYTHING, "-g").read_bytes()
    read_any_object(content, "unit.o")
    for size in [*range(0, 300, 3), *range(300, len(content), 41)]:
        with pytest.raises(IpbpError) as raised:
            read_any_object(content[:size], "unit.o")
        assert raised.value.code == "object-malformed", size


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xca\xfe\xba\xbe" + bytes(100), "universal"),
        (b"\xcf\xfa\xed\xfe\x0c\0\0\0" + bytes(100), "machine number 0xc"),
        (b"\x4c\x01" + bytes(100), "32-bit x86"),
        (b"\x41\xa6" + bytes(100), "ARM64EC"),
    ],
    ids=["universal", "32-bit Mach-O", "32-bit COFF", "ARM64EC"],
)
def test_other_machines_are_told(content: bytes, said: str) -> None:
    with pytest.raises(IpbpError) as raised:
        read_any_object(content, "unit.o")
    assert raised.value.code == "object-wrong-architecture"
    assert said in raised.value.fact


@targets
def test_what_links_and_patches_says_that_it_does_not_take_these(kind: str, clang: str, tmp_path: Path) -> None:
    unit = compiled(tmp_path, clang, TARGETS[kind], "int start(int x) { return x; }")
    linked(TARGETS[kind], [unit], tmp_path / "program", "start")
    for read, path, code in (
        (read_object, unit, "object-wrong-architecture"),
        (read_linked, tmp_path / "program", "image-wrong-architecture"),
    ):
        with pytest.raises(IpbpError, match="where one of ELF is needed") as caught:
            read(path.read_bytes(), str(path))
        assert caught.value.code == code
