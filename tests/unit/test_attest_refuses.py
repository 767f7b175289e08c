"""What run-pre matching must not believe: edited objects, strangers, and two files of one name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from running_program import WAIT, Running, build, compile_object, graph_of, run, running

from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.attest import Attestation, attest

TEXT = r"""
#include <stdio.h>
static volatile int one = 1, two = 2; int three = 3;
int first(int n) { return n + 1; }
int second(int n) { return n + 2; }
static const char *name(void) { return "old text"; }
int edited(int n) { one += n; printf("%s %d\n", name(), two); return first(n) * 3 + three; }
int kept(int n) { two -= n; return second(n) + one; }
"""
MAIN = WAIT + "int edited(int), kept(int);\nint main(void) { edited(1); kept(2); ready_and_wait(); return 0; }\n"
EDITS = {
    "another constant": ("* 3", "* 5"),
    "another function is called": ("return first(n)", "return second(n)"),
    "another variable is used": ("one += n", "two += n"),
    "another string": ("old text", "new text"),
    "more code": ("one += n;", "one += n; if (n > 7) three++;"),
}


@pytest.fixture(scope="module", params=["gcc -O0", "gcc -O2", "clang -O0", "clang -O2"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], Path]:
    compiler, level = request.param.split()
    cc, folder = request.getfixturevalue(compiler), tmp_path_factory.mktemp("refuses")
    flags = [level, "-fno-inline", "-ffunction-sections", "-fdata-sections"]
    program, _objects = build(folder, {"main": MAIN, "text": TEXT}, *flags, cc=cc)
    return cc, flags, program


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_object_that_was_not_linked_is_told(compiled: tuple[str, list[str], Path], edit: str) -> None:
    cc, flags, program = compiled
    folder = program.parent / edit.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    graph = graph_of(compile_object(folder, "text", TEXT.replace(*EDITS[edit]), *flags, cc=cc))
    with running(program) as process:
        found = attest(graph, process.image(), process.read)
    names = {graph.block_name(block) for block, _reason in found.mismatched}
    assert names  # something is told
    assert "kept" not in names
    assert found.proved[[graph.block_name(b) for b in range(len(graph.blocks))].index("kept")]
    if edit != "another string":
        assert "edited" in names


def test_an_object_of_another_program_is_not_proved(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path / "one", {"main": MAIN, "text": TEXT}, "-O2", cc=gcc)
    stranger = compile_object(tmp_path, "stranger", "int quite_different(int n) { return n * 77; }\n", "-O2", cc=gcc)
    graph = graph_of(stranger)
    with running(program) as process:
        found = attest(graph, process.image(), process.read)
    assert not found.proved.any()
    assert {graph.block_name(block) for block in found.missing} == {"quite_different"}
    assert (found.address[graph.symbols.block >= 0] == -1).all()


def test_functions_that_the_linker_dropped_are_missing_and_the_rest_is_proved(gcc: str, tmp_path: Path) -> None:
    text = TEXT + "int unused(int n) { return n * 1234; }\n"
    flags = ["-O2", "-fno-inline", "-ffunction-sections", "-fdata-sections"]
    program, objects = build(tmp_path, {"main": MAIN, "text": text}, *flags, cc=gcc, link=["-Wl,--gc-sections"])
    graph = graph_of(objects["text"])
    with running(program) as process:
        found = attest(graph, process.image(), process.read)
    assert found.mismatched == ()
    assert {graph.block_name(block) for block in found.missing} == {"unused"}


def test_two_files_of_one_name_are_told_apart_by_their_bytes_and_by_who_uses_what(gcc: str, tmp_path: Path) -> None:
    shape = r"""
    static int state = %d; static int own[4];
    __attribute__((noinline)) static int bump(int n) { state += n; own[n & 3]++; return state; }
    int entry_%s(int n) { return bump(n) * %d; }
    """
    first, second = shape % (1, "a", 3), shape % (2, "b", 5)
    a = compile_object(_made(tmp_path / "a"), "util", first, "-O2", cc=gcc)
    b = compile_object(_made(tmp_path / "b"), "util", second, "-O2", cc=gcc)
    text = "int entry_a(int), entry_b(int);\nint main(void) { entry_a(1); entry_b(2); ready_and_wait(); return 0; }\n"
    main = compile_object(tmp_path, "main", WAIT + text, cc=gcc)
    program = tmp_path / "program"
    run([gcc, str(main), str(a), str(b), "-o", str(program)], tmp_path)
    with running(program) as process:
        in_a, in_b = (_attested(path, process) for path in (a, b))
        for found in (in_a, in_b):
            assert found[1].mismatched == ()
            assert found[1].missing == ()
        assert _value(process, *in_a, "state") == 2
        assert _value(process, *in_b, "state") == 4


def test_the_dynamic_table_alone_is_enough_where_functions_are_exported(gcc: str, tmp_path: Path) -> None:
    program, objects = build(tmp_path, {"main": MAIN, "text": TEXT}, "-O0", cc=gcc, link=["-rdynamic"])
    run(["strip", str(program)], tmp_path)
    graph = graph_of(objects["text"])
    with running(program) as process:
        found = attest(graph, process.image(), process.read)
        assert found.mismatched == ()
        assert found.proved[graph.blocks.kind == BlockKind.CODE].all()
        assert _value(process, graph, found, "two") == 0  # kept(2) took 2 from it: found through the fixups alone


def test_memory_that_cannot_be_read_is_no_proof(gcc: str, tmp_path: Path) -> None:
    program, objects = build(tmp_path, {"main": MAIN, "text": TEXT}, "-O2", cc=gcc)
    graph = graph_of(objects["text"])
    with running(program) as process:
        found = attest(graph, process.image(), lambda ranges: [None for _ in ranges])
    assert not found.proved.any()
    assert all("cannot be read" in reason for _block, reason in found.mismatched)


def test_one_changed_byte_in_memory_is_seen(gcc: str, tmp_path: Path) -> None:
    program, objects = build(tmp_path, {"main": MAIN, "text": TEXT}, "-O2", cc=gcc)
    graph = graph_of(objects["text"])
    with running(program) as process:
        image = process.image()
        target = int(image.symbols.address[image.symbols.by_name["second"][0]])

        def tampered(ranges: list[tuple[int, int]]) -> list[bytes | None]:
            contents = process.read(ranges)
            for index, (start, size) in enumerate(ranges):
                content = contents[index]
                if content is not None and start <= target < start + size:
                    octets = bytearray(content)
                    octets[target - start] ^= 1
                    contents[index] = bytes(octets)
            return contents

        found = attest(graph, image, tampered)
    assert [graph.block_name(block) for block, _reason in found.mismatched] == ["second"]
    others = np.array([graph.block_name(b) != "second" for b in range(len(graph.blocks))])
    assert found.proved[others & (graph.blocks.kind == BlockKind.CODE)].all()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _attested(path: Path, process: Running) -> tuple[LinkGraph, Attestation]:
    graph = graph_of(path)
    return graph, attest(graph, process.image(), process.read)


def _value(process: Running, graph: LinkGraph, found: Attestation, name: str) -> int:
    address = int(found.address[graph.symbols.name.index(name)])
    return int.from_bytes(process.read([(address, 4)])[0] or b"", "little")
