"""`ipbp init vscode`: our configurations, and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipbp.cli.main import main
from ipbp.cli.path import load_line


def written(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((folder / ".vscode/launch.json").read_text())["configurations"]
    return rows


def test_a_new_file_has_one_configuration_for_each_debugger(tmp_path: Path) -> None:
    assert main(["init", "vscode", str(tmp_path), "--program", "/a/b", "--watch"]) == 0
    rows = written(tmp_path)
    assert [row["type"] for row in rows] == ["lldb-dap", "lldb", "cppdbg"]
    assert {row["program"] for row in rows} == {"/a/b"}
    assert rows[0]["initCommands"] == [load_line("lldb")]
    assert rows[0]["preRunCommands"] == ["hotpatch watch on"]
    texts = [command["text"] for command in rows[2]["setupCommands"]]  # type: ignore[attr-defined]
    assert texts[0] == f"-interpreter-exec console {json.dumps(load_line('gdb'))}"
    assert texts[1].endswith('"hotpatch watch on"')


def test_what_is_there_stays_and_ours_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / ".vscode/launch.json"
    file.parent.mkdir()
    theirs = {"name": "mine", "type": "node"}
    file.write_text(json.dumps({"version": "0.2.0", "compounds": [1], "configurations": [theirs]}))
    for program in ("/one", "/two"):
        assert main(["init", "vscode", str(tmp_path), "--program", program]) == 0
    assert json.loads(file.read_text())["compounds"] == [1]
    rows = written(tmp_path)
    assert rows[0] == theirs
    assert [row.get("program") for row in rows[1:]] == ["/two"] * 3


@pytest.mark.parametrize("text", ['{\n  // mine\n  "configurations": []\n}', "[]", '{"configurations": 3}'])
def test_a_file_that_would_lose_something_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / ".vscode/launch.json"
    file.parent.mkdir()
    file.write_text(text)
    assert main(["init", "vscode", str(tmp_path)]) == 1
    assert file.read_text() == text
    assert "ipbp: lldb-dap" in capsys.readouterr().out
