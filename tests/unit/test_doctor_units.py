"""What `hotpatch doctor` says of units that could not be patched if they were edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipbp.build.command import Command
from ipbp.pipeline.doctor import troubles


def codes(folder: Path, *arguments: str, directory: str = ".") -> list[str]:
    source = folder / "a.c"
    command = Command(folder / directory, source, folder / "a.o", (*arguments, "-c", str(source)))
    return [code for code, _advice in troubles(command)]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("gcc",), []),
        (("gcc", "-O2", "-g"), []),
        (("gcc", "-fsanitize=address"), ["sanitizer"]),
        (("gcc", "--coverage"), ["gcov"]),
        (("gcc", "-flto"), ["lto"]),
        (("no-such-compiler",), ["compiler-missing"]),
        (("no-such-compiler", "-flto"), ["lto", "compiler-missing"]),
    ],
)
def test_each_trouble_is_told_by_its_code(tmp_path: Path, arguments: tuple[str, ...], found: list[str]) -> None:
    assert codes(tmp_path, *arguments) == found


def test_a_compiler_beside_the_build_folder_is_found_from_there(tmp_path: Path) -> None:
    (tmp_path / "cc").touch(mode=0o755)
    (tmp_path / "build").mkdir()
    assert codes(tmp_path, "../cc", directory="build") == []
    assert codes(tmp_path, "../c++", directory="build") == ["compiler-missing"]


def test_a_build_folder_that_is_gone_is_said_before_its_compiler(tmp_path: Path) -> None:
    assert codes(tmp_path, "no-such-compiler", directory="gone") == ["build-directory-missing"]
