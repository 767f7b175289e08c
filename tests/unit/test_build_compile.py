"""Dirty units are compiled into the store, all or none, and the tree is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from build_tree import COMPILERS, command, contents, run, write

from ipbp.build.command import Command
from ipbp.build.compile import Compiled, compile_units
from ipbp.build.compiler_run import Began
from ipbp.build.dirty import Dirty, dirty
from ipbp.build.snapshot import Snapshot, digest_of
from ipbp.build.store import Store
from ipbp.errors import IpbpError, Refused


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    write(root, {"a.c": '#include "a.h"\nint f(void) { return A; }\n', "a.h": "#define A 1\n", "b.c": "int g;\n"})
    return root


def build(tmp_path: Path, *commands: Command, colour: bool = False) -> tuple[Compiled, ...]:
    units = [Dirty(one, "edited", None) for one in commands]
    return compile_units(units, Store(tmp_path / "store"), lambda _: None, colour)


@pytest.mark.parametrize("compiler", [*COMPILERS, "ccache gcc", "ccache clang-19", "env LC_ALL=C gcc"])
def test_objects_land_in_the_store_with_their_dependencies(compiler, tree, tmp_path):
    before = contents(tree)

    first, second = build(
        tmp_path,
        command(tree, f"{compiler} -g -c a.c -o a.o"),
        command(tree, f"{compiler} -g -c b.c -o b.o", "b.c", "b.o"),
    )

    assert contents(tree) == before
    assert (first.source, second.source) == (str(tree / "a.c"), str(tree / "b.c"))
    assert digest_of(str(first.object)) == first.digest
    assert first.dependencies[str(tree / "a.h")] == digest_of(str(tree / "a.h"))
    assert " T f\n" in run("nm", first.object, cwd=tmp_path)
    assert first.milliseconds > 0


def test_ccache_is_used(tree, tmp_path):
    unit = command(tree, "ccache gcc -g -c a.c -o a.o")
    first = build(tmp_path, unit)

    second = build(tmp_path, unit)

    statistics = run("ccache", "--print-stats", cwd=tree)
    hits = {line.split("\t")[0]: int(line.split("\t")[1]) for line in statistics.splitlines()}
    assert hits["preprocessed_cache_hit"] + hits["direct_cache_hit"] == 1
    assert first[0].digest == second[0].digest


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compile_error_is_shown_as_the_compiler_printed_it(compiler, tree, tmp_path):
    write(tree, {"a.c": "int f(void) { return x; }\n"})
    printed = subprocess.run(
        [compiler, "-c", "a.c", "-o", "/dev/null"], cwd=tree, capture_output=True, text=True
    ).stderr

    with pytest.raises(IpbpError) as error:
        build(tmp_path, command(tree, f"{compiler} -c a.c -o a.o"), command(tree, f"{compiler} -c b.c", "b.c"))

    assert error.value.code == "compile-failed"
    assert error.value.detail == printed
    assert "a.c" in error.value.fact
    assert not (tree / "a.o").exists()


def test_colour_is_the_compilers_own(tree, tmp_path):
    write(tree, {"a.c": "int f(void) { return x; }\n"})

    with pytest.raises(IpbpError) as error:
        build(tmp_path, command(tree, "gcc -c a.c -o a.o"), colour=True)

    assert "\x1b[" in error.value.detail


def test_warnings_are_handed_on(tree, tmp_path):
    write(tree, {"a.c": "int f(void) { int unused; return 1; }\n"})

    (only,) = build(tmp_path, command(tree, "gcc -Wall -c a.c -o a.o"))

    assert "unused" in only.messages


def test_all_refusals_come_at_once_and_nothing_is_compiled(tree, tmp_path):
    with pytest.raises(Refused) as refused:
        build(
            tmp_path,
            command(tree, "gcc -flto -c a.c -o a.o"),
            command(tree, "gcc --coverage -c b.c -o b.o", "b.c"),
        )

    assert [reason.code for reason in refused.value.refusals] == ["lto", "gcov"]


def test_missing_compiler_and_missing_folder_are_told_apart(tree, tmp_path):
    with pytest.raises(IpbpError) as error:
        build(tmp_path, command(tree, "no-such-gcc -c a.c"))
    assert error.value.code == "compiler-missing"

    with pytest.raises(IpbpError) as error:
        build(tmp_path, command(tree / "gone", "gcc -c a.c"))
    assert error.value.code == "build-directory-missing"


def test_edit_back_to_the_original_text_is_the_original_object(tree, tmp_path):
    unit = command(tree, "gcc -O2 -g -c a.c -o a.o")
    (first,) = build(tmp_path, unit)
    write(tree, {"a.h": "#define A 2\n"})
    (second,) = build(tmp_path, unit)
    write(tree, {"a.h": "#define A 1\n"})

    (third,) = build(tmp_path, unit)

    assert first.digest == third.digest != second.digest
    assert first.object.is_file()


def test_header_edited_twice_within_one_tick_is_compiled_twice(tree, tmp_path):
    unit = command(tree, "gcc -O2 -c a.c -o a.o")
    write(tree, {"a.h": "#define A 2\n"})
    stamp = (tree / "a.h").stat().st_mtime_ns
    (first,) = build(tmp_path, unit)
    assert dirty([unit], 0, {first.source: _patched(first)}) == []

    write(tree, {"a.h": "#define A 3\n"})
    os.utime(tree / "a.h", ns=(stamp, stamp))

    (row,) = dirty([unit], 0, {first.source: _patched(first)})
    assert row.reason == f"{tree / 'a.h'} changed"
    assert build(tmp_path, unit)[0].digest != first.digest


def test_file_saved_during_its_compile_is_compiled_again(tree, tmp_path):
    # This compiler's first run ends with an edit of the header that it has just read.
    once = tmp_path / "once"
    write(
        tree,
        {"gcc": f"#!/bin/sh\ngcc \"$@\" || exit\n[ -e {once} ] || {{ touch {once}; echo '#define A 7' > a.h; }}\n"},
    )
    (tree / "gcc").chmod(0o755)

    (only,) = build(tmp_path, command(tree, f"{tree}/gcc -O2 -c a.c -o a.o"))

    assert "$0x7" in run("objdump", "-d", only.object, cwd=tmp_path)
    assert only.dependencies[str(tree / "a.h")] == digest_of(str(tree / "a.h"))


def test_a_file_is_held_against_the_clock_of_its_file_system(tmp_path):
    path = tmp_path / "a.h"
    path.touch()
    os.utime(path, ns=(150, 150))
    device = path.stat().st_dev

    assert Began(device, 151, 100).is_after(Snapshot(), str(path))
    assert not Began(device, 150, 200).is_after(Snapshot(), str(path))
    assert Began(device + 1, 100, 151).is_after(Snapshot(), str(path))
    assert not Began(device + 1, 200, 150).is_after(Snapshot(), str(path))
    assert Began(device, 1, 1).is_after(Snapshot(), str(tmp_path / "missing"))


def test_file_that_never_stays_the_same_is_an_error(tree, tmp_path):
    write(tree, {"gcc": '#!/bin/sh\ngcc "$@" && echo "// more" >> a.h\n'})
    (tree / "gcc").chmod(0o755)

    with pytest.raises(IpbpError) as error:
        build(tmp_path, command(tree, f"{tree}/gcc -c a.c -o a.o"))

    assert error.value.code == "sources-changing"


def test_future_time_stamps_do_not_stop_a_compile(tree, tmp_path):
    os.utime(tree / "a.h", (4e9, 4e9))

    assert len(build(tmp_path, command(tree, "gcc -c a.c -o a.o"))) == 1


def test_compiler_that_makes_no_object_is_an_error(tree, tmp_path):
    with pytest.raises(IpbpError) as error:
        build(tmp_path, command(tree, "true -c a.c"))

    assert "made no object" in error.value.detail


def test_interrupt_ends_the_compilers(tree, tmp_path):
    # The compiler tells through a pipe that it runs, and holds the pipe open for as long as it or a child lives.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    write(tree, {"gcc": f"#!/bin/sh\nexec 9> {pipe}\necho up >&9\ntail -f /dev/null & wait\n"})
    (tree / "gcc").chmod(0o755)
    program = (
        "import sys\nfrom pathlib import Path\nfrom ipbp.build.command import Command\n"
        "from ipbp.build.compile import compile_units\nfrom ipbp.build.dirty import Dirty\n"
        "from ipbp.build.store import Store\nroot = Path(sys.argv[1])\n"
        "unit = Command(root, root / 'a.c', None, (str(root / 'gcc'), '-c', 'a.c'))\n"
        "compile_units([Dirty(unit, '', None)], Store(root / 'store'), print)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tree)], stderr=subprocess.PIPE)
    with pipe.open() as reading:
        assert reading.readline() == "up\n"

        process.send_signal(signal.SIGINT)

        assert reading.read() == ""  # end of file: nobody holds the pipe any more
    _, errors = process.communicate()
    assert b"KeyboardInterrupt" in errors
    assert list((tmp_path / "cache/ipbp/objects").glob("compile-*")) == []


def test_nothing_dirty_compiles_nothing(tmp_path):
    told: list[str] = []

    assert compile_units([], Store(tmp_path), told.append) == ()
    assert told == []


def _patched(unit: Compiled):
    class Patched:
        object = unit.digest
        dependencies = unit.dependencies

    return Patched()
