"""A process with namespaces and a root of its own, as in a container, patched from outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from scenario import EDITS, Project, Talk, build_project
from sessions import debug_with, ipbp

from ipbp.cli.debuggers import find_debugger

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of its own: only root may make them"),
]
# It has no parent there, of which new code makes one less.
ANSWERS = {(line, after): {"text_length": "13"}.get(line, after) for edit in EDITS for line, _, after in edit.ask}


@pytest.fixture
def project(tmp_path: Path, gcc: str) -> Project:
    return build_project(tmp_path / "project", gcc, ["-O2"])


class Contained(Talk):
    """The program at its path in a root with nothing else but its libraries; it is process 1 there."""

    def __init__(self, root: Path, program: Path) -> None:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in [str(program), *re.findall(r"(/\S+) \(0x", listed)]:
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
        namespaces = ("--pid", "--mount", "--net", "--uts", "--ipc", "--fork", "--kill-child")
        super().__init__(Path("/usr/bin/unshare"), *namespaces, "chroot", str(root), str(program))
        self.pid = self._inner(str(program))

    def _inner(self, program: str) -> int:
        deadline = monotonic() + 20
        while True:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if children and os.readlink(f"/proc/{children[0]}/exe").endswith(program):
                return int(children[0])
            assert monotonic() < deadline, "it was not started"
            sleep(0.01)


@pytest.fixture
def talk(tmp_path: Path, project: Project) -> Iterator[Contained]:
    program = Contained(tmp_path / "root", project.program)
    yield program
    program.kill()


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_it_is_patched_from_a_shell(project: Project, talk: Contained, debugger: str) -> None:
    assert [talk.ask(edit.ask[0][0]) for edit in EDITS] == [edit.ask[0][1] for edit in EDITS]
    project.edit(*EDITS)
    shutil.copy("/bin/true", project.program)  # what is at that path outside is another program
    outcome = ipbp("apply", talk.pid, debugger, "--build-dir", str(project.folder))
    assert outcome["outcome"] == "patched", outcome
    assert [talk.ask(line) for line, _ in ANSWERS] == list(ANSWERS.values())
    assert ipbp("undo", talk.pid, debugger)["outcome"] == "undone"
    assert talk.ask("body 5") == "6"


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_it_is_patched_in_a_session(project: Project, talk: Contained, debugger: str) -> None:
    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(talk.pid)
        session.resume()
        for edit in EDITS:
            assert talk.ask(edit.ask[0][0]) == edit.ask[0][1]
            project.edit(edit)
            outcome = session.call("")
            assert outcome["outcome"] == "patched", outcome
            assert [talk.ask(line) for line, _, _ in edit.ask] == [ANSWERS[line, after] for line, _, after in edit.ask]
        session.break_at("body")
        talk.tell("body 5")
        session.wait_until_stopped()
        assert "body" in session.where()
        session.resume()
        assert talk.hear() == "1005"
        session.delete_breakpoints()
        assert session.call("undo 0")["outcome"] == "undone"
        assert talk.ask("body 5") == "6"
