"""Whoever waits for a program to be started is woken by the kernel, and when nobody is left to wait for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ipbp.cli.arrivals import Arrivals, program_of, wait_until_started
from ipbp.cli.lives import Lives
from ipbp.errors import IpbpError


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy(shutil.which("cat") or "", tmp_path / "waiting"))


def test_a_program_that_is_started_is_told_also_when_its_file_is_gone(program: Path) -> None:
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running, Arrivals() as waits, Lives(()) as lives:
        waits.watch([program_of(running.pid)])
        again = program.with_name("renamed")
        program.rename(again)
        subprocess.run([again], stdin=subprocess.DEVNULL, check=True)
        assert lives.wait(waits.file)
        assert next(waits.started(lambda: [running.pid])) == [running.pid]


def test_when_all_have_ended_nobody_is_waited_for(program: Path) -> None:
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running, Arrivals() as waits:
        with Lives([running.pid]) as lives:
            running.kill()
            assert not lives.wait(waits.file)
        running.wait()
        with Lives([running.pid]) as lives:
            assert not lives.wait(waits.file)


def test_what_cannot_be_watched_is_an_error_and_what_has_ended_is_none(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch()
    with Arrivals() as waits, pytest.MonkeyPatch.context() as patch:
        waits.watch(["/proc/4194305/exe"])
        patch.setattr(waits._inotify, "_file", 1 << 20)
        with pytest.raises(IpbpError) as error:
            waits.watch([str(file)])
        patch.undo()  # it is closed
    assert error.value.code == "follow-failed"


def test_a_program_that_waits_has_started(program: Path) -> None:
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running:
        wait_until_started(running.pid)
        assert Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
        running.kill()
    wait_until_started(running.pid)
    assert not os.path.exists(f"/proc/{running.pid}")
