"""From a running program to the new objects of its edited units."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from build_tree import contents, database, run, set_age, write

from ipbp.build.compile import Compiled
from ipbp.build.plan import Commands, Origin, Target, find_commands, rebuild
from ipbp.build.store import Store
from ipbp.build.trust import agree, needs_agreement
from ipbp.errors import IpbpError

FILES = {
    "main.c": '#include "f.h"\nint main(void) { return f(); }\n',
    "f.c": '#include "f.h"\nint f(void) { return F; }\n',
    "f.h": "#define F 1\nint f(void);\n",
}
CMAKE = (
    "cmake_minimum_required(VERSION 3.10)\nproject(p C)\nset(CMAKE_EXPORT_COMPILE_COMMANDS ON)\n"
    "set(CMAKE_C_FLAGS -g)\nadd_executable(p main.c f.c)\nadd_executable(q main.c f.c)\n"
    "target_compile_definitions(q PRIVATE Q)\n"
)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    write(root, FILES)
    return root


def entry(root: Path, name: str, **more: object) -> dict[str, object]:
    return {"directory": str(root), "file": f"{name}.c", "command": f"gcc -g -c {name}.c -o {name}.o", **more}


def grow_old(root: Path) -> None:
    """As if the tree had been built a while ago; the order in time stays."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            set_age(path, 1000)


def make(commands: Commands, program: Path, tmp_path: Path, known=None) -> tuple[Compiled, ...]:
    return rebuilt(commands, program.stat().st_mtime_ns, tmp_path, known)


def rebuilt(commands: Commands, mtime_ns: int, tmp_path: Path, known=None) -> tuple[Compiled, ...]:
    (rows,) = rebuild([Target(commands, mtime_ns, known or {})], Store(tmp_path / "store"), lambda _: None)
    return rows


def names(rows) -> list[str]:
    return [Path(row.source).name for row in rows]


@pytest.mark.parametrize("generator", ["Unix Makefiles", "Ninja"])
def test_header_edit_in_a_cmake_tree_gives_the_objects_of_this_target(generator, tree, tmp_path):
    write(tree, {"CMakeLists.txt": CMAKE})
    run("cmake", "-S", ".", "-B", "build", "-G", generator, cwd=tree)
    run("cmake", "--build", "build", cwd=tree)
    grow_old(tree)
    program = tree / "build/p"
    commands = find_commands(program)
    assert make(commands, program, tmp_path) == ()

    write(tree, {"f.h": FILES["f.h"].replace("1", "2")})
    before = contents(tree)
    rows = make(commands, program, tmp_path)

    assert (commands.origin, commands.file) == (Origin.DATABASE, tree / "build/compile_commands.json")
    assert names(rows) == ["main.c", "f.c"]
    assert {row.dirty.old_object for row in rows} == {
        tree / "build/CMakeFiles/p.dir/main.c.o",
        tree / "build/CMakeFiles/p.dir/f.c.o",
    }
    assert contents(tree) == before


def test_plain_makefile_tree_with_a_database(tree, tmp_path):
    write(tree, {"Makefile": "CFLAGS=-g -MMD\np: main.o f.o\n\tgcc main.o f.o -o p\n"})
    run("make", cwd=tree)
    database(tree, entry(tree, "main"), entry(tree, "f"), entry(tree, "other"))
    grow_old(tree)
    write(tree, {"f.c": FILES["f.c"].replace("F;", "F + 1;")})

    commands = find_commands(tree / "p")
    (row,) = make(commands, tree / "p", tmp_path)

    assert names(commands.commands) == ["main.c", "f.c"]
    assert (Path(row.source).name, row.dirty.old_object) == ("f.c", tree / "f.o")


def test_program_is_linked_elsewhere_and_replaced_meanwhile(tree, tmp_path):
    run("gcc", "-g", "main.c", "f.c", "-o", "p", cwd=tree)
    database(tree, entry(tree, "main"), entry(tree, "f"))
    os.rename(tree / "p", tmp_path / "mapped")
    write(tree, {"p": "#!/bin/sh\n"})

    commands = find_commands(tree / "p", debug_file=tmp_path / "mapped")

    assert names(commands.commands) == ["main.c", "f.c"]


def test_prefix_map_of_distributions_still_finds_the_entries(tree):
    (tree / "b").mkdir()
    run("gcc", "-g", f"-ffile-prefix-map={tree}=.", "../main.c", "../f.c", "-o", "p", cwd=tree / "b")
    database(tree / "b", *(entry(tree / "b", n, file=f"../{n}.c") for n in ("main", "f", "other")))

    assert names(find_commands(tree / "b/p").commands) == ["main.c", "f.c"]


