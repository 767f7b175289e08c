"""A Linux of its own for AArch64, in an emulator: gdb here patches programs with threads behind gdbserver there.

The processor signs return addresses, checks landing pads and has scalable vectors. Everything runs in one guest.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aarch64_guest import Guest, GuestSession, GuestTalk, booted, missing
from debuggers import Gdb
from nursery import build_nursery, put_back, with_variables
from parlour import BEFORE, STEPS, build_parlour, make
from scenario import EDITS, PROGRAMS, Project, build_project
from sessions import Outcome, build_one
from test_thread_locals import EDIT, build, expected, numbers

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

PROCESSOR = "max,pauth-impdef=on,sve-max-vq=2"  # signatures that take an emulator little time; vectors of 256 bits
GUARDED = ("-O2", "-fdata-sections", "-mbranch-protection=standard")
THREADS = {
    "pie": (["-O2", "-fdata-sections"], []),
    "general": (["-O0", "-fPIC"], []),
    "static": (["-O2", "-fdata-sections"], ["-static"]),
    "library": (["-O2", "-fPIC", "-fdata-sections"], ["-shared"]),
    "plugin": (["-O2", "-fPIC", "-fdata-sections"], ["-shared"]),
}


@dataclass(frozen=True)
class Machine:
    """The guest, and its programs by name."""

    guest: Guest
    projects: dict[str, Project]

    @contextmanager
    def debugged(self, name: str, kind: str = "remote") -> Iterator[tuple[GuestSession, GuestTalk, Project]]:
        """One of them, stopped by gdb."""
        project = self.projects[name]
        with self.guest.running(project.program) as talk, Gdb("gdb-multiarch") as gdb:
            session = GuestSession(gdb)
            session.guest, session.program, session.kind = self.guest, project.program, kind
            session.attach(talk.pid)
            yield session, talk, project


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, aarch64: str) -> Iterator[Machine]:
    root, cxx = tmp_path_factory.mktemp("guest"), aarch64.replace("gcc", "g++")
    projects = {
        "talk": build_guarded(root / "talk", aarch64),
        "hammer": build_one(root / "hammer", "hammer", *GUARDED, compiler=aarch64),
        "scalable": build_one(root / "scalable", "scalable", "-O0", "-march=armv8.2-a+sve", compiler=aarch64),
        "nursery": build_nursery(root / "nursery", *GUARDED, compiler=cxx),
        "parlour": build_parlour(root / "parlour", *GUARDED, compiler=cxx),
    }
    for name, (flags, link) in THREADS.items():
        projects[name] = build(root / name, aarch64, flags, link)
    files = [project.program for project in projects.values()]
    files += [library for project in projects.values() for library in project.folder.glob("*.so")]
    with pytest.MonkeyPatch.context() as patch, booted(root, files, aarch64, PROCESSOR) as guest:
        patch.setattr("debuggers.PATIENCE", 300.0)
        yield Machine(guest, projects)


def build_guarded(folder: Path, compiler: str) -> Project:
    """The talking program, whose code the kernel has the processor check: none of it is without landing pads."""
    project = build_project(folder, compiler, GUARDED)
    shutil.copy(PROGRAMS / "guarded_start.c", folder)
    objects = [str(path) for path in folder.glob("*.o")]
    link = [compiler, "-nostartfiles", "-Wl,-z,force-bti", "guarded_start.c", *objects, "-o", project.program]
    subprocess.run(link, cwd=folder, check=True, capture_output=True)
    return project


def at_a_good_moment(session: GuestSession, words: str) -> Outcome:
    """`hotpatch WORDS` again, as it says, where a thread was in the unwinder at the stop. It runs in between."""
    for _ in range(50):
        outcome = session.call(words)
        if outcome["outcome"] != "error" or outcome["error"]["code"] != "program-busy":
            break
    return outcome


@pytest.mark.parametrize("kind", ["remote", "extended-remote"])
def test_patch_after_patch_and_back(machine: Machine, kind: str) -> None:
    with machine.debugged("talk", kind) as (session, talk, project):
        texts = {path: path.read_text() for path in project.folder.glob("[ts]*.[ch]")}
        session.resume()
        assert [talk.ask(edit.ask[0][0]) for edit in EDITS] == [edit.ask[0][1] for edit in EDITS]
        assert talk.ask("stored 5") == "6 1"
        for edit in EDITS:
            project.edit(edit)
            outcome = session.call("")
            assert outcome["outcome"] == "patched", outcome
            assert [row["name"] for row in outcome["functions"]] == list(edit.functions)
        asked = [row for edit in EDITS for row in edit.ask]
        assert [talk.ask(line) for line, _, _ in asked] == [after for _, _, after in asked]
        assert talk.ask("stored 5") == "1005 1"  # by its address
        assert session.call("undo 0")["outcome"] == "undone"
        assert (talk.ask("body 5"), talk.ask("counted 1"), talk.ask("stored 5")) == ("6", "102", "6 1")
        for path, text in texts.items():
            path.write_text(text)
        project.edit(EDITS[0])
        before = session.call("status")["memory"]
        session.tell("python import ipbp.host.reclaim; ipbp.host.reclaim.SECONDS = 60.0")  # an emulator is slow
        assert session.call("")["outcome"] == "patched"
        assert session.call("undo")["outcome"] == "undone"
        assert session.call("status")["memory"] == before
        session.stop()
        session.detach()
        assert talk.ask("recursive 10") == "55"
        assert talk.leave() == []
        for path, text in texts.items():
            path.write_text(text)


def test_no_call_of_threads_that_run_at_once_is_lost(machine: Machine) -> None:
    with machine.debugged("hammer") as (session, talk, project):
        source = project.folder / "hammer.c"
        text = source.read_text()
        session.resume()
        for _ in range(2):
            source.write_text(text.replace("return x + 1;", "return x + 1000;"))
            assert session.call("")["outcome"] == "patched"
            patched, later = numbers(talk.ask("?")), numbers(talk.ask("?"))
            assert later[1] == patched[1], "the old code still answers"
            assert later[2] > patched[2] > 0
            assert session.call("undo")["outcome"] == "undone"
            undone, later = numbers(talk.ask("?")), numbers(talk.ask("?"))
            assert later[2] == undone[2], "the new code still answers"
            assert later[1] > undone[1]
            source.write_text(text)
        calls, old, new, other, total = numbers(talk.leave()[-1])
        assert (old + new, other) == (calls, 0)
        assert total == old + 1000 * new


def test_a_thread_whose_return_address_is_signed_is_known_to_be_in_old_code(machine: Machine) -> None:
    with machine.debugged("talk") as (session, talk, project):
        source = project.folder / "talk.c"
        text = source.read_text()
        session.resume()
        assert talk.ask("on_stack 5") == "waiting"  # its return to main is the one that it signed
        source.write_text(text.replace('printf("what?\\n")', 'printf("what now?\\n")'))
        outcome = session.call("")
        source.write_text(text)
        assert [row["name"] for row in outcome["functions"]] == ["main"]
        assert any("in the old 'main'" in note for note in outcome["notes"]), outcome
        assert (talk.ask(""), talk.ask("nothing")) == ("6", "what?")
        assert session.call("undo")["outcome"] == "undone"
        assert talk.leave() == []


@pytest.mark.parametrize("name", THREADS)
def test_running_threads_keep_their_variables(machine: Machine, name: str) -> None:
    with machine.debugged(name) as (session, talk, project):
        source = project.folder / "locals.c"
        session.resume()
        talk.ask("visit")
        text = source.read_text().replace("    zero += 1000 * x;", "    zero += 1000 * x; own[0] += 1;")
        source.write_text(text.replace(*EDIT))
        outcome = session.call("")
        assert outcome["outcome"] == "patched", outcome
        assert numbers(talk.ask("tell")) == [2 * n + 1 for n in expected(8, 1)]
        assert talk.ask("start") == "9"
        assert numbers(talk.ask("tell"))[8] == 2 * 14 + 1
        talk.ask("visit")
        assert numbers(talk.ask("tell"))[:8] == [2 * n + 2 for n in expected(8, 2)]
        source.write_text(source.read_text().replace("long tell(", "__thread long added = 70;\nlong tell("))
        source.write_text(source.read_text().replace("    return sum", "    added++;\n    return sum"))
        outcome = session.call("")
        if name == "static":
            assert [row["code"] for row in outcome["refusals"]] == ["new-thread-local"], outcome
        else:  # the library with the new variable is a file here, and not on that machine
            assert outcome["error"]["code"] == "library-not-loaded", outcome
        assert session.call("undo")["outcome"] == "undone"
        assert numbers(talk.ask("tell"))[:8] == expected(8, 2)
        assert talk.leave() == []


def test_vectors_that_a_system_call_would_lose_are_kept(machine: Machine) -> None:
    with machine.debugged("scalable") as (session, talk, project):
        source = project.folder / "scalable.c"
        assert int(session.tell("print $vg").split()[-1]) == 4
        session.resume()
        assert numbers(talk.ask("?"))[1:] == [0, 2]
        source.write_text(source.read_text().replace("return x + 1;", "return x + 1000;"))
        assert session.call("")["outcome"] == "patched"  # with memory that is mapped by one of the threads
        talk.ask("?")
        assert numbers(talk.ask("?"))[1:] == [0, 1001]
        assert session.call("undo")["outcome"] == "undone"
        talk.ask("?")
        assert numbers(talk.ask("?"))[1:] == [0, 2]


def test_cxx_with_threads_that_throw_and_call_through_tables_all_the_time(machine: Machine) -> None:
    with machine.debugged("parlour") as (session, talk, project):
        session.resume()
        assert [(line, talk.ask(line)) for line, _ in BEFORE] == list(BEFORE)
        for step in STEPS[:7]:  # each is tried again and again here: mostly some thread is in the unwinder
            make(step, project.folder)
            outcome = at_a_good_moment(session, "apply")
            assert outcome["outcome"] == "patched", f"{step.name}: {outcome}"
            assert [(line, talk.ask(line)) for line, _ in step.ask] == list(step.ask), step.name
        assert at_a_good_moment(session, "undo 1")["outcome"] == "undone"
        assert (talk.ask("caught 4"), talk.ask("area 0"), talk.ask("turns")) == ("ioh int 4", "16 shape", "on")
        assert talk.leave() == []


def test_what_is_not_there_yet_is_said_and_the_program_left_alone(machine: Machine) -> None:
    put_back(machine.projects["nursery"].folder)
    with machine.debugged("nursery") as (session, talk, project):
        session.resume()
        talk.ask("told 0")
        # Of variables with constructors: those that threads and functions have, and those of a file that had none.
        with_variables(project.folder, "each.cpp", "", ("mine.value += x;", "mine.value += 2 * x;"))
        assert session.call("")["outcome"] == "patched"
        assert (talk.ask("mine 1"), talk.ask("theirs 0"), talk.ask("told 0")) == ("7", "7", "+mine +mine ")
        assert [talk.ask("fresh 1"), talk.hear(), talk.ask("told 0")] == ["7", "-mine 7", "+mine "]
        with_variables(project.folder, "plain.cpp", 'static Thing fresh("fresh", 9);\n', ("x + 1;", "x + fresh.get();"))
        assert at_a_good_moment(session, "")["outcome"] == "patched"
        assert (talk.ask("plain 1"), talk.ask("told 0")) == ("10", "+fresh ")
        with_variables(project.folder, "plain.cpp", "", ("x + 1;", "x + 3;"))
        session.stop()
        said = session.tell("hotpatch --frame restart")
        assert "[frame-machine]" in said, said
        session.go("continue &")
        said = session.tell("hotpatch")
        assert "[inferior-running]" in said, said
        assert talk.ask("plain 1") == "10"
        assert session.call("")["outcome"] == "patched"
        assert talk.ask("plain 1") == "4"


def test_the_stub_of_the_emulator_itself_is_refused(machine: Machine) -> None:
    with Gdb("gdb-multiarch") as gdb:
        session = GuestSession(gdb)
        gdb.tell(f"file {machine.projects['talk'].program}")
        assert "0x" in gdb.tell(f"target remote 127.0.0.1:{machine.guest.processors}")
        for command in ("hotpatch", "hotpatch undo", "hotpatch status"):
            said = session.tell(command)
            assert "the stub debugs a machine with all that runs on it, and no process" in said, said
            assert "Run gdbserver in the system on that machine" in said, said
        gdb.tell("detach")
    machine.guest.signal(0, 1)  # it runs
