"""The `ipbp` command, as far as it goes without a debugger."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ipbp.cli import init, main, outcome
from ipbp.cli.debuggers import find_debugger
from ipbp.cli.engine_python import record_path, remember_engine_python
from ipbp.cli.launch import launch_command
from ipbp.cli.path import load_line
from ipbp.cli.target import check_attachable, is_stopped, settle
from ipbp.errors import IpbpError

LOADS = re.compile(r"^source .*gdb_ipbp\.py$")


@pytest.mark.parametrize(("debugger", "name"), [("gdb", "gdb_ipbp.py"), ("lldb", "lldb_ipbp")])
def test_path_is_that_of_an_existing_plugin(debugger: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["path", debugger]) == 0
    printed = Path(capsys.readouterr().out.strip())
    assert printed.name == name
    assert printed.is_absolute()
    assert printed.exists()


def test_words_before_the_dashes_go_to_the_debugger_and_those_after_are_the_program() -> None:
    gdb = launch_command("gdb", "/usr/bin/gdb", ["-q", "--", "./app", "-q", "--", "x y"])
    assert gdb == ["/usr/bin/gdb", "-iex", load_line("gdb"), "-q", "--args", "./app", "-q", "--", "x y"]
    lldb = launch_command("lldb", "/usr/bin/lldb", ["--", "./app", "-v"])
    assert lldb == ["/usr/bin/lldb", "-O", load_line("lldb"), "--", "./app", "-v"]
    assert launch_command("gdb", "gdb", ["core.1"]) == ["gdb", "-iex", load_line("gdb"), "core.1"]


def test_init_adds_the_line_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    (tmp_path / ".gdbinit").write_text("set history save on\n")
    for _ in range(2):
        assert main.main(["init", "gdb"]) == 0
        assert main.main(["init", "lldb"]) == 0
    assert (tmp_path / ".gdbinit").read_text() == f"set history save on\n{load_line('gdb')}\n"
    assert (tmp_path / ".lldbinit").read_text() == load_line("lldb") + "\n"


def test_gdb_reads_the_modern_init_file_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert init.init_file("gdb") == tmp_path / ".gdbinit"
    (tmp_path / "config" / "gdb").mkdir(parents=True)
    (tmp_path / "config" / "gdb" / "gdbinit").touch()
    assert init.init_file("gdb") == tmp_path / "config" / "gdb" / "gdbinit"


def test_a_line_that_loads_another_copy_is_replaced_where_it_stands() -> None:
    old = "a\nsource /old/gdb_ipbp.py\nb\nsource /older/gdb_ipbp.py"
    assert init.with_line(old, "source /new/gdb_ipbp.py", LOADS) == "a\nsource /new/gdb_ipbp.py\nb\n"


def test_the_engines_python_is_remembered() -> None:
    remember_engine_python()
    remember_engine_python()
    assert record_path().read_text() == sys.executable + "\n"


def test_an_outcome_is_found_among_what_the_debugger_prints() -> None:
    said = '(gdb) hotpatch\ncompiling\n{"outcome":"unchanged"}\n(lldb) {"outcome":"patched","patch":1}\n(gdb) '
    assert outcome.find_outcome(said) == {"outcome": "patched", "patch": 1}
    assert outcome.find_outcome('{"outcome":"patched","functi') is None
    assert outcome.find_outcome("nothing") is None


def test_words_that_make_no_sense_are_usage() -> None:
    for words in ([], ["apply"], ["apply", "--pid", "0"], ["apply", "--pid", "x"], ["path", "dbx"]):
        with pytest.raises(SystemExit) as stop:
            main.main(words)
        assert stop.value.code == 2


def test_no_such_process_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert main.main(["apply", "--pid", str(child.pid)]) == 1
    assert "[process-missing]" in capsys.readouterr().err


def test_json_is_one_object_for_an_error_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.o").write_text("no object")
    assert main.main(["diff", str(tmp_path / "text.o"), str(tmp_path / "text.o"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "object-malformed"


def test_a_bug_is_an_outcome_with_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(pid: int) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr("ipbp.cli.attach.check_attachable", fail)
    assert main.main(["status", "--pid", "1", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "bug"
    assert "unforeseen" in error["fact"]
    assert "Traceback" in error["detail"]


def test_a_process_that_has_ended_is_told_from_a_missing_one() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(IpbpError) as error:
        check_attachable(child.pid)
    child.wait()
    assert error.value.code == "process-ended"


def test_job_control_state_is_put_back() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    try:
        assert not is_stopped(child.pid)
        settle(child.pid, was_stopped=True)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert is_stopped(child.pid)
        settle(child.pid, was_stopped=False)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED)
        assert not is_stopped(child.pid)
    finally:
        child.kill()
        child.wait()
    settle(child.pid, was_stopped=False)  # has ended: nothing to do


def test_a_debugger_without_python_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("gdb", "lldb-19", "lldb"):
        (tmp_path / name).write_text("#!/bin/sh\necho no python\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nonexistent")
    for name in ("gdb", "lldb"):
        monkeypatch.delenv(f"IPBP_{name.upper()}", raising=False)
        with pytest.raises(IpbpError) as error:
            find_debugger(name)
        assert error.value.code in ("debugger-without-python")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(IpbpError) as error:
        find_debugger("gdb")
    assert error.value.code == "debugger-missing"


def test_the_plugin_is_found_without_being_imported() -> None:
    line = "import sys; from ipbp.cli.path import plugin_path; plugin_path('gdb'); print('gdb_ipbp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout == "False\n"
