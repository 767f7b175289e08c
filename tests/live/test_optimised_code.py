"""Optimised code: what the compiler made of a function, and who still runs the old one after a patch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import Outcome, Session, build_one, code_of, debug_with, read_memory

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

EDITS = {
    "mode == 1 ? i : mode == 2": "mode == 1 ? i + 1 : mode == 2",
    "return x + 7;": "return x + 8;",
    "x > 5 ? last": "x > 4 ? last",
    "int sum = 0;\n    va_start": "int sum = 1000;\n    va_start",
    "longjmp(back, x + 1)": "longjmp(back, x + 2)",
    "return kept * 100 + came;": "return kept * 1000 + came;",
    "add: value += 1;": "add: value += 2;",
    "return x + 40;": "return x + 41;",
    "handled += number;": "handled += number * 100;",
    "bye from the old code": "bye from the new code",
    "ended by the old code": "ended by the new code",
}
ASK = {
    "clones 4": ("20", "24"),
    "tail 5": ("12", "18"),
    "summed 1": ("31", "1031"),
    "machine": ("5", "10"),
    "rare 1": ("41", "42"),
}
BUILDS = {"gdb": ("gcc", "-O3"), "lldb": ("clang-19", "-O2")}


@pytest.fixture(params=list(BUILDS))
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Session, Talk, Project]]:
    compiler, level = BUILDS[request.param]
    project = build_one(tmp_path / "project", "motley", level, compiler=compiler)
    talk = Talk(project.program)
    with debug_with(request.param, find_debugger(request.param)) as opened:
        opened.attach(talk.process.pid)
        for line in ("handle SIGUSR1 nostop noprint pass", "process handle SIGUSR1 -n false -s false -p true"):
            opened.tell(line)
        opened.resume()
        yield opened, talk, project
    talk.kill()


def edit(project: Project, edits: dict[str, str]) -> None:
    path = project.folder / "motley.c"
    text = path.read_text()
    for old, new in edits.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


def apply(debugger: Session) -> Outcome:
    outcome = debugger.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    return outcome


def test_clones_tail_calls_jumps_handlers_and_exits_run_the_new_code(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    assert [talk.ask(line) for line in ASK] == [old for old, _new in ASK.values()]
    assert talk.ask("signal") == str(1000 + signal.SIGUSR1)
    assert talk.ask("jumped 3") == "waiting"
    edit(project, EDITS)
    outcome = apply(debugger)
    # A call under way ends in its old code, also when a longjmp out of new code leads back into it.
    assert any("old 'jumped'" in note for note in outcome["notes"]), outcome["notes"]
    assert talk.ask("go on") == str(3 * 100 + 5)
    assert talk.ask("jumped 3") == "waiting"
    assert talk.ask("go on") == str(3 * 1000 + 5)
    assert [talk.ask(line) for line in ASK] == [new for _old, new in ASK.values()]
    assert talk.ask("signal") == str(1000 + signal.SIGUSR1 * 101)
    debugger.stop()
    debugger.detach()
    assert talk.process.stdin is not None
    assert talk.process.stdout is not None
    talk.process.stdin.close()
    assert talk.process.stdout.read() == b"bye from the new code\nended by the new code\n"
    assert talk.process.wait(timeout=20) == 0


def test_it_is_said_who_will_not_see_the_change(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    assert talk.ask("inlined 5") == "16"
    edit(project, {"return x * 3 + 1;": "return x * 3 + 2;"})
    outcome = apply(debugger)
    assert [row["name"] for row in outcome["functions"]] == ["main"]
    assert any("old 'main'" in note for note in outcome["notes"]), outcome["notes"]
    assert talk.ask("inlined 5") == "16"
    # What the optimiser removes is no change.
    edit(project, {"return x + 7;": "int unused = x * 5; (void)unused; return x + 7;"})
    outcome = debugger.call("apply")
    assert outcome["outcome"] == "unchanged"
    assert any("motley.c was compiled, and the edit changes no machine code" in note for note in outcome["notes"])
    # What ran before main does not run again.
    edit(project, {"handled = 1000;": "handled = 2000;"})
    outcome = apply(debugger)
    assert any("'at_start' ran before main and does not run again" in note for note in outcome["notes"])
    assert talk.ask("rare 2") == "42"


def test_a_refused_edit_changes_no_byte_of_the_process(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    original = (project.folder / "motley.c").read_text()
    before = everything(talk.process.pid)
    for old, new, code in (
        ("static volatile int handled;", "static volatile long handled;", "data-size-changed"),
        ("return x + 7;", "extern int nobody(int); return nobody(x);", "undefined-symbol"),
        ("int main(", "__attribute__((destructor)) void more(void) { handled = 3; }\nint main(", "new-initialiser"),
        ("handled = 1000;", "extern int fresh; handled = fresh++;", "undefined-symbol"),
    ):
        edit(project, {old: new})
        outcome = debugger.call("apply")
        assert outcome["outcome"] == "refused", (code, outcome)
        assert code in {refusal["code"] for refusal in outcome["refusals"]}, outcome
        assert all(refusal["file"] and refusal["symbol"] for refusal in outcome["refusals"])
        assert everything(talk.process.pid) == before, code
        (project.folder / "motley.c").write_text(original)
    assert [talk.ask(line) for line in ASK] == [old for old, _new in ASK.values()]


def everything(pid: int) -> tuple[list[str], bytes, bytes]:
    """The memory map without the heap's size, and all bytes of the program that nothing of its own writes."""
    lines = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "[heap]" not in line]
    program = [line.split() for line in lines if line.endswith("/motley") and " r" in line and " rw" not in line]
    places = [tuple(int(part, 16) for part in row[0].split("-")) for row in program]
    return lines, code_of(pid), b"".join(read_memory(pid, low, high - low) for low, high in places)
