"""The plugin finds the Python that ipbp is installed in from where its own files are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ipbp.errors import IpbpError
from ipbp.host.engine_python import find_python


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("IPBP_PYTHON", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


def program(path: Path, says: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)
    return str(path)


def installed(tmp_path: Path) -> Path:
    package = tmp_path / "env" / "lib" / "python3.12" / "site-packages" / "ipbp"
    package.mkdir(parents=True)
    return package


def test_what_the_user_names_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path / "env" / "bin" / "python")
    monkeypatch.setenv("IPBP_PYTHON", program(tmp_path / "mine"))

    assert find_python(installed(tmp_path)) == str(tmp_path / "mine")


def test_what_the_user_names_and_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IPBP_PYTHON", str(tmp_path / "gone"))

    with pytest.raises(IpbpError, match="gone") as caught:
        find_python(installed(tmp_path))
    assert caught.value.code == "engine-python"


def test_an_installed_plugin_finds_the_python_of_its_environment(tmp_path: Path):
    wanted = program(tmp_path / "env" / "bin" / "python")

    assert find_python(installed(tmp_path)) == wanted


def test_a_checkout_finds_its_environment(tmp_path: Path):
    wanted = program(tmp_path / ".venv" / "bin" / "python")

    assert find_python(tmp_path / "core" / "ipbp") == wanted


def test_this_checkout_finds_the_python_of_these_tests():
    assert os.path.realpath(find_python()) == os.path.realpath(sys.executable)


def test_what_was_written_down_helps_where_the_place_does_not(tmp_path: Path):
    wanted = program(tmp_path / "elsewhere" / "python")
    (tmp_path / "config" / "ipbp").mkdir(parents=True)
    (tmp_path / "config" / "ipbp" / "engine").write_text(wanted + "\n")

    assert find_python(tmp_path / "odd" / "ipbp") == wanted


def test_a_python_that_was_written_down_and_removed_is_passed_over(tmp_path: Path):
    (tmp_path / "config" / "ipbp").mkdir(parents=True)
    (tmp_path / "config" / "ipbp" / "engine").write_text("/gone/python\n")
    wanted = program(tmp_path / "path" / "python3.12", "yes")

    assert find_python(tmp_path / "odd" / "ipbp") == wanted


def test_on_the_search_path_only_one_that_can_import_ipbp_counts(tmp_path: Path):
    program(tmp_path / "path" / "python3.13", "no")
    wanted = program(tmp_path / "path" / "python3.11", "yes")

    assert find_python(tmp_path / "odd" / "ipbp") == wanted


def test_none_at_all_is_an_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(IpbpError, match="pip install") as caught:
        find_python(tmp_path / "odd" / "ipbp")
    assert caught.value.code == "engine-python"
