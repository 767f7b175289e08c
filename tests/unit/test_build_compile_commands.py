"""Compilation databases are found where builds leave them and read as builds write them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from build_tree import database, run, write

from ipbp.build.compile_commands import find_databases, given_database, read_database
from ipbp.errors import IpbpError


def entry(root: Path, **more: object) -> dict[str, object]:
    return {"directory": str(root), "file": "a.c", "command": "gcc -c a.c -o a.o", **more}


def test_both_forms_of_a_command_mean_the_same(tmp_path):
    words = ["gcc", "-DX=a b", "-c", "a.c", "-o", "o/a.o"]
    path = database(
        tmp_path,
        entry(tmp_path, command="gcc '-DX=a b' -c a.c -o o/a.o"),
        entry(tmp_path, command=None, arguments=words),
    )

    first, second = read_database(path)

    assert first == second
    assert first.arguments == tuple(words)
    assert (first.directory, first.source, first.output) == (tmp_path, tmp_path / "a.c", tmp_path / "o/a.o")


def test_all_entries_of_one_source_are_kept(tmp_path):
    path = database(tmp_path, entry(tmp_path), entry(tmp_path, output="b.o", command="gcc -fPIC -c a.c -o b.o"))

    assert [command.output for command in read_database(path)] == [tmp_path / "a.o", tmp_path / "b.o"]


@pytest.mark.parametrize(
    ("command", "output"),
    [("gcc -c a.c", "a.o"), ("gcc -c src/a.c", "a.o"), ("gcc a.c -o program", None), ("gcc -c a.c -oq.o", "q.o")],
)
def test_object_is_where_the_compiler_puts_it(command, output, tmp_path):
    (found,) = read_database(database(tmp_path, entry(tmp_path, command=command)))

    assert found.output == (tmp_path / output if output else None)


def test_relative_directory_counts_from_the_database(tmp_path):
    (found,) = read_database(database(tmp_path, entry(tmp_path, directory="sub", file="../a.c")))

    assert (found.directory, found.source) == (tmp_path / "sub", tmp_path / "a.c")


def test_leading_cd_and_env_are_understood(tmp_path):
    (found,) = read_database(database(tmp_path, entry(tmp_path, command="cd sub && env LC_ALL=C gcc -c ../a.c -o a.o")))

    assert found.refusal is None
    assert (found.directory, found.environment) == (tmp_path / "sub", (("LC_ALL", "C"),))
    assert (found.source, found.output) == (tmp_path / "a.c", tmp_path / "sub/a.o")


@pytest.mark.parametrize("command", ["gcc -c a.c && touch x", "gcc -c `cat f`", "gcc -c a.c | tee log", ""])
def test_command_for_a_shell_is_refused_by_name(command, tmp_path):
    (found,) = read_database(database(tmp_path, entry(tmp_path, command=command)))

    assert found.refusal is not None
    assert found.refusal.code == "command-needs-shell"
    assert found.refusal.file == str(tmp_path / "a.c")


@pytest.mark.parametrize("option", ["-E", "-S", "-fsyntax-only", "-MM"])
def test_entries_without_an_object_are_left_out(option, tmp_path):
    assert read_database(database(tmp_path, entry(tmp_path, command=f"gcc {option} a.c"))) == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}", 1),
        ("[\n{,}]", 2),
        ("", 1),
        ('[\n {"directory": "/", "file": "a.c", "command": "cc"},\n\n {"file": "b.c"}]', 4),
        ('[{"directory": "/", "file": "a.c"}]', 1),
        ('[{"directory": "/", "file": "a.c", "arguments": ["cc", 3]}]', 1),
        ('[{"directory": "/", "file": "a\\u0000.c", "command": "cc"}]', 1),
        ("[" * 100000, 1),
        ("[\n3]", 2),
    ],
)
def test_malformed_database_is_one_error_with_its_line(text, line, tmp_path):
    path = tmp_path / "compile_commands.json"
    path.write_text(text)

    with pytest.raises(IpbpError) as error:
        read_database(path)

    assert error.value.code == "compile-commands-malformed"
    assert error.value.fact.startswith(f"{path}:{line}: ")


def test_bytes_that_are_no_utf8_name_the_same_file(tmp_path):
    name = b"a\xff.c"
    path = tmp_path / "compile_commands.json"
    path.write_bytes(
        b'[{"directory": "%s", "file": "%s", "arguments": ["gcc", "-c", "%s"]}]' % (bytes(tmp_path), name, name)
    )

    (found,) = read_database(path)

    assert os.fsencode(found.source) == bytes(tmp_path) + b"/" + name
    assert os.fsencode(found.arguments[2]) == name


def test_search_goes_up_and_into_build_folders_nearest_first(tmp_path):
    write(tmp_path, {"p/bin/x": "", "p/build/compile_commands.json": "[]", "compile_commands.json": "[]"})
    write(tmp_path, {"src/compile_commands.json": "[]"})

    found = find_databases(tmp_path / "p/bin/x", [tmp_path / "src/lib"])

    ours = [path for path in found if path.is_relative_to(tmp_path)]
    assert ours == [
        tmp_path / "p/build/compile_commands.json",
        tmp_path / "compile_commands.json",
        tmp_path / "src/compile_commands.json",
    ]


def test_database_of_a_stranger_is_not_found(tmp_path):
    write(tmp_path, {"p/x": "", "compile_commands.json": "[]"})
    os.chown(tmp_path / "compile_commands.json", 12345, 12345)

    assert tmp_path / "compile_commands.json" not in find_databases(tmp_path / "p/x", [])


def test_named_database_is_a_file_or_its_folder(tmp_path):
    path = database(tmp_path)

    assert given_database(path) == given_database(tmp_path) == path
    with pytest.raises(IpbpError) as error:
        given_database(tmp_path / "nowhere")
    assert error.value.code == "compile-commands-missing"


@pytest.mark.parametrize("generator", ["Unix Makefiles", "Ninja"])
def test_database_of_cmake_is_read(generator, tmp_path):
    write(
        tmp_path,
        {
            "CMakeLists.txt": "cmake_minimum_required(VERSION 3.10)\nproject(p C)\n"
            "set(CMAKE_EXPORT_COMPILE_COMMANDS ON)\n"
            'add_executable(p "a b.c")\n'
            'target_compile_definitions(p PRIVATE "T=\\"x y\\"")\n',
            "a b.c": "int main(void) { return sizeof T; }\n",
        },
    )
    run("cmake", "-S", ".", "-B", "build", "-G", generator, cwd=tmp_path)

    (found,) = read_database(tmp_path / "build/compile_commands.json")

    assert found.source == tmp_path / "a b.c"
    assert found.output == tmp_path / "build/CMakeFiles/p.dir/a_b.c.o"
    assert '-DT="x y"' in found.arguments


def test_thousand_entries_are_read_in_a_moment(tmp_path):
    rows = [
        entry(tmp_path, file=f"f{n}.c", command=f"gcc -DQ='a b' {'-Iinc ' * 50} -c f{n}.c -o f{n}.o")
        for n in range(1000)
    ]
    path = tmp_path / "compile_commands.json"
    path.write_text(json.dumps(rows))

    assert len(read_database(path)) == 1000
