"""The system linker as the judge of thread-local accesses: what ld makes of them in an executable, ipbp makes of them.

The thread-local variables are ld's: ours are bound to where its executable has them.
"""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from patch_maker import HIGH, Linked, compile_object, graph_of, link, unit_of

from ipbp.arch.x86_64_tls import ACCESSES
from ipbp.formats.elf_image import read_image
from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import BlockKind, LinkGraph, SymbolType
from ipbp.graph.threads import executable_block
from ipbp.graph.unit import Unit
from ipbp.stages.targets import carried_edges
from ipbp.stages.thread_locals import Threads, bind_thread_locals

SOURCE = """
extern __thread int outer; extern __thread char wide[100]; __thread long shared = 5;
static __thread int own[4] = {1, 2}; static __thread int zero; static __thread char last __attribute__((aligned(64)));
int add(int i) { outer += i; shared += i; own[i & 3] += i; zero += i; return outer + own[1] + zero + wide[7] + last; }
int *place(int i) { return i ? &zero : own + 2; }
long *global(void) { return &shared; }
char *letter(int i) { return &wide[i]; }
long sum(long a, long b, long c, long d, long e, long f) { return a + b + c + d + e + f + shared + outer + zero; }
"""
OTHERS = "__thread int outer = 8; __thread char wide[100]; __thread int unused = 3;"
MODELS = {
    "general": ("-fPIC", "-ftls-model=global-dynamic"),
    "no_plt": ("-fPIC", "-fno-plt"),
    "local_dynamic": ("-fPIC", "-ftls-model=local-dynamic"),
    "initial": ("-fPIC", "-ftls-model=initial-exec"),
    "local": ("-fPIE", "-ftls-model=local-exec"),
    "plain_pie": ("-fPIE",),
    "plain_fixed": ("-fno-pie",),
    "descriptors": ("-fPIC", "-mtls-dialect=gnu2"),
    "large": ("-fPIC", "-mcmodel=large"),
}
CASES = [(compiler, level, model) for compiler in ("gcc", "clang") for level in ("-O0", "-O2") for model in MODELS]


@pytest.mark.parametrize(("compiler", "level", "model"), CASES)
def test_every_access_has_the_bytes_that_ld_gives_it(
    compiler: str, level: str, model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue(compiler)
    path = compile_object(tmp_path, SOURCE, command, level, *MODELS[model])
    others = compile_object(tmp_path, OTHERS, command, "-O2", name="others.c")
    graph = graph_of(path)
    # The places are ld's, which needs to know ours first: any image gives the same layout.
    draft = _linked(graph, read_image(_link_with_ld([path, others], tmp_path, {})))
    output = _link_with_ld([path, others], tmp_path, _places(draft))
    ours, theirs = _linked(graph, read_image(output)), ELFFile(io.BytesIO(output.read_bytes()))
    assert not set(ours.units[0].graph.edges.kind.tolist()) & set(ACCESSES)
    for block in ours.units[0].carried.tolist():
        address = int(ours.layout.units[0].block[block])
        if graph.blocks.kind[block] == BlockKind.CODE:
            expected = _code(theirs, address, int(graph.blocks.size[block]))
            got = ours.read(address, len(expected))
            bases = _table_fields(ours, block)
            assert _without(got, bases) == _without(expected, bases), graph.block_name(block)


def test_the_source_has_every_kind_of_thread_local_access(gcc: str, tmp_path: Path) -> None:
    kinds: set[int] = set()
    for options in MODELS.values():
        kinds |= set(graph_of(compile_object(tmp_path, SOURCE, gcc, "-O2", *options)).edges.kind.tolist())
    assert kinds >= {*ACCESSES, EdgeKind.TPOFF32, EdgeKind.DTPOFF32}


def _linked(graph: LinkGraph, image: LoadedImage) -> Linked:
    names = [name for name, kind in zip(graph.symbols.name, graph.symbols.type, strict=True) if kind == SymbolType.TLS]
    rows = {name: row for name in names for row in image.symbols.by_name.get(name, ())}
    places = {name: int(image.symbols.address[row]) for name, row in rows.items()}
    code = [graph.block_name(b) for b in range(len(graph.blocks)) if graph.blocks.kind[b] == BlockKind.CODE]
    unit = unit_of(graph, carried=code, addresses=places)
    own = executable_block(image)
    threads = Threads(image, own, (), lambda _name: None, lambda _path: own)
    units, refusals = bind_thread_locals([unit], threads, {})
    assert refusals == ()
    return link([_without_the_finder(unit) for unit in units])


def _without_the_finder(unit: Unit) -> Unit:
    # Nothing calls it any more.
    targets = {unit.graph.symbols.name[row] for row in carried_edges(unit).target.tolist()}
    assert "__tls_get_addr" not in targets
    got = [row for row, name in enumerate(unit.graph.symbols.name) if name == "_GLOBAL_OFFSET_TABLE_"]
    address = unit.address.copy()
    address[got] = HIGH
    return replace(unit, address=address)


def _table_fields(ours: Linked, block: int) -> list[int]:
    # Where the large model reads the place of a table that it does not need any more, and ld has elsewhere.
    edges = carried_edges(ours.units[0])
    return [int(row) for row in edges.offset[(edges.block == block) & (edges.kind == EdgeKind.GOT_BASE_PCREL64)]]


def _without(content: bytes, fields: list[int]) -> bytes:
    masked = bytearray(content)
    for field in fields:
        masked[field : field + 8] = bytes(8)
    return bytes(masked)


def _places(ours: Linked) -> dict[str, int]:
    graph, columns = ours.units[0].graph, ours.layout.units[0]
    code = ours.units[0].carried[graph.blocks.kind[ours.units[0].carried] == BlockKind.CODE]
    return {graph.sections[int(graph.blocks.section[b])].name: int(columns.block[b]) for b in code.tolist()}


def _link_with_ld(objects: list[Path], folder: Path, places: dict[str, int]) -> Path:
    script, output = folder / "place.ld", folder / "oracle.elf"
    code = [f"  {name} {address:#x} : {{ {objects[0]}({name}) }} :text" for name, address in sorted(places.items())]
    script.write_text(
        f"""PHDRS {{ text PT_LOAD FLAGS(5); data PT_LOAD FLAGS(6); tls PT_TLS FLAGS(4); }}
        SECTIONS {{
        {chr(10).join(code)}
          .text : {{ *(.text .text.*) }} :text
          .rest : {{ *(.rodata*) *(.eh_frame) *(.got*) }} :data
          .tdata : {{ *(.tdata .tdata.*) }} :data :tls
          .tbss : {{ *(.tbss .tbss.*) }} :data :tls
          /DISCARD/ : {{ *(.comment) *(.note*) *(.llvm*) }}
        }}
        """
    )
    finder = folder / "finder.o"
    subprocess.run(
        ["gcc", "-c", "-x", "assembler", "-", "-o", finder],
        input=b".globl __tls_get_addr\n__tls_get_addr: ret\n",
        check=True,
    )
    subprocess.run(
        ["ld", "-static", "--build-id=none", "-e", "0", "-T", script, *objects, finder, "-o", output],
        check=True,
        capture_output=True,
    )
    return output


def _code(elf: ELFFile, address: int, size: int) -> bytes:
    for section in elf.iter_sections():
        start = section["sh_addr"]
        if section["sh_flags"] & 4 and start <= address and address + size <= start + section["sh_size"]:
            return bytes(section.data()[address - start :][:size])
    raise AssertionError(f"{address:#x} is not in ld's file")
