"""The plugins load from anywhere, any number of times, bring nothing else into the debugger, and say what is wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from debuggers import GdbConsole, Lldb

from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Path:
    path = tmp_path_factory.mktemp("quiet") / "quiet"
    path.with_suffix(".c").write_text("int main(void) { return 0; }\n")
    subprocess.run([gcc, "-g", path.with_suffix(".c"), "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """site-packages as a wheel fills them, with a compiled package beside ours that no debugger must import."""
    site = tmp_path_factory.mktemp("prefix with space") / "lib" / "python3.99" / "site-packages"
    shutil.copytree(ROOT / "core" / "ipbp", site / "ipbp")
    for plugin in ("gdb_ipbp", "lldb_ipbp"):
        shutil.copytree(ROOT / plugin, site / plugin)
    (site / "numpy.py").write_text("raise SystemExit('of another Python')\n")
    return site


def test_gdb_loads_an_installed_plugin_and_nothing_beside_it(gdb: str, installed: Path) -> None:
    with GdbConsole(gdb) as debugger:
        assert debugger.tell(f"source {installed / 'gdb_ipbp' / 'gdb_ipbp.py'}").count("rror") == 0
        assert str(installed) in debugger.tell("python import ipbp.host; print(ipbp.host.__file__)")
        assert "False" in debugger.tell(f"python import sys; print({str(installed)!r} in sys.path)")
        assert "hotpatch preview" in debugger.tell("help hotpatch")


def test_lldb_loads_an_installed_plugin_and_nothing_beside_it(lldb: str, installed: Path) -> None:
    with Lldb(lldb) as debugger:
        assert "error" not in debugger.tell(f'command script import "{installed / "lldb_ipbp"}"')
        assert f"{installed}/ipbp" in debugger.tell("script import ipbp.host; print(ipbp.host.__file__)")
        assert "False" in debugger.tell(f"script import sys; print({str(installed)!r} in sys.path)")
        assert "hotpatch preview" in debugger.tell("help hotpatch")


def test_gdb_loads_it_again_and_again(gdb: str) -> None:
    with GdbConsole(gdb) as debugger:
        for _ in range(3):
            assert "rror" not in debugger.tell(load_line("gdb"))
            assert "[inferior-none]" in debugger.tell("hotpatch status")
        assert "hotpatch status" in debugger.tell("complete hotpatch st")
        assert len(debugger.tell("complete hotpatch ").split("hotpatch ")) > 7


def test_lldb_loads_it_again_and_again(lldb: str) -> None:
    with Lldb(lldb) as debugger:
        for _ in range(3):
            assert "rror" not in debugger.tell(load_line("lldb"))
            printed = debugger.tell("hotpatch status")
            assert "[inferior-none]" in printed
            assert "error: hotpatch: failed" in printed


def test_gdb_fails_a_script_when_the_patch_fails(gdb: str, tmp_path: Path) -> None:
    script = tmp_path / "script.gdb"
    script.write_text("hotpatch nonsense\necho not reached\\n\n")
    with GdbConsole(gdb) as debugger:
        debugger.tell(load_line("gdb"))
        printed = debugger.tell(f"source {script}")
        assert "[usage]" in printed
        assert "hotpatch: wrong usage" in printed
        assert "not reached" not in printed


def test_gdb_refuses_core_files_and_programs_that_have_ended(gdb: str, program: Path, tmp_path: Path) -> None:
    with GdbConsole(gdb, str(program)) as debugger:
        debugger.tell(load_line("gdb"))
        debugger.tell("start")
        debugger.tell(f"generate-core-file {tmp_path / 'core'}")
        debugger.tell("continue")
        assert "[inferior-none]" in debugger.tell("hotpatch status")
        debugger.tell(f"core-file {tmp_path / 'core'}")
        assert "[inferior-core]" in debugger.tell("hotpatch status")


def test_gdb_refuses_a_recorded_program(gdb: str, program: Path) -> None:
    with GdbConsole(gdb, str(program)) as debugger:
        debugger.tell(load_line("gdb"))
        debugger.tell("start")
        debugger.tell("record")
        assert "[inferior-recorded]" in debugger.tell("hotpatch status")


def test_gdb_refuses_a_program_that_it_is_told_to_leave_as_it_is(gdb: str, program: Path) -> None:
    with GdbConsole(gdb, str(program)) as debugger:
        debugger.tell(load_line("gdb"))
        debugger.tell("start")
        debugger.tell("set may-write-memory off")
        assert "[inferior-observed]" in debugger.tell("hotpatch status")
        debugger.tell("set may-write-memory on")
        assert "[inferior-observed]" not in debugger.tell("hotpatch status")


def test_lldb_refuses_core_files_and_programs_that_have_ended(
    gdb: str, lldb: str, program: Path, tmp_path: Path
) -> None:
    make_core = ("-ex", "start", "-ex", f"generate-core-file {tmp_path / 'core'}", "-ex", "kill")
    subprocess.run([gdb, "-nx", "-batch", *make_core, program], check=True, capture_output=True)
    with Lldb(lldb, str(program)) as debugger:
        debugger.tell(load_line("lldb"))
        debugger.tell("breakpoint set -n main")
        debugger.tell("process launch --no-stdio")
        debugger.wait_for("stop reason")
        debugger.tell("process continue")
        debugger.wait_for("exited")
        assert "[inferior-gone]" in debugger.tell("hotpatch status")
        debugger.tell(f"target create --core {tmp_path / 'core'}")
        assert "[inferior-core]" in debugger.tell("hotpatch status")


def test_lldb_refuses_what_another_stub_traces_and_lets_it_run(lldb: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as output, subprocess.Popen(["/bin/sleep", "600"]) as program:
        words = ["gdbserver", "--once", "--attach", "127.0.0.1:0", str(program.pid)]
        server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            with Lldb(lldb, "/bin/sleep") as debugger:
                debugger.tell(load_line("lldb"))
                debugger.wait_until(lambda: b"Listening on port" in said.read_bytes())
                port = said.read_text().rpartition("Listening on port ")[2].strip()
                debugger.tell(f"gdb-remote 127.0.0.1:{port}")
                debugger.wait_for("stop")
                assert "[inferior-remote]" in debugger.tell("hotpatch status")
                debugger.tell("process continue")
                debugger.wait_for("resuming")
                assert "[inferior-running]" in debugger.tell("hotpatch status")
                assert "running" in debugger.tell("process status")
        finally:
            server.kill()
            server.communicate()
            program.kill()
