"""Which thread-local accesses of new code can be made to work, and which are refused by name."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patch_maker import HIGH, compile_object, graph_of, link, symbol, undefined_names, unit_of

from ipbp.arch.x86_64_tls import local_exec
from ipbp.errors import Refusal
from ipbp.formats.elf_image import read_image
from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import Found
from ipbp.graph.threads import ThreadBlock, ThreadPlace, executable_block
from ipbp.graph.unit import Unit
from ipbp.stages.thread_locals import Threads, bind_thread_locals

PROGRAM = "__thread long shared = 5; int main(void) { return (int)shared; }"
LIBRARY = ThreadBlock(start=0x7000_0000, size=64, offset=-256, module=2)


@pytest.fixture(scope="module")
def threads(gcc: str, tmp_path_factory: pytest.TempPathFactory) -> Threads:
    folder = tmp_path_factory.mktemp("program")
    path = compile_object(folder, PROGRAM, gcc, "-O2")
    subprocess.run([gcc, path, "-o", folder / "program"], check=True)
    image = read_image(str(folder / "program"))
    found = Found(LIBRARY.start + 16, 4, False, False, "library", thread_local=True)
    return Threads(
        image,
        executable_block(image),
        (),
        lambda name: found if name == "of_library" else None,
        lambda path: LIBRARY if path == "library" else None,
    )


def bound(folder: Path, compiler: str, source: str, threads: Threads, *options: str) -> tuple[Unit, list[Refusal]]:
    """The unit of a source whose code is carried."""
    graph = graph_of(compile_object(folder, source, compiler, *options))
    (unit,), refusals = bind_thread_locals([unit_of(graph, carried=["f"])], threads, {})
    return unit, list(refusals)


def test_a_variable_of_the_program_ends_at_the_thread_pointer(gcc: str, tmp_path: Path, threads: Threads) -> None:
    source = "extern __thread long shared; long f(void) { return shared; }"
    unit, refusals = bound(tmp_path, gcc, source, threads, "-O2", "-fPIC")
    assert refusals == []
    assert unit.thread[symbol(unit.graph, "shared")] == ThreadPlace(-8, 1, 0, alignment=8)
    assert unit.graph.edges.kind.tolist() == [EdgeKind.TPOFF32]


def test_a_variable_of_a_library_with_static_storage_is_reached_without_a_call(
    gcc: str, tmp_path: Path, threads: Threads
) -> None:
    source = "extern __thread int of_library; int f(void) { return of_library; }"
    unit, refusals = bound(tmp_path, gcc, source, threads, "-O2", "-fPIC", "-fno-plt")
    assert refusals == []
    assert unit.thread[symbol(unit.graph, "of_library")] == ThreadPlace(-240, 2, 16)
    assert unit.graph.edges.kind.tolist() == [EdgeKind.TPOFF32]


def test_a_name_that_nothing_has_is_refused(gcc: str, tmp_path: Path, threads: Threads) -> None:
    _unit, refusals = bound(tmp_path, gcc, "extern __thread int gone; int f(void) { return gone; }", threads, "-O2")
    assert [(row.code, row.symbol) for row in refusals] == [("undefined-symbol", "gone")]


def test_an_instruction_that_no_linker_rewrites_is_refused(gcc: str, tmp_path: Path, threads: Threads) -> None:
    source = """
    long f(long x) { __asm__("leaq shared@tlsgd(%%rip), %%rdi; call __tls_get_addr@plt" : "+a"(x)); return x; }
    """
    _unit, refusals = bound(tmp_path, gcc, source, threads, "-O2", "-fPIC")
    assert [(row.code, row.symbol) for row in refusals] == [("thread-local", "shared")]


@pytest.mark.parametrize("register", ["01d8", "4c01f8"])
def test_the_call_of_the_large_model_becomes_an_offset(register: str) -> None:
    end = register if len(register) == 6 else "48" + register
    code = bytes.fromhex("488d3d00000000" + "48b80000000000000000" + end + "ffd0")
    (general,) = local_exec(EdgeKind.TLS_GD32, code, 3)
    assert general.code.hex() == "64488b042500000000" + "488d8000000000" + "660f1f440000"
    assert (general.start, general.field, general.call, general.end) == (0, 12, 9, len(code))
    (local,) = local_exec(EdgeKind.TLS_LD32, code, 3)
    assert local.code.hex() == "666666662e0f1f840000000000" + "64488b042500000000"
    assert (local.start, local.call, local.end) == (0, 9, len(code))


def test_the_other_functions_of_the_section_stay_as_they_are(gcc: str, tmp_path: Path, threads: Threads) -> None:
    source = "extern __thread long shared; long f(void) { return shared; } long g(void) { return shared; }"
    path = tmp_path / "both.o"
    (tmp_path / "both.c").write_text(source)
    subprocess.run([gcc, "-O2", "-fPIC", "-c", tmp_path / "both.c", "-o", path], check=True)
    graph = graph_of(path)
    (unit,), refusals = bind_thread_locals([unit_of(graph, carried=["f"])], threads, {})
    assert refusals == ()
    f, g = (int(graph.symbols.block[symbol(graph, name)]) for name in "fg")
    assert unit.graph.content(g) == graph.content(g)
    assert unit.graph.content(f) != graph.content(f)
    assert np.array_equal(unit.graph.edges.kind[unit.graph.edges_of(g)], graph.edges.kind[graph.edges_of(g)])


PLUGIN = ThreadBlock(start=0x7100_0000, size=4096, offset=None, module=5)
STATIC = """
static __thread long one, two[4]; extern long *volatile kept;
long f(int i) { kept = &one; one += i; two[i] += i; return one + two[i]; }
"""


def of_plugin(threads: Threads) -> Threads:
    """Seen from a library whose variables each thread has elsewhere."""
    found = Found(PLUGIN.start + 8, 4, False, False, "plugin", thread_local=True)
    return replace(threads, own=PLUGIN, lookup=lambda _name: found, block_of=lambda _path: PLUGIN)


def test_a_variable_without_a_fixed_place_is_asked_for_by_module_and_offset(
    gcc: str, tmp_path: Path, threads: Threads
) -> None:
    source = "extern __thread int of_plugin; int f(void) { return of_plugin; }"
    unit, refusals = bound(tmp_path, gcc, source, of_plugin(threads), "-O2", "-fPIC")
    assert refusals == []
    (finder,) = undefined_names(unit.graph)[-1:]
    outside = replace(unit, address=np.where(np.array(unit.graph.symbols.name) == finder, HIGH, unit.address))
    linked = link([outside])
    (pair,) = linked.layout.pairs
    assert (pair.module, pair.in_block) == (5, 8)
    assert linked.read(pair.address, 16) == (5).to_bytes(8, "little") + (8).to_bytes(8, "little")
    field = linked.address("f") + int(unit.graph.edges.offset[unit.graph.edges.kind == EdgeKind.TLS_GD32][0])
    assert field + 4 + int.from_bytes(linked.read(field, 4), "little", signed=True) == pair.address


def test_variables_that_are_counted_from_their_block_stay_so_there(gcc: str, tmp_path: Path, threads: Threads) -> None:
    graph = graph_of(compile_object(tmp_path, STATIC, gcc, "-O2", "-fPIC"))
    known = {"one": PLUGIN.start + 64, "two": PLUGIN.start + 128}
    (unit,), refusals = bind_thread_locals([unit_of(graph, ["f"], known)], of_plugin(threads), {})
    assert refusals == ()
    kinds = set(unit.graph.edges.kind.tolist())
    assert {EdgeKind.TLS_LD32, EdgeKind.DTPOFF32} <= kinds
    assert {place.in_block for place in unit.thread.values()} == {64, 128}


def test_a_new_variable_is_not_counted_from_a_block_that_it_is_not_in(
    gcc: str, tmp_path: Path, threads: Threads
) -> None:
    graph = graph_of(compile_object(tmp_path, STATIC, gcc, "-O2", "-fPIC"))
    known = {"one": PLUGIN.start + 64}
    _units, refusals = bind_thread_locals([unit_of(graph, ["f", "two"], known)], of_plugin(threads), {})
    assert [(row.code, row.symbol) for row in refusals] == [("thread-local", "two")]


@pytest.mark.parametrize("option", ["-ftls-model=initial-exec", "-mtls-dialect=gnu2"])
def test_what_wants_one_place_in_all_threads_is_refused_without(
    option: str, gcc: str, tmp_path: Path, threads: Threads
) -> None:
    source = "extern __thread int of_plugin; int f(void) { return of_plugin; }"
    _unit, refusals = bound(tmp_path, gcc, source, of_plugin(threads), "-O2", "-fPIC", option)
    assert {(row.code, row.symbol) for row in refusals} == {("thread-local", "of_plugin")}


@pytest.mark.parametrize("known", [True, False])
def test_a_variable_without_one_place_is_reached_by_a_descriptor_that_the_image_has(
    gcc: str, tmp_path: Path, threads: Threads, known: bool
) -> None:
    assert threads.own is not None
    plugin = replace(
        threads,
        own=replace(threads.own, offset=None, module=3),
        named_descriptors={"shared": 0x5000} if known else {},
    )
    source = "extern __thread long shared; long f(void) { return shared; }"
    unit, refusals = bound(tmp_path, gcc, source, plugin, "-O2", "-fPIC", "-mtls-dialect=gnu2")
    assert unit.thread[symbol(unit.graph, "shared")].descriptor == (0x5000 if known else 0)
    assert [row.code for row in refusals] == ([] if known else ["thread-local"] * 2)
    assert unit.graph.edges.kind.tolist() == [EdgeKind.TLSDESC_PCREL32, EdgeKind.TLSDESC_CALL]
