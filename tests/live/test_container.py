"""A process with namespaces and a root of its own, as in a container, patched from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from scenario import EDITS, Project, Talk, build_project
from sessions import answer, build_one, debug_with, ipbp

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of its own: only root may make them"),
]
# It has no parent there, of which new code makes one less.
ANSWERS = {(line, after): {"text_length": "13"}.get(line, after) for edit in EDITS for line, _, after in edit.ask}


@pytest.fixture
def project(tmp_path: Path, gcc: str) -> Project:
    return build_project(tmp_path / "project", gcc, ["-O2"])


def make_root(root: Path, *programs: tuple[Path, str]) -> None:
    """A root with nothing but these files at these places, and the libraries that they need."""
    for program, place in programs:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries = [(path, path) for path in re.findall(r"(/\S+) \(0x", listed)]
        for path, inside in [(str(program), place), *libraries]:
            there = root / inside.lstrip("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, there)


class Contained(Talk):
    """The program at its path in a root with nothing else but its libraries; it is process 1 there."""

    def __init__(self, root: Path, program: Path) -> None:
        make_root(root, (program, str(program)))
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
        said, stops = answer(talk, session, "body 5")
        assert (said, stops > 0) == ("1005", True)
        session.delete_breakpoints()
        assert session.call("undo 0")["outcome"] == "undone"
        assert talk.ask("body 5") == "6"


def test_files_that_only_a_gdbserver_inside_has_are_copied(tmp_path: Path, gcc: str) -> None:
    project = build_one(tmp_path / "project", "metronome", "-O0", compiler=gcc)
    root = tmp_path / "root"
    gdbserver = shutil.which("gdbserver")
    assert gdbserver is not None
    make_root(root, (project.program, "/inside/metronome"), (Path(gdbserver), "/inside/gdbserver"))
    for name in ("proc", "dev"):
        (root / name).mkdir()
    project.program.unlink()
    serve = f"exec chroot {root} /inside/gdbserver --once --no-startup-with-shell - /inside/metronome"
    (tmp_path / "serve").write_text(f"mount --rbind /proc {root}/proc && mount --rbind /dev {root}/dev && {serve}\n")
    source = project.folder / "metronome.c"
    text = source.read_text().replace("return n * 2;", "return n * 100 + 7;")
    script = [
        *("set sysroot target:", f"target remote | unshare --mount sh {tmp_path}/serve", load_line("gdb")),
        *("tbreak tick if n == 2", "continue", f"python open({str(source)!r}, 'w').write({text!r})", "hotpatch --json"),
        *("tbreak tick if n == 5", "continue", "hotpatch undo --json", "tbreak tick if n == 7", "continue", "kill"),
    ]
    (tmp_path / "script").write_text("\n".join(["set pagination off", "set confirm off", *script, ""]))
    command = [find_debugger("gdb"), "-nx", "-batch", "-x", str(tmp_path / "script")]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=250, check=False)
    said = done.stdout + done.stderr
    assert [json.loads(row)["outcome"] for row in re.findall(r'^\{".*', said, re.M)] == ["patched", "undone"], said
    printed = {int(n): int(beat) for n, beat in re.findall(r"^(\d+) (-?\d+) \d+$", said, re.M)}
    assert printed == {0: 0, 1: 2, 2: 207, 3: 307, 4: 407, 5: 10, 6: 12}, said


@pytest.mark.slow
def test_files_below_a_sysroot_are_those_of_a_program_behind_lldb_server(tmp_path: Path, gcc: str) -> None:
    """At the paths that it has them at here is another program, and no C library."""
    project = build_one(tmp_path / "project", "metronome", "-O0", compiler=gcc)
    inside, sysroot = tmp_path / "inside", tmp_path / "sysroot"
    below = sysroot / inside.relative_to("/")
    make_root(tmp_path / "files", (project.program, "/metronome"))
    for folder in (inside, below):
        folder.mkdir(parents=True)
    library = next((tmp_path / "files").rglob("libc.so.6"))
    shutil.copy2(library, below)
    project.program.rename(below / "metronome")
    shutil.copy("/bin/true", inside / "metronome")
    fill = f"mount -t tmpfs tmpfs {inside} && cp {library} {tmp_path}/files/metronome {inside}"
    serve = ("sh", "-c", f'{fill} && LD_LIBRARY_PATH={inside} exec "$@"', "sh")
    with debug_with("lldb-gdbserver", find_debugger("lldb")) as session:
        session.wraps = ("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", *serve)
        session.tell(f"platform select --sysroot {sysroot} remote-linux")
        session.tell(f"target create {below}/metronome")
        session.launch(inside / "metronome", tmp_path)
        assert f"{below}/libc.so.6" in session.tell("image list")
        source = project.folder / "metronome.c"
        source.write_text(source.read_text().replace("return n * 2;", "return n * 100 + 7;"))
        outcome = session.call("")
        assert outcome["outcome"] == "patched", outcome
        session.resume()
        beats = session.wait_until_shown(r"^([3-9]) (\d+) \d+\r?$")
        assert {int(beat) - int(n) * 100 for n, beat in beats} == {7}, beats


@pytest.mark.slow
def test_what_no_file_here_tells_of_a_program_behind_lldb_server_its_memory_does(tmp_path: Path, gcc: str) -> None:
    """Its C library is nowhere here, its program at another path, and no process here has its number."""
    project = build_one(tmp_path / "project", "metronome", "-O0", compiler=gcc)
    inside, copy = tmp_path / "inside", tmp_path / "copy" / "metronome"
    make_root(tmp_path / "files", (project.program, "/metronome"))
    for folder in (inside, copy.parent):
        folder.mkdir()
    project.program.rename(copy)
    library = next((tmp_path / "files").rglob("libc.so.6"))
    fill = f"mount -t tmpfs tmpfs {inside} && cp {library} {tmp_path}/files/metronome {inside}"
    serve = ("sh", "-c", f'{fill} && LD_LIBRARY_PATH={inside} exec "$@"', "sh")
    with debug_with("lldb-gdbserver", find_debugger("lldb")) as session:
        session.wraps = ("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", *serve)
        session.tell(f"target create {copy}")
        session.launch(inside / "metronome", tmp_path)
        source = project.folder / "metronome.c"
        source.write_text(source.read_text().replace("return n * 2;", "return n * 100 + 6 + (getppid() > 0);"))
        outcome = session.call("")
        assert outcome["outcome"] == "patched", outcome
        session.resume()
        beats = session.wait_until_shown(r"^([3-9]) (\d+) \d+\r?$")
        assert {int(beat) - int(n) * 100 for n, beat in beats} == {7}, beats
