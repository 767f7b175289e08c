"""`ipbp diff` says what changed, in words and as JSON, with the exit status that scripts rely on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from objects_from_c import COMPILERS, compiled

from ipbp.cli import diff
from ipbp.errors import IpbpError

SOURCE = (
    'int puts(const char *); int limit = 3; int f(int x) { puts("low"); return x + limit; } int g(int x) { return x; }'
)


def run(
    tmp_path: Path, old: str, new: str, *words: str, compiler: str = "gcc", flags: tuple[str, ...] = ("-O0",)
) -> int:
    paths = []
    for name, source in (("old.o", old), ("new.o", new)):
        path = tmp_path / name
        path.write_bytes(compiled(source, compiler, flags))
        paths.append(str(path))
    return main("diff", *paths, *words)


def main(*words: str) -> int:
    parser = argparse.ArgumentParser()
    diff.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(words)
    status: int = arguments.run(arguments)
    return status


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_change_is_told_and_the_status_is_zero(tmp_path: Path, capsys, compiler: str) -> None:
    assert run(tmp_path, SOURCE, SOURCE.replace("low", "high"), compiler=compiler) == 0
    assert capsys.readouterr().out == 'changed  f: a string constant differs: "low" -> "high"\n'


def test_no_change_is_status_four(tmp_path: Path, capsys) -> None:
    assert run(tmp_path, SOURCE, "\n\n" + SOURCE, flags=("-g",)) == 4
    assert capsys.readouterr().out == "nothing changed\n"


def test_only_another_initial_value_is_told_and_is_nothing_to_patch(tmp_path: Path, capsys) -> None:
    assert run(tmp_path, SOURCE, SOURCE.replace("= 3", "= 4")) == 4
    assert "note: the new initial value of 'limit' is not applied" in capsys.readouterr().out


def test_json_is_one_object_with_every_function_and_time(tmp_path: Path, capsys) -> None:
    added = SOURCE.replace("return x; }", "return x * 9; } int h(void) { return 1; }")
    assert run(tmp_path, SOURCE, added, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["status"] for row in result["functions"]} == {"g": "changed", "h": "new"}
    assert set(result) == {"functions", "data", "notes", "refusals", "times"}
    assert set(result["times"]) == {"read", "correlate", "compare"}


def test_refusals_are_status_three_with_code_and_symbol(tmp_path: Path, capsys) -> None:
    assert run(tmp_path, SOURCE, SOURCE.replace("int limit", "long limit"), "--json") == 3
    (refusal,) = json.loads(capsys.readouterr().out)["refusals"]
    assert (refusal["code"], refusal["symbol"]) == ("data-size-changed", "limit")
    assert run(tmp_path, SOURCE, SOURCE.replace("int limit", "long limit")) == 3
    assert "[data-size-changed]" in capsys.readouterr().out


def test_statics_that_cannot_be_told_apart_are_refused(tmp_path: Path, capsys) -> None:
    old = "int f(void) { { static int n; n++; } { static int n; n++; } return 0; }"
    assert run(tmp_path, old, "int f(void) { { static int n; n++; } return 0; }", "--json") == 3
    (refusal,) = json.loads(capsys.readouterr().out)["refusals"]
    assert refusal["code"] == "ambiguous-static"


def test_a_file_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.o").touch()
    for path, code in ((tmp_path / "empty.o", "object-malformed"), (tmp_path / "none.o", "object-unreadable")):
        with pytest.raises(IpbpError) as raised:
            main("diff", str(path), str(path))
        assert raised.value.code == code