def test_program_without_debug_information_takes_the_whole_database(tree):
    run("gcc", "-s", "main.c", "f.c", "-o", "p", cwd=tree)
    database(tree, entry(tree, "main"), entry(tree, "f"), entry(tree, "other"))

    commands = find_commands(tree / "p")

    assert names(commands.commands) == ["main.c", "f.c", "other.c"]
    assert "no readable debug information" in commands.notes[0]


def test_database_of_other_programs_is_passed_over(tree, tmp_path):
    run("gcc", "-g", "main.c", "f.c", "-o", "p", cwd=tree)
    database(tree, entry(tree, "unrelated"))
    database(tmp_path, entry(tree, "main"), entry(tree, "f"))

    assert find_commands(tree / "p").file == tmp_path / "compile_commands.json"


def test_entry_with_the_recorded_options_is_taken_of_two(tree):
    run("gcc", "-g", "-O2", "-fno-pic", "-no-pie", "main.c", "f.c", "-o", "p", cwd=tree)
    twins = [
        entry(tree, "f", command="gcc -g -O2 -fPIC -DPIC -c f.c -o .libs/f.o"),
        entry(tree, "f", command="gcc -g -O2 -fno-pic -c f.c -o f.o"),
    ]
    database(tree, *twins, entry(tree, "main"))

    assert [row.output.name for row in find_commands(tree / "p").commands] == ["f.o", "main.o"]
    assert find_commands(tree / "p").commands[0].output == tree / "f.o"


def test_recorded_options_tell_the_entry_behind_a_prefix_map_too(tree):
    flags = ("-g", "-O2", "-fno-pic", "-no-pie", f"-ffile-prefix-map={tree}=.")
    run("gcc", *flags, "main.c", "f.c", "-o", "p", cwd=tree)
    twins = [
        entry(tree, "f", command="gcc -g -O2 -fPIC -DPIC -c f.c -o .libs/f.o"),
        entry(tree, "f", command="gcc -g -O2 -fno-pic -c f.c -o f.o"),
    ]
    database(tree, *twins, entry(tree, "main"))

    assert [row.output.name for row in find_commands(tree / "p").commands] == ["f.o", "main.o"]


def test_automake_names_objects_after_their_program(tree):
    run("gcc", "-g", "main.c", "f.c", "-o", "p", cwd=tree)
    database(tree, *(entry(tree, "f", command=f"gcc -g -c f.c -o {name}.o") for name in ("f", "p-f", "q-f")))

    assert [row.output.name for row in find_commands(tree / "p").commands] == ["p-f.o"]


def test_twins_that_nothing_tells_apart_are_both_kept(tree):
    run("gcc", "-g", "main.c", "f.c", "-o", "p", cwd=tree)
    database(tree, entry(tree, "f", command="gcc -DA -c f.c -o a.o"), entry(tree, "f", command="gcc -DB -c f.c -o b.o"))

    assert [row.output.name for row in find_commands(tree / "p").commands] == ["a.o", "b.o"]


def test_named_database_is_the_only_one(tree, tmp_path):
    run("gcc", "-g", "main.c", "f.c", "-o", "p", cwd=tree)
    database(tree, entry(tree, "main"))
    (tmp_path / "b").mkdir()
    named = database(tmp_path / "b", entry(tree, "f"))

    for arguments in ({"build_dir": tmp_path / "b"}, {"compile_commands": named}):
        commands = find_commands(tree / "p", **arguments)
        assert (commands.file, names(commands.commands)) == (named, ["f.c"])


def test_named_database_is_the_way_out_of_damaged_debug_information(tree):
    run("gcc", "-g", "main.c", "f.c", "-o", "p", cwd=tree)
    run("objcopy", "--dump-section", ".debug_info=d", "p", cwd=tree)
    (tree / "d").write_bytes(b"\x40" + b"\xff" * (os.path.getsize(tree / "d") - 1))
    run("objcopy", "--update-section", ".debug_info=d", "p", cwd=tree)
    named = database(tree, entry(tree, "f"))
    with pytest.raises(IpbpError) as error:
        find_commands(tree / "p")
    assert error.value.code == "debug-information-malformed"

    assert names(find_commands(tree / "p", compile_commands=named).commands) == ["f.c"]


