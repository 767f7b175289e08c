"""A program that ends while its patch is planned is no bug of the engine's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ipbp.host.ended import ended


def missing(path: str) -> FileNotFoundError:
    try:
        Path(path).stat()
    except FileNotFoundError as error:
        return error
    raise AssertionError(f"{path} is there")


def test_a_file_of_a_process_that_is_gone() -> None:
    program = subprocess.Popen(["true"])
    program.wait()
    error = ended(missing(f"/proc/{program.pid}/exe"))
    assert error is not None
    assert error.code == "inferior-gone"


def test_other_files_are_another_matter(tmp_path: Path) -> None:
    assert ended(missing(f"/proc/{os.getpid()}/no-such-file")) is None
    assert ended(missing(str(tmp_path / "gone"))) is None
    assert ended(ValueError("/proc/1/exe")) is None


def test_a_process_that_ended_and_was_not_waited_for() -> None:
    program = subprocess.Popen(["true"])
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    error = ended(missing(f"/proc/{program.pid}/exe"))
    program.wait()
    assert error is not None
    assert error.code == "inferior-gone"
