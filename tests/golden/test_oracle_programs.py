"""Whole programs from Debian's source packages: their objects, linked together, are what GNU ld makes of them.

Code, data, debug information and unwind rows, fixup by fixup. Differences that are meant: GNU ld is told not to relax
and not to merge strings, and pointer cells may be in another order (`oracle`); it merges equal CIEs, so unwind rows
are compared by what they describe.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile
from oracle import LinkerOutput, Surroundings, compare, link_with
from patch_maker import FUNCTION_SECTIONS, HIGH, LOW, Linked, graph_of, link, make_arena, undefined_names, unit_of
from source_packages import SourceTree, unpack

from ipbp.formats.debug_merge import merge_debug
from ipbp.formats.elf_patch import patch_file
from ipbp.graph.model import UNDEFINED, Binding, LinkGraph

# The sections that ipbp's own compiles have; everything else is the package's.
SETTINGS = {"DEB_CFLAGS_MAINT_APPEND": " ".join(FUNCTION_SECTIONS)}
LIBTOOL = '#!/bin/sh\n[ "$2" = --tag=CC ] || exit 0\nshift 2\nexec "$@"\n'
VARIANTS = {
    "-O0": ("-O0", "-U_FORTIFY_SOURCE"),
    "-O3 -fno-pie": ("-O3", "-fno-pie"),
    "-O2 -fPIC": ("-O2", "-fPIC"),
    "-mcmodel=large": ("-mcmodel=large", "-fPIC"),
}
ARENA_SIZE = 8 << 20
TOOLS = ("makescan.c",)
"""Sources of programs that the build itself runs."""


def build_lua(source: SourceTree) -> None:
    multiarch = source.folder / "src" / "lua5.4-deb-multiarch.h"  # debian/rules writes it
    multiarch.write_text('#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"\n')
    libtool = source.folder / "libtool"
    libtool.write_text(LIBTOOL)
    libtool.chmod(0o755)
    words = [f"LIBTOOL={libtool}", f"CC={source.recorder} -std=gnu99", "SYSCFLAGS=-DLUA_USE_LINUX", "LUAC_O="]
    source.run("make", "--silent", "-j2", "-C", "src", *words, "o")


def build_mawk(source: SourceTree) -> None:
    source.run("./configure", "--quiet")
    source.run("make", "--silent", "-j2", f"CC={source.recorder}")


def build_zlib(source: SourceTree) -> None:
    source.run("./configure", "--static")
    source.run("make", "--silent", "-j2", f"CC={source.recorder}", "libz.a")


BUILDS: dict[str, Callable[[SourceTree], None]] = {"lua5.4": build_lua, "mawk": build_mawk, "zlib": build_zlib}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SourceTree]:
    """A program's tree, built once."""
    trees: dict[str, SourceTree] = {}

    def get(program: str) -> SourceTree:
        if program not in trees:
            trees[program] = unpack(program, tmp_path_factory.mktemp(program), SETTINGS)
            BUILDS[program](trees[program])
        return trees[program]

    return get


@pytest.mark.parametrize(
    "program", ["lua5.4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mawk", "zlib"))]
)
def test_a_program_has_the_linkers_bytes(program: str, built: Callable[[str], SourceTree], tmp_path: Path) -> None:
    judge(program, "its own flags", objects_of(built(program)), HIGH, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("program", BUILDS)
def test_so_has_it_with_other_flags(
    program: str,
    compiler: str,
    variant: str,
    built: Callable[[str], SourceTree],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    objects = compiled_again(built(program), request.getfixturevalue(compiler), VARIANTS[variant], tmp_path)
    judge(program, f"{compiler} {variant}", objects, LOW if "-fno-pie" in variant else HIGH, tmp_path)


def objects_of(source: SourceTree) -> list[Path]:
    """What the build made."""
    return [folder / output for folder, _words, output in compiles(source)]


def compiled_again(source: SourceTree, compiler: str, flags: Sequence[str], folder: Path) -> list[Path]:
    """The objects of the recorded commands with flags added at the end."""

    def run(number: int, directory: Path, words: Sequence[str], _output: str) -> Path:
        path = folder / f"{number}.o"
        command = [compiler, "-w", *words, *flags, "-o", str(path)]
        subprocess.run(command, cwd=directory, check=True)
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(run, number, *row) for number, row in enumerate(compiles(source))]
        return [row.result() for row in waiting]


def compiles(source: SourceTree) -> list[tuple[Path, list[str], str]]:
    """Folder, words and object of each compiler command that made the program; the words without compiler and -o."""
    found = []
    for row in source.commands():
        words, file = row["arguments"], str(row["file"])
        assert isinstance(words, list)
        output = Path(file).stem + ".o"
        if "-o" in words:
            at = words.index("-o")
            output, words = words[at + 1], words[:at] + words[at + 2 :]
        if file not in TOOLS:
            found.append((Path(str(row["directory"])), words[1:], output))
    return found


def judge(program: str, variant: str, objects: Sequence[Path], base: int, folder: Path) -> None:
    """Link the objects ourselves and with ld, and compare everything."""
    graphs = [graph_of(path) for path in objects]
    outside = {name: base + 0x400_0000 + 64 * n for n, name in enumerate(missing_names(graphs))}
    units = []
    for graph, path in zip(graphs, objects, strict=True):
        known = {name: outside[name] for name in undefined_names(graph) if name in outside}
        units.append(unit_of(graph, addresses=known, name=path.name))
    ours = link(units, make_arena(base, ARENA_SIZE))
    theirs = link_with(["ld", "-static"], ours, objects, folder, Surroundings(outside))
    verdict = compare(ours, theirs)
    in_debug = compare_debug(ours, theirs)
    rows = described(patch_file(ours.units, ours.layout, ours.image).content)
    assert verdict.differences == ()
    assert rows == described(theirs.path.read_bytes())
    print(
        f"{program}, {variant}: {verdict.fixups} fixups of code and data, {in_debug} of debug information, "
        f"{len(rows)} unwind rows: no difference"
    )
    assert verdict.fixups > 500


def missing_names(graphs: Sequence[LinkGraph]) -> list[str]:
    """Names that none of the objects defines; a linker makes the base of the pointer table itself."""
    wanted, defined = set[str](), {"_GLOBAL_OFFSET_TABLE_"}
    for graph in graphs:
        symbols = graph.symbols
        rows = zip(symbols.name, symbols.block.tolist(), symbols.binding.tolist(), strict=True)
        for name, block, binding in rows:
            if block != UNDEFINED and binding != Binding.LOCAL:
                defined.add(name)
            elif block == UNDEFINED:
                wanted.add(name)
    return sorted(wanted - defined)


def compare_debug(ours: Linked, theirs: LinkerOutput) -> int:
    """How many fixups the debug sections have, all of them as ld has them."""
    for section in merge_debug(ours.units, ours.layout):
        expected = theirs.elf.get_section_by_name(section.name)
        assert expected is not None
        assert section.content == expected.data(), section.name
    sides = [side for unit in ours.units for side in unit.graph.side]
    return sum(len(side.kind) for side in sides if side.name.startswith(".debug"))


def described(content: bytes) -> set[tuple[int, int, str]]:
    """Start, size and instructions of every unwind row in an ELF file, without the nops that fill it up."""
    with_frames = ELFFile(BytesIO(content)).get_dwarf_info()
    return {
        (
            row["initial_location"],
            row["address_range"],
            str([(step.opcode, step.args) for step in row.instructions if step.opcode]),
        )
        for row in with_frames.EH_CFI_entries()
        if isinstance(row, FDE)
    }