def test_without_a_database_gcc_tells_how(tree, tmp_path):
    run("gcc", "-g", "-O2", "main.c", "f.c", "-o", "p", cwd=tree)
    grow_old(tree)
    commands = find_commands(tree / "p")
    assert make(commands, tree / "p", tmp_path) == ()
    write(tree, {"f.c": FILES["f.c"].replace("F;", "F + 1;")})

    (row,) = make(commands, tree / "p", tmp_path)

    assert commands.origin is Origin.PRODUCER
    assert (Path(row.source).name, row.dirty.old_object) == ("f.c", None)
    assert any("-D" in note for note in commands.notes)


def test_without_any_record_every_reason_is_given(tree):
    run("clang-19", "-g", "main.c", "f.c", "-o", "p", cwd=tree)

    with pytest.raises(IpbpError) as error:
        find_commands(tree / "p")

    assert error.value.code == "no-commands"
    assert "-grecord-command-line" in error.value.fact


OWN = '[build]\ncommand = ["make", "-s"]\nobjects = { "{name}.c" = "{name}.o" }\n'


def own_tree(tree: Path) -> Path:
    write(
        tree,
        {
            "ipbp.toml": OWN,
            "Makefile": "CFLAGS = -g -MMD\np: main.o f.o\n\tgcc main.o f.o -o p\nmain.o f.o: f.h\n",
        },
    )
    run("make", cwd=tree)
    grow_old(tree)
    return tree / "p"


def test_own_command_is_run_after_the_user_agreed_once(tree, tmp_path):
    program = own_tree(tree)
    write(tree, {"f.c": FILES["f.c"].replace("F;", "F + 1;")})
    old = (tree / "f.o").read_bytes()
    commands = find_commands(program)
    mapped = program.stat().st_mtime_ns
    with pytest.raises(IpbpError) as error:
        make(commands, program, tmp_path)
    assert error.value.code == "agreement-needed"
    assert "make -s" in error.value.detail
    assert (tree / "f.o").read_bytes() == old

    question = needs_agreement(commands.commands, commands.own)
    assert question is not None
    agree(question.hash)
    (row,) = rebuilt(commands, mapped, tmp_path)

    assert commands.origin is Origin.OWN_BUILD
    assert Path(row.source).name == "f.c"
    assert row.dirty.old_object is not None
    assert row.dirty.old_object.read_bytes() == old
    assert row.object.read_bytes() == (tree / "f.o").read_bytes() != old
    # Nothing more to do: the object that runs is the one of the tree.
    assert rebuilt(commands, mapped, tmp_path, {row.source: known(row)}) == ()


def test_own_command_that_fails_shows_its_output(tree, tmp_path):
    program = own_tree(tree)
    write(tree, {"f.c": "int f(void) { return undeclared; }\n"})
    commands = find_commands(program)
    question = needs_agreement(commands.commands, commands.own)
    assert question is not None
    agree(question.hash)

    with pytest.raises(IpbpError) as error:
        make(commands, program, tmp_path)

    assert error.value.code == "compile-failed"
    assert "undeclared" in error.value.detail


def test_unknown_compiler_of_a_database_is_not_run_before_the_user_agreed(tree, tmp_path):
    run("gcc", "-g", "main.c", "f.c", "-o", "p", cwd=tree)
    write(tree, {"tools/gcc": f'#!/bin/sh\ntouch {tree}/ran\nexec gcc "$@"\n'})
    (tree / "tools/gcc").chmod(0o755)
    database(tree, entry(tree, "f", command="tools/gcc -g -c f.c -o f.o"))
    grow_old(tree)
    write(tree, {"f.c": FILES["f.c"].replace("F;", "F + 1;")})
    commands = find_commands(tree / "p")

    with pytest.raises(IpbpError) as error:
        make(commands, tree / "p", tmp_path)

    assert error.value.code == "agreement-needed"
    assert not (tree / "ran").exists()


def test_rebuilt_tree_gives_every_rebuilt_unit(tree, tmp_path):
    write(tree, {"Makefile": "CFLAGS=-g -MMD\np: main.o f.o\n\tgcc main.o f.o -o p\nf.o main.o: f.h\n"})
    run("make", cwd=tree)
    database(tree, entry(tree, "main"), entry(tree, "f"))
    grow_old(tree)
    mapped = (tree / "p").stat().st_mtime_ns
    write(tree, {"f.h": FILES["f.h"].replace("1", "2")})
    run("make", cwd=tree)

    rows = rebuilt(find_commands(tree / "p"), mapped, tmp_path)

    assert [(Path(row.source).name, row.dirty.old_object) for row in rows] == [("main.c", None), ("f.c", None)]


def known(row: Compiled):
    class Patched:
        object = row.digest
        dependencies = row.dependencies

    return Patched()
