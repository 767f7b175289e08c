"""Dependency rules are read back as the compilers and ninja wrote them."""

from __future__ import annotations

import os
import struct

import pytest
from build_tree import COMPILERS, command, run, write

from ipbp.build.dependencies import listed_dependencies, recorded_dependencies
from ipbp.build.depfile import dependencies_of
from ipbp.build.ninja_deps import ninja_dependencies
from ipbp.build.snapshot import Snapshot

HOSTILE = [b"a b.h", b"x$y.h", b"p#q.h", b"w:z.h", b"q'q\"q.h", b"\xff\xfe.h", b"100%.h", b"  two.h", b"\xc2\xa0.h"]
GCC_ONLY = [b"back\\slash.h", b"tail\\ x.h", b"tab\tx.h"]  # clang writes these ambiguously


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_hostile_names_come_back(compiler, tmp_path):
    names = [name for name in HOSTILE + (GCC_ONLY if compiler == "gcc" else []) if b'"' not in name]
    root = os.fsencode(tmp_path)
    for name in names:
        with open(os.path.join(root, name), "w"):
            pass
    with open(os.path.join(root, b"the source.c"), "wb") as file:
        file.write(b"".join(b'#include "%s"\n' % name for name in names) + b"int a;\n")

    run(compiler, "-MD", "-MP", "-MF", "o.d", "-c", "the source.c", "-o", "the object.o", cwd=tmp_path)

    found = set(dependencies_of((tmp_path / "o.d").read_bytes()))
    assert {os.fsdecode(name) for name in names} | {"the source.c"} <= found


def test_several_rules_and_continuations_are_joined():
    text = b"a.o b.o: a.c \\\n  a.h \\\r\n b.h\na.h:\n\nb.h:\n# no rule\n"

    assert dependencies_of(text) == ("a.c", "a.h", "b.h")


def test_damaged_files_have_no_dependencies():
    assert dependencies_of(b"\x7fELF\0\1\2\3") == ()
    assert dependencies_of(b"") == ()


@pytest.mark.parametrize("option", ["-MD", "-MMD", "-MD -MF deps/x.d", "-Wp,-MMD,deps/y.d"])
def test_depfile_is_found_where_the_command_put_it(option, tmp_path):
    write(tmp_path, {"a.c": '#include "inc/a.h"\n', "inc/a.h": "int a;\n", "deps/keep": ""})
    unit = command(tmp_path, f"gcc {option} -c a.c -o a.o")
    run(*unit.arguments, cwd=tmp_path)

    found = recorded_dependencies(unit, Snapshot())

    assert found is not None
    assert str(tmp_path / "inc/a.h") in found


def test_automake_depfile_is_found(tmp_path):
    write(tmp_path, {"a.c": '#include "a.h"\n', "a.h": "int a;\n", ".deps/keep": ""})
    unit = command(tmp_path, "gcc -MD -MP -MF .deps/a.Tpo -c a.c -o a.o")
    run(*unit.arguments, cwd=tmp_path)
    os.rename(tmp_path / ".deps/a.Tpo", tmp_path / ".deps/a.Po")

    assert recorded_dependencies(unit, Snapshot()) is not None


def test_depfile_of_another_source_does_not_count(tmp_path):
    write(tmp_path, {"a.c": "int a;\n", "a.d": "a.o: other.c other.h\n"})

    assert recorded_dependencies(command(tmp_path, "gcc -c a.c -o a.o"), Snapshot()) is None


def test_ninja_remembers_what_it_deleted(tmp_path):
    write(
        tmp_path,
        {
            "src/a.c": '#include "a.h"\n',
            "src/a.h": "int a;\n",
            "b/build.ninja": "rule cc\n depfile = $out.d\n deps = gcc\n"
            " command = gcc -MD -MF $out.d -c $in -o $out\nbuild o/a.o: cc ../src/a.c\n",
        },
    )
    run("ninja", cwd=tmp_path / "b")

    found = ninja_dependencies(tmp_path / "b", tmp_path / "b/o/a.o")

    assert found is not None
    assert {str(tmp_path / "src/a.c"), str(tmp_path / "src/a.h")} <= set(found)


def test_damaged_ninja_log_is_no_answer(tmp_path):
    log = tmp_path / ".ninja_deps"
    head = b"# ninjadeps\n" + struct.pack("<i", 4)
    for content in (b"", b"# ninjadeps\n", head + b"\xff\xff\xff\x7f", head + struct.pack("<III", 0x80000008, 5, 5)):
        log.write_bytes(content)
        assert ninja_dependencies(tmp_path, tmp_path / "a.o") is None


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiler_lists_headers_where_no_build_did(compiler, tmp_path):
    write(tmp_path, {"a.c": '#include "a.h"\n#include "b.h"\n', "a.h": "", "b.h": "#include <stddef.h>\n"})
    unit = command(tmp_path, f"{compiler} -MD -MF x.d -c a.c -o a.o")

    found = listed_dependencies(unit, Snapshot())

    assert found == tuple(str(tmp_path / name) for name in ("a.c", "a.h", "b.h"))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["a.c", "a.h", "b.h"]


def test_listing_follows_the_content_of_a_header(tmp_path):
    write(tmp_path, {"a.c": '#include "a.h"\n', "a.h": "//##########\n", "b.h": ""})
    unit = command(tmp_path, "gcc -c a.c -o a.o")
    stamp = (tmp_path / "a.h").stat()
    listed_dependencies(unit, Snapshot())
    (tmp_path / "a.h").write_text('#include "b.h"')
    os.utime(tmp_path / "a.h", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    found = listed_dependencies(unit, Snapshot())

    assert found is not None
    assert str(tmp_path / "b.h") in found


def test_source_that_does_not_preprocess_has_no_list(tmp_path):
    write(tmp_path, {"a.c": '#include "missing.h"\n'})

    assert listed_dependencies(command(tmp_path, "gcc -c a.c -o a.o"), Snapshot()) is None
