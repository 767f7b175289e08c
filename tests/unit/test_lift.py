"""The running image as the old side: an unedited object must find itself in it, an edited one exactly its edits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from lifted_sources import OTHER, WORK
from running_program import WAIT, build, compile_object, graph_of, not_yet_running, run, running

from ipbp.errors import IpbpError
from ipbp.graph.model import LinkGraph
from ipbp.stages.attest import attest
from ipbp.stages.compare import Comparison, Status, compare
from ipbp.stages.correlate import correlate
from ipbp.stages.lift import lift

MAIN = WAIT + "double work(int); int other(int);\nint main(void) { work(1); other(2); ready_and_wait(); return 0; }\n"
SOURCES = {"main": MAIN, "work": WORK, "other": OTHER}
LINKS = {"pie": ["-pie"], "fixed": ["-no-pie"], "static": ["-static"]}
CODES = {"pie": ["-fPIE"], "fixed": ["-fno-pie"], "static": ["-fno-pie"]}
SECTIONS = ["-ffunction-sections", "-fdata-sections"]


def judged(old: LinkGraph, new: LinkGraph) -> tuple[Comparison, dict[str, str]]:
    """The comparison, and what it says of named blocks that are not the same."""
    comparison = compare(old, new, correlate(old, new))
    anchors = new.blocks.anchor.tolist()
    named = [block for block in comparison.reason if new.symbols.name[anchors[block]]]
    words = {new.block_name(b): f"{Status(comparison.status[b]).name}: {comparison.reason[b]}" for b in named}
    return comparison, words


@pytest.mark.parametrize(
    ("compiler", "level", "kind"),
    list(itertools.product(["gcc", "clang"], ["-O0", "-O2"], ["pie", "fixed", "static"])),
)
def test_an_unedited_object_finds_itself_in_the_image(
    compiler: str, level: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cc = request.getfixturevalue(compiler)
    flags = [level, "-g", *CODES[kind]]
    program, _objects = build(tmp_path, SOURCES, *flags, cc=cc, link=LINKS[kind])
    with running(program) as process:
        for name, text in SOURCES.items():
            new = graph_of(compile_object(tmp_path, name, text, *flags, *SECTIONS, cc=cc))
            old, found = lift(new, process.image(), process.read)
            comparison, words = judged(old, new)
            assert words == {}
            assert [old.block_name(block) for block in comparison.removed] == []
            assert comparison.notes == ()
            assert comparison.refusals == ()
            assert found.mismatched == ()


@pytest.mark.parametrize(
    ("compiler", "level", "kind"),
    list(itertools.product(["gcc", "clang"], ["-O0", "-O2"], ["pie", "fixed"])),
)
def test_an_edit_is_found_where_it_is_and_nowhere_else(
    compiler: str, level: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cc = request.getfixturevalue(compiler)
    flags = [level, "-g", *CODES[kind]]
    program, _objects = build(tmp_path, SOURCES, *flags, cc=cc, link=LINKS[kind])
    edits = {
        "work": ('printf("work %d', 'printf("now it works: %d'),
        "pick": ("return 99;", "return 98;"),
        "chosen": ("shared ? pick : helper", "shared ? helper : pick"),
        "helper": ("return n + count;", "return n - count * 2 + (int)shared;"),
    }
    with running(program) as process:
        for function, (before, after) in edits.items():
            text = WORK.replace(before, after)
            assert text != WORK
            new = graph_of(compile_object(tmp_path, "work", text, *flags, *SECTIONS, cc=cc))
            old, _found = lift(new, process.image(), process.read)
            _comparison, words = judged(old, new)
            named = {name for name in words if "." not in name}
            assert named == {function}, words


STATICS = r"""
#include <stdio.h>
int alpha(int n) { static int count = 5; count += n; return count; }
int beta(int n) { static int count = 6; count -= n; return count; }
const char *names[] = {"one", "two", "three"};
int start = 100;
int gamma_of(int n) { start += n; return puts(names[n & 1]) + start; }
"""
STATICS_MAIN = (
    WAIT
    + "int alpha(int), beta(int), gamma_of(int);\n"
    + "int main(void) { alpha(1); beta(2); gamma_of(1); ready_and_wait(); return 0; }\n"
)


@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_a_renumbered_static_of_a_function_is_found_by_who_uses_it(level: str, gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": STATICS_MAIN, "statics": STATICS}, level, cc=gcc)
    inside = STATICS.replace(
        "{ static int count = 5; count += n;", "{ static int more = 1, count = 5; count += n + more++;"
    )
    ahead = "int first_of_all(int n) { static int count = 77; return count += n; }\n" + STATICS
    with running(program) as process:
        for edited in (inside, ahead):
            new = graph_of(compile_object(tmp_path, "statics", edited, level, *SECTIONS, cc=gcc))
            old, found = lift(new, process.image(), process.read)
            pairs = correlate(old, new)
            values = {}
            for symbol, name in enumerate(new.symbols.name):
                if name.startswith("count.") and pairs.symbol[symbol] >= 0:
                    address = int(found.address[pairs.symbol[symbol]])
                    values[_user(new, symbol)] = int.from_bytes(process.read([(address, 4)])[0] or b"", "little")
            assert values == {"alpha": 6, "beta": 4}


CONSTANTS = r"""
static int one(int n) { return n + 1; } static int two(int n) { return n + 2; }
static int (*const *volatile seen)(int);
__attribute__((noinline)) void first(void) { static int (*const table[])(int) = {one, two}; seen = table; }
__attribute__((noinline)) void second(void) { static int (*const table[])(int) = {two, one}; seen = table; }
__attribute__((noinline)) void third(void) { static const char *const table[] = {"a", "b"}; seen = (void *)table; }
__attribute__((noinline)) void edited(void) { seen = 0; }
"""


@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_a_renumbered_constant_with_addresses_is_no_difference(level: str, gcc: str, tmp_path: Path) -> None:
    main = WAIT + "void first(void);\nint main(void) { first(); ready_and_wait(); return 0; }\n"
    program, _objects = build(tmp_path, {"main": main, "constants": CONSTANTS}, level, cc=gcc)
    text = CONSTANTS.replace("{ seen = 0; }", "{ static volatile int table; table += 1; seen = 0; }")
    new = graph_of(compile_object(tmp_path, "constants", text, level, *SECTIONS, cc=gcc))
    with running(program) as process:
        old, _found = lift(new, process.image(), process.read)
    _comparison, words = judged(old, new)
    assert {name for name in words if "." not in name} == {"edited"}, words


def _user(graph: LinkGraph, symbol: int) -> str:
    """The function that refers to a static variable."""
    rows = [row for row in range(len(graph.edges)) if graph.edges.target[row] == symbol]
    return graph.block_name(int(graph.edges.block[rows[0]]))


def test_changed_initial_values_are_told_and_changes_made_by_the_program_are_not(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": STATICS_MAIN, "statics": STATICS}, "-O1", cc=gcc)
    with running(program) as process:
        for before, after, told in (
            ("int start = 100;", "int start = 101;", "start"),
            ('"two"', '"zwei"', "names"),
            ("int n)", "int  n)", None),
        ):
            new = graph_of(
                compile_object(tmp_path, "statics", STATICS.replace(before, after), "-O1", *SECTIONS, cc=gcc)
            )
            comparison, _words = judged(lift(new, process.image(), process.read)[0], new)
            assert len(comparison.notes) == (told is not None)
            assert told is None or told in comparison.notes[0]


def test_two_files_of_one_name_are_told_apart_by_what_their_functions_use(gcc: str, tmp_path: Path) -> None:
    shape = r"""
    static int state = %d;
    __attribute__((noinline)) static int bump(int n) { state += n; return state; }
    int entry_%s(int n) { return bump(n) * 3; }
    """
    texts = {"a": shape % (1, "a"), "b": shape % (10, "b")}
    objects = []
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        objects.append(compile_object(tmp_path / name, "util", text, "-O2", cc=gcc))
    main = "int entry_a(int), entry_b(int);\nint main(void) { entry_a(1); entry_b(2); ready_and_wait(); return 0; }\n"
    program = tmp_path / "program"
    objects.append(compile_object(tmp_path, "main", WAIT + main, cc=gcc))
    run([gcc, *map(str, objects), "-o", str(program)], tmp_path)
    with running(program) as process:
        for name, value in (("a", 2), ("b", 12)):
            edited = texts[name].replace("* 3", "* 4")
            new = graph_of(compile_object(tmp_path / name, "util", edited, "-O2", *SECTIONS, cc=gcc))
            old, found = lift(new, process.image(), process.read)
            address = int(found.address[old.symbols.name.index("state")])
            assert process.read([(address, 4)])[0] == value.to_bytes(4, "little")
        nobody = "static int state; int fresh(int n) { return state += n; }\n"
        new = graph_of(compile_object(tmp_path / "a", "util", nobody, "-O2", *SECTIONS, cc=gcc))
        with pytest.raises(IpbpError) as caught:
            lift(new, process.image(), process.read)
        assert caught.value.code == "unit-ambiguous"


@pytest.mark.parametrize("code", ["-fPIC", "-fPIE"])
def test_a_program_whose_loader_has_not_run_yet_is_read_like_any_other(code: str, clang: str, tmp_path: Path) -> None:
    flags = ["-O2", code, *SECTIONS]
    program, objects = build(tmp_path, SOURCES, *flags, cc=clang, link=["-pie"])
    with not_yet_running(program) as process:
        for path in objects.values():
            graph = graph_of(path)
            found = attest(graph, process.image(), process.read)
            assert found.mismatched == ()
            old, _found = lift(graph, process.image(), process.read)
            assert judged(old, graph)[1] == {}


def test_a_shared_library_is_lifted_and_attested_like_a_program(gcc: str, tmp_path: Path) -> None:
    objects = {
        name: compile_object(tmp_path, name, SOURCES[name], "-O2", "-fPIC", cc=gcc) for name in ("work", "other")
    }
    run([gcc, "-shared", *map(str, objects.values()), "-o", "libwork.so"], tmp_path)
    main = compile_object(tmp_path, "main", MAIN, cc=gcc)
    run([gcc, str(main), "-L.", "-lwork", f"-Wl,-rpath,{tmp_path}", "-o", "program"], tmp_path)
    with running(tmp_path / "program") as process:
        image = next(image for image in process.process().images() if "libwork" in image.path)
        for name in objects:
            graph = graph_of(objects[name])
            assert attest(graph, image, process.read).mismatched == ()
            new = graph_of(compile_object(tmp_path, name, SOURCES[name], "-O2", "-fPIC", *SECTIONS, cc=gcc))
            assert judged(lift(new, image, process.read)[0], new)[1] == {}


def test_code_in_memory_that_is_not_the_files_is_no_proof(gcc: str, tmp_path: Path) -> None:
    program, objects = build(tmp_path, SOURCES, "-O1", "-fPIE", cc=gcc)
    with running(program) as process:
        image = process.image()
        (row,) = image.symbols.by_name["work"]
        victim = range(int(image.symbols.address[row]) + 12, int(image.symbols.address[row]) + 13)

        def read(ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
            changed = []
            for (start, size), content in zip(ranges, process.read(ranges), strict=True):
                octets = bytearray(content or b"")
                for address in victim:
                    if start <= address < start + size:
                        octets[address - start] ^= 1
                changed.append(bytes(octets))
            return changed

        graph, found = lift(graph_of(objects["work"]), image, read)
        proved = {graph.block_name(block) for block in found.proved.nonzero()[0].tolist()}
    assert "pick" in proved
    assert "work" not in proved


def test_a_stripped_image_without_an_object_is_refused(gcc: str, tmp_path: Path) -> None:
    program, objects = build(tmp_path, SOURCES, "-O1", cc=gcc, link=["-rdynamic"])
    run(["strip", "-s", "program"], tmp_path)
    with running(program) as process, pytest.raises(IpbpError) as caught:
        lift(graph_of(objects["work"]), process.image(), process.read)
    assert caught.value.code == "no-symbols"
    assert "count" in caught.value.fact or "calls" in caught.value.fact
