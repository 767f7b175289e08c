"""A recorded compile is replayed as it was, and writes into the folder it is given and nowhere else."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from build_tree import COMPILERS, contents, run, write
from build_tree import command as make_command

from ipbp.build.command import Command, for_patch, refusals

SOURCE = {
    "a.c": '#include "a.h"\nint f(int x) { return x + A; }\nint g(void) { return f(2); }\n',
    "a.h": "#define A 1\n",
}


def replay(command: Command, place: Path) -> tuple[str, ...]:
    """Run the rewritten command; afterwards the object is at place/new.o and the dependencies at place/new.d."""
    place.mkdir(exist_ok=True)
    words = for_patch(command, place / "new.o", place / "new.d")
    run(*words, cwd=command.directory)
    return words


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    "options",
    [
        "-c a.c -o a.o",
        "-c a.c",
        "a.c -oa.o -c",
        "-MD -MP -MT a.o -MF a.d -c a.c -o a.o",
        "-MMD -MFa.d -MQ a.o -c a.c -o a.o",
        "-Wp,-MD,a.d -c a.c -o a.o",
        "-Wp,-MMD,a.d,-MT,x,-DZ=1 -c a.c -o a.o",
        "-Xpreprocessor -MD -Xpreprocessor a.d -c a.c -o a.o",
        "-save-temps -c a.c -o a.o",
        "-save-temps=cwd -c a.c -o a.o",
        "--save-temps -c a.c -o a.o",
        "-gsplit-dwarf -g -c a.c -o a.o",
        "-fstack-usage -c a.c -o a.o",
        "-c a.c -o a.o -g -Wa,-adhln=a.lst",
        "a.c b.c -o program",
        "-Xlinker -o -c a.c -o a.o",
        "@options.rsp -c a.c -o a.o",
        "@all.rsp",
        "-x c -c a.c -o a.o",
    ],
)
def test_nothing_is_written_into_the_tree(compiler, options, tmp_path):
    tree = tmp_path / "tree"
    write(tree, {**SOURCE, "b.c": "int b;\n"})
    write(tree, {"options.rsp": "-DQ='1 2' -MD -MF a.d", "all.rsp": '-O2 "a.c" -c -o a.o -DQ=1'})
    if compiler != "gcc" and options.startswith("-Xpreprocessor"):
        options = "-Xclang -dependency-file -Xclang a.d -c a.c -o a.o"
    before = contents(tree)

    replay(make_command(tree, f"{compiler} {options}"), tmp_path / "ours")

    assert contents(tree) == before
    assert (tmp_path / "ours/new.o").read_bytes().startswith(b"\x7fELF")
    assert "a.h" in (tmp_path / "ours/new.d").read_text()


@pytest.mark.parametrize(
    "options",
    [
        "-fdump-tree-all -fdump-rtl-all -da -c a.c -o a.o",
        "-dumpdir x- -dumpbase y -c a.c -o a.o",
        "-aux-info protos -c a.c -o a.o",
        "-fcallgraph-info=su,da -fopt-info-all=opt.txt -fsave-optimization-record -c a.c -o a.o",
    ],
)
def test_dumps_of_gcc_are_not_written(options, tmp_path):
    tree = tmp_path / "tree"
    write(tree, SOURCE)
    before = contents(tree)

    replay(make_command(tree, f"gcc {options}"), tmp_path / "ours")

    assert contents(tree) == before
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == ["new.d", "new.o"]


def test_side_files_of_clang_are_not_written(tmp_path):
    tree = tmp_path / "tree"
    write(tree, SOURCE)
    before = contents(tree)
    options = "-MJ a.json -ftime-trace=t.json --serialize-diagnostics a.dia -foptimization-record-file=x.yaml"

    replay(make_command(tree, f"clang-19 {options} -c a.c -o a.o"), tmp_path / "ours")

    assert contents(tree) == before


@pytest.mark.parametrize("compiler", COMPILERS)
def test_code_options_are_kept_in_order(compiler, tmp_path):
    line = f"ccache {compiler} -DX=1 -O2 -Iinc -include a.h -D -MF -c a.c -o a.o -O1 -fno-function-sections"

    words = for_patch(make_command(tmp_path, line), Path("/p/n.o"), Path("/p/n.d"))

    kept = f"ccache {compiler} -DX=1 -O2 -Iinc -include a.h -D -MF a.c -O1 -fno-function-sections".split()
    ours = ["-c", "-ffunction-sections", "-fdata-sections", "-MD", "-MF", "/p/n.d", "-o", "/p/n.o"]
    assert list(words) == kept + ours


def test_options_stand_before_the_terminator(tmp_path):
    write(tmp_path, SOURCE)

    words = replay(make_command(tmp_path, "clang-19 -O2 -c -o a.o -- a.c"), tmp_path / "ours")

    assert words[-2:] == ("--", "a.c")


def test_clean_response_file_stays_a_response_file(tmp_path):
    write(tmp_path, {"o.rsp": "-DX=1 -O2"})

    words = for_patch(make_command(tmp_path, "gcc @o.rsp -c a.c -o a.o"), Path("/p/n.o"), Path("/p/n.d"))

    assert "@o.rsp" in words


@pytest.mark.parametrize(
    "name", ["sp ace.c", "quo'te.c", 'quo"te.c', "new\nline.c", "dol$lar.c", "\udcff\udcfe.c", "semi;colon.c", "@at.c"]
)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_hostile_names_are_compiled(compiler, name, tmp_path):
    tree = tmp_path / f"d {name}"
    tree.mkdir()
    (tree / name).write_text("int f(void) { return 1; }\n")
    given = f"./{name}" if name.startswith("@") else name

    replay(Command(tree, tree / name, None, (compiler, "-c", given, "-o", "x.o")), tmp_path / "our s")

    assert (tmp_path / "our s/new.o").is_file()


@pytest.mark.parametrize("suffix", [".s", ".S"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_assembly_is_assembled_without_warnings(compiler, suffix, tmp_path):
    write(tmp_path, {f"a{suffix}": ".globl f\nf: ret\n"})

    replay(make_command(tmp_path, f"{compiler} -Werror -c a{suffix} -o a.o", f"a{suffix}"), tmp_path / "ours")

    assert (tmp_path / "ours/new.o").is_file()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_fat_objects_are_compiled_without_lto(compiler, tmp_path):
    write(tmp_path, SOURCE)
    unit = make_command(tmp_path, f"{compiler} -O2 -flto -ffat-lto-objects -c a.c -o a.o")
    assert refusals(unit) == ()

    replay(unit, tmp_path / "ours")

    sections = run("readelf", "-SW", "new.o", cwd=tmp_path / "ours")
    assert ".text.f" in sections
    assert "lto" not in sections


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ("-O2", []),
        ("-flto", ["lto"]),
        ("-flto=auto", ["lto"]),
        ("-flto=thin -O2", ["lto"]),
        ("-flto -fno-lto", []),
        ("-flto -ffat-lto-objects -fno-fat-lto-objects", ["lto"]),
        ("--coverage", ["gcov"]),
        ("-fsanitize=address,undefined", ["sanitizer"]),
        ("-fsanitize=thread", ["sanitizer"]),
        ("-fsanitize=undefined", []),
        ("-fsanitize=address -fno-sanitize=address", []),
        ("-fsanitize=address,memory -fno-sanitize=all", []),
        ("-fmodules-ts", ["modules"]),
        ("-fprofile-arcs -ftest-coverage", ["gcov"]),
        ("-fprofile-generate=x", ["gcov"]),
        ("-fprofile-instr-generate -fcoverage-mapping -flto", ["gcov", "lto"]),
    ],
)
def test_what_cannot_be_patched_is_refused_by_name(options, codes, tmp_path):
    found = refusals(make_command(tmp_path, f"gcc {options} -c a.c -o a.o"))

    assert [refusal.code for refusal in found] == codes
    assert all(refusal.file == str(tmp_path / "a.c") for refusal in found)


def test_refused_option_is_seen_in_a_response_file(tmp_path):
    write(tmp_path, {"o.rsp": "-O2\n  '--coverage'"})

    assert [r.code for r in refusals(make_command(tmp_path, "gcc @o.rsp -c a.c -o a.o"))] == ["gcov"]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_section_flags_do_not_change_the_code_of_a_function(compiler, tmp_path):
    write(tmp_path, SOURCE)
    run(*shlex.split(f"{compiler} -O2 -c a.c -o a.o"), cwd=tmp_path)

    replay(make_command(tmp_path, f"{compiler} -O2 -c a.c -o a.o"), tmp_path / "ours")

    plain, split = (run("nm", "-S", path, cwd=tmp_path).split() for path in ("a.o", "ours/new.o"))
    assert plain[1] == split[1]
    assert os.path.getsize(tmp_path / "ours/new.o") > 0
