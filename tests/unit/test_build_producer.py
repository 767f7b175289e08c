"""Debug information names the units of a program, and gcc's says how they were compiled."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_tree import COMPILERS, run, write

from ipbp.build.command import SECTION_FLAGS, for_patch
from ipbp.build.producer import SourceUnit, include_folders, source_units
from ipbp.build.reconstruct import MACROS_UNKNOWN, command_from_producer
from ipbp.errors import IpbpError

FILES = {
    "a.c": '#include "part/a.h"\n#include "c.h"\nint g(int);\nint main(void) { return g(h(C)); }\n',
    "src/b.c": "int g(int x) { return x + 1; }\n",
    "inc/part/a.h": "static inline int h(int x) { return x * 3; }\n",
    "other/c.h": "enum { C = 4 };\nstatic inline int unused_c(int x) { return x; }\nextern int table[];\n",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(root: Path, compiler: str, *options: str) -> Path:
    write(root, FILES)
    run(compiler, *options, "-Iinc", "-Iother", "a.c", "src/b.c", "-o", "program", cwd=root)
    return root / "program"


OPTIONS = [
    ["-g"],
    ["-gdwarf-4", "-O2"],
    ["-g", "-Wl,--build-id=none"],
    ["-g", "-gz"],
    ["-g", "-Wl,--emit-relocs"],
    ["-g", "-gsplit-dwarf"],
    ["-gdwarf-4", "-gsplit-dwarf", "-O2"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_units_of_a_program_are_named(compiler, options, tmp_path):
    units = source_units(build(tmp_path, compiler, *options))

    assert [(unit.source, unit.directory) for unit in units] == [
        (tmp_path / "a.c", tmp_path),
        (tmp_path / "src/b.c", tmp_path),
    ]
    assert all(("clang" if "clang" in compiler else "GNU C17") in unit.producer for unit in units)


def test_what_a_cross_compiler_made_is_made_by_it_again(aarch64, gcc, tmp_path):
    (unit, _) = source_units(build(tmp_path, aarch64, "-g", "-O1"))
    command = command_from_producer(unit).command
    assert Path(command.arguments[0]).name.startswith("aarch64-linux-gnu-gcc")
    assert "-O1" in command.arguments

    (unit, _) = source_units(build(tmp_path, gcc, "-g", "-O1"))
    assert Path(command_from_producer(unit).command.arguments[0]).name == "gcc"


def test_units_of_a_program_compressed_with_zstd_are_named(tmp_path):
    program = build(tmp_path, "clang-19", "-g", "-gz=zstd", "-fuse-ld=lld")

    assert [unit.name for unit in source_units(program)] == ["a.c", "src/b.c"]


@pytest.mark.parametrize("fate", ["gone", "of the next build"])
@pytest.mark.parametrize("options", [["-g"], ["-gdwarf-4"]])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_split_units_are_named_without_their_own_files(compiler, options, fate, tmp_path):
    program = build(tmp_path / "tree", compiler, *options, "-gsplit-dwarf")
    mapped = program.rename(tmp_path / "program")
    for file in (tmp_path / "tree").glob("*.dwo"):
        file.unlink()
    if fate != "gone":
        (tmp_path / "tree").rename(tmp_path / "old")
        build(tmp_path / "tree", compiler, *options, "-gsplit-dwarf", "-O2", "-DNEXT")

    units = source_units(mapped)

    assert [unit.source for unit in units] == [tmp_path / "tree/a.c", tmp_path / "tree/src/b.c"]
    assert {unit.producer for unit in units} == {""}


PACKAGERS = [
    ("gcc", ["-gdwarf-4"], "dwp"),
    ("gcc", ["-gdwarf-5"], "llvm-dwp"),
    ("clang-19", ["-gdwarf-4"], "llvm-dwp"),
    ("clang-19", ["-gdwarf-5", "-gz=zlib"], "llvm-dwp"),
]


@pytest.mark.parametrize(("compiler", "options", "packager"), PACKAGERS, ids=lambda word: "".join(word))
def test_split_units_are_described_by_their_package(compiler, options, packager, tmp_path, monkeypatch):
    program = build(tmp_path, compiler, *options, "-O2", "-gsplit-dwarf")
    wanted = source_units(program)
    assert all(unit.producer for unit in wanted)
    run(packager, "-e", "program", "-o", "program.dwp", cwd=tmp_path)
    for file in tmp_path.glob("*.dwo"):
        file.unlink()
    assert source_units(program) == wanted
    # Stripped, with the debug information in a file of its own.
    run("objcopy", "--only-keep-debug", "program", "program.debug", cwd=tmp_path)
    assert source_units(tmp_path / "program.debug") == wanted

    # Another build's says nothing, nor does a damaged one.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    package = tmp_path / "program.dwp"
    content = package.read_bytes()
    build(tmp_path / "other", compiler, *options, "-O1", "-gsplit-dwarf", "-Dg=k", "-Dx=y")
    run(packager, "-e", "program", "-o", str(package), cwd=tmp_path / "other")
    assert [unit.producer for unit in source_units(program)] == ["", ""]
    for size in range(64, len(content), 97):
        package.write_bytes(content[:size])
        assert [unit.source for unit in source_units(program)] == [unit.source for unit in wanted]


def test_answer_is_kept_by_content(tmp_path, monkeypatch):
    program = build(tmp_path, "gcc", "-g")
    first = source_units(program)
    monkeypatch.setattr("ipbp.build.producer._units", lambda file, package: iter([]))

    assert source_units(program) == first

    build(tmp_path, "gcc", "-g", "-O2")
    assert source_units(program) == ()  # another program: read anew, by the replaced reader


def test_program_without_debug_information_names_nothing(tmp_path):
    assert source_units(build(tmp_path, "gcc", "-s")) == ()


def test_debug_information_shared_between_files_is_read_when_it_is_the_right_one(tmp_path):
    program = build(tmp_path, "gcc", "-gdwarf-4", "-O2")
    run("gcc", "-gdwarf-4", "-O1", "-Iinc", "-Iother", "a.c", "src/b.c", "-o", "other-program", cwd=tmp_path)
    run("dwz", "-m", "shared", "program", "other-program", cwd=tmp_path)
    wanted = [tmp_path / "a.c", tmp_path / "src/b.c"]
    assert b"src/b.c" not in program.read_bytes()
    assert [unit.source for unit in source_units(program)] == wanted

    (tmp_path / "cache").rename(tmp_path / "forgotten")
    (tmp_path / "shared").write_bytes((tmp_path / "other-program").read_bytes())
    assert [unit.source for unit in source_units(program)] == [Path("a.c")]  # no longer than a reference to it


@pytest.mark.parametrize("at", [0.05, 0.3, 0.6, 0.9])
def test_damaged_program_is_one_error_or_an_answer(at, tmp_path):
    program = build(tmp_path, "gcc", "-g", "-O2")
    content = bytearray(program.read_bytes())
    start = int(len(content) * at)
    content[start : start + 700] = b"\xff" * 700
    program.write_bytes(content)

    assert outcome(program) in ("read", "debug-information-malformed")


def outcome(program: Path) -> str:
    try:
        source_units(program)
    except IpbpError as error:
        return error.code
    return "read"


def test_what_is_no_program_is_an_error(tmp_path):
    for content, code in ((b"text", "debug-information-malformed"), (None, "program-unreadable")):
        path = tmp_path / f"x{code}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(IpbpError) as error:
            source_units(path)
        assert error.value.code == code


@pytest.mark.parametrize("options", [["-g", "-O2"], ["-g3", "-O0", "-std=c99", "-fno-inline"], ["-gdwarf-4", "-O1"]])
def test_command_of_gcc_makes_the_same_code(options, tmp_path):
    program = build(tmp_path, "gcc", *options)
    folders = include_folders(program)

    for unit in source_units(program):
        answer = command_from_producer(unit, folders.get(unit, ()))
        assert answer.command is not None, answer.reason
        assert answer.command.notes == (MACROS_UNKNOWN,)
        run(*for_patch(answer.command, tmp_path / "new.o", tmp_path / "new.d"), cwd=tmp_path)
        run("gcc", *options, *SECTION_FLAGS, "-Iinc", "-Iother", "-c", unit.name, "-o", "old.o", cwd=tmp_path)
        assert code_of(tmp_path / "new.o") == code_of(tmp_path / "old.o")


def code_of(object: Path) -> list[str]:
    return run("objdump", "-dr", object, cwd=object.parent).splitlines()[3:]


def test_clang_records_its_command_when_asked(tmp_path):
    program = build(tmp_path, "clang-19", "-g", "-grecord-command-line", '-DX="a b"', "-O2")

    for unit in source_units(program):
        answer = command_from_producer(unit)
        assert answer.command is not None, answer.reason
        assert '-DX="a b"' in answer.command.arguments or 'X="a b"' in answer.command.arguments
        run(*for_patch(answer.command, tmp_path / "n.o", tmp_path / "n.d"), cwd=tmp_path)


def unit_of(tmp_path: Path, producer: str) -> SourceUnit:
    write(tmp_path, {"a.c": ""})
    return SourceUnit(tmp_path / "a.c", "a.c", tmp_path, producer)


@pytest.mark.parametrize(
    ("producer", "reason"),
    [
        ("GNU C17 4.7.1 -O2", "gcc 4.7.1, which is not on PATH"),
        ("GNU AS 2.40", "no C or C++ of gcc"),
        ("GNU GIMPLE 12.2.0 -O2", "no C or C++ of gcc"),
        ("Debian clang version 19.1.7 (3~deb12u1)", "-grecord-command-line"),
        ("clang version 19.1.7 /gone/clang -O2 a.c", "which is not there"),
        ("rustc version 1.80", "records no options"),
        ("", "records no options"),
    ],
)
def test_what_records_nothing_says_so(producer, reason, tmp_path):
    answer = command_from_producer(unit_of(tmp_path, producer))

    assert answer.command is None
    assert reason in answer.reason


def test_source_that_is_gone_says_so(tmp_path):
    unit = SourceUnit(tmp_path / "gone.c", "gone.c", tmp_path, "GNU C17 12.2.0 -O2")

    assert "is not there" in command_from_producer(unit).reason
