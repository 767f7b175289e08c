"""ipbp.toml says what it says, and every mistake in it is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_tree import write

from ipbp.build.config import find_config, read_config
from ipbp.errors import IpbpError

GOOD = """
[build]
command = ["make", "-j2"]
directory = "work"
objects = { "src/{name}.c" = "obj/{name}.o", "main.c" = "obj/the main.o" }
"""


def test_settings_are_read(tmp_path):
    write(tmp_path, {"ipbp.toml": GOOD})

    own = read_config(tmp_path / "ipbp.toml").own

    assert own is not None
    assert (own.directory, own.command) == (tmp_path / "work", ("make", "-j2"))
    assert own.object_of(tmp_path / "src/x/a.c") == tmp_path / "obj/x/a.o"
    assert own.object_of(tmp_path / "main.c") == tmp_path / "obj/the main.o"
    assert own.object_of(tmp_path / "other.c") is None


def test_database_can_be_named(tmp_path):
    write(tmp_path, {"ipbp.toml": '[build]\ncompile_commands = "out/cc.json"'})

    config = read_config(tmp_path / "ipbp.toml")

    assert (config.compile_commands, config.own) == (tmp_path / "out/cc.json", None)


def test_nearest_file_upwards_counts(tmp_path):
    write(tmp_path, {"ipbp.toml": "", "a/ipbp.toml": "", "a/b/c": ""})

    assert find_config([tmp_path / "a/b"]) == tmp_path / "a/ipbp.toml"
    assert find_config([tmp_path / "x", tmp_path / "a"]) == tmp_path / "ipbp.toml"


@pytest.mark.parametrize(
    "text",
    [
        "[build",
        "[bulid]",
        "build = 3",
        '[build]\ncomand = ["make"]',
        '[build]\ncommand = "make"',
        "[build]\ncommand = []",
        '[build]\ncommand = ["make"]',
        '[build]\ncommand = ["make"]\nobjects = { "{name}/{name}.c" = "{name}.o" }',
        '[build]\ncommand = ["make"]\nobjects = { "a.c" = "{name}.o" }',
        "[build]\ncompile_commands = 1",
    ],
)
def test_mistakes_are_errors(text, tmp_path):
    write(tmp_path, {"ipbp.toml": text})

    with pytest.raises(IpbpError) as error:
        read_config(tmp_path / "ipbp.toml")

    assert error.value.code == "config-malformed"


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(IpbpError) as error:
        read_config(Path(tmp_path / "ipbp.toml"))

    assert error.value.code == "config-malformed"
