"""The debugger knows new code as any code: breakpoints, stepping, variables, and no more symbols than are of use."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from scenario import Project, Talk
from sessions import Session, answer, debug_with
from test_frames import line_of, select_frame

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live


def edit(project: Project, old: str, new: str) -> None:
    source = project.folder / "frames.c"
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))


def patch_files(session: Session) -> list[str]:
    """Names of the patch files whose symbols the debugger has."""
    line = "python print([row.filename for row in gdb.objfiles()])" if session.name == "gdb" else "image list"
    return sorted(set(re.findall(r"patch-\d+\.elf", session.tell(line))), key=lambda name: int(name[6:-4]))


def in_both(session: Session, gdb: str, lldb: str) -> str:
    return session.tell(gdb if session.name == "gdb" else lldb)


def breakpoints(session: Session) -> str:
    return in_both(session, "info breakpoints", "breakpoint list")


def hits(session: Session, number: int) -> int:
    said = breakpoints(session)
    if session.name == "gdb":
        part = re.split(r"^(?=\d+ )", said, flags=re.M)[number]
        found = re.search(r"already hit (\d+) time", part)
        return int(found[1]) if found else 0
    return int(re.findall(r"^\d+: .*hit count = (\d+)", said, re.M)[number - 1])


@pytest.mark.parametrize("patches", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_breakpoints_are_hit_once_a_call_whatever_the_number_of_patches(
    session: Session, project: Project, talk: Talk, patches: int
) -> None:
    line = line_of(project, "int more =")
    session.break_at(function="plain")
    session.break_at(file="frames.c", line=line, condition="value > 25")
    session.resume()
    assert answer(talk, session, "plain") == ("41", 1)
    for number in range(patches):
        before, after = (f"twice + {1 + n};" for n in (number, number + 1))
        edit(project, before, after)
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert answer(talk, session, "plain") == (str(42 + number), 1)
    session.stop()
    assert hits(session, 1) == patches + 1
    assert hits(session, 2) == 0
    assert "value > 25" in breakpoints(session)
    # Of all the versions one is called.
    assert patch_files(session) == [f"patch-{patches}.elf"]
    assert plain_functions(session) == (1 if session.name == "gdb" else 2)  # gdb shows one of the same line once
    session.delete_breakpoints()
    for left in range(patches - 5, -1, -5) if patches > 5 else (0,):
        assert session.call(f"undo {left}")["outcome"] == "undone"
    assert patch_files(session) == []
    assert plain_functions(session) == 1


def plain_functions(session: Session) -> int:
    shown = in_both(session, "info functions ^plain$", "image lookup --name plain")
    return len(re.findall(r"int plain\(int\);|Summary: .*`plain ", shown))


def test_breakpoints_move_back_with_undo(session: Session, project: Project, talk: Talk) -> None:
    session.break_at(function="plain")
    in_both(session, "set $seen = 0", "expression int $seen = 0")
    more = "breakpoint command add -o 'expression $seen = $seen + 1' 1"
    in_both(session, "python gdb.breakpoints()[0].commands = 'set $seen = $seen + 1'", more)
    session.resume()
    for text in ("twice + 2;", "twice + 3;"):
        edit(project, re.findall(r"twice \+ \d;", (project.folder / "frames.c").read_text())[0], text)
        assert session.call("apply")["outcome"] == "patched"
    assert answer(talk, session, "plain") == ("43", 1)
    assert session.call("undo")["outcome"] == "undone"
    assert answer(talk, session, "plain") == ("42", 1)
    assert session.call("undo")["outcome"] == "undone"
    assert answer(talk, session, "plain") == ("41", 1)
    session.stop()
    assert hits(session, 1) == 3
    assert session.evaluate("$seen") == 3, "its commands ran each time"


@pytest.mark.slow
def test_one_that_the_user_switched_off_stays_off(session: Session, project: Project, talk: Talk) -> None:
    session.break_at(function="plain")
    in_both(session, "disable 1", "breakpoint disable 1")
    session.resume()
    edit(project, "twice + 1;", "twice + 2;")
    assert session.call("apply")["outcome"] == "patched"
    assert answer(talk, session, "plain") == ("42", 0)
    session.stop()
    in_both(session, "enable 1", "breakpoint enable 1")
    session.resume()
    assert answer(talk, session, "plain") == ("42", 1)


def test_new_code_is_stepped_and_looked_at_as_any(session: Session, project: Project, talk: Talk) -> None:
    # Lines that the old source does not have.
    edit(project, "    int more = twice + 1;", "\n\n    int more = checked(2);\n    more += twice;")
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    line = line_of(project, "int more =")
    session.break_at(file="frames.c", line=line)
    session.resume()
    talk.tell("plain")
    session.wait_until_stopped()
    assert f"frames.c:{line}" in session.where()
    assert session.evaluate("twice") == 40
    step(session, "step", "step")
    assert "checked" in session.where()
    assert select_frame(session, "plain") == 1
    assert session.evaluate("value") == 20
    assert select_frame(session, "main") == 2
    assert select_frame(session, "checked") == 0
    step(session, "finish", "finish")
    assert "plain" in session.where()
    step(session, "next", "next")
    if f"frames.c:{line}" in session.where():  # the rest of the line that was left by `finish`
        step(session, "next", "next")
    assert f"frames.c:{line + 1}" in session.where()
    shown = in_both(session, "info locals", "frame variable")
    assert re.search(r"twice = 40", shown), shown
    assert re.search(r"more = 4\b", shown), shown
    assert "more += twice;" in in_both(session, "frame", "frame select 0")
    assert "checked" in in_both(session, "disassemble", "disassemble --frame")
    assert re.search(r"#0 .*plain.*\n#1 .*main", in_both(session, "backtrace", "bt").replace("frame ", "")) or (
        session.name == "lldb"
    )
    session.delete_breakpoints()
    session.resume()
    assert answer(talk, session) == ("44", 0)


@pytest.mark.slow
def test_a_watchpoint_stops_in_new_code(session: Session, project: Project, talk: Talk) -> None:
    edit(project, "    int more = twice + 1;", "    int more = twice + 1;\n    total += more;")
    session.resume()
    assert session.call("apply")["outcome"] == "patched"
    session.stop()
    in_both(session, "watch total", "watchpoint set expression -w write -s 4 -- &total")
    session.resume()
    talk.tell("plain")
    session.wait_until_stopped()
    assert "plain" in session.where()
    assert session.evaluate("total") == 41
    in_both(session, "delete", "watchpoint delete --force")
    session.resume()
    assert answer(talk, session) == ("41", 0)


def test_code_that_still_runs_keeps_its_symbols_and_is_told(session: Session, project: Project, talk: Talk) -> None:
    session.break_at(file="frames.c", line=line_of(project, "int more ="))
    edit(project, "int twice = value + value;", "int twice = value + value + (total > 99);")
    assert session.call("apply")["outcome"] == "patched"
    session.resume()
    talk.tell("plain")
    session.wait_until_stopped()
    session.delete_breakpoints()
    edit(project, "twice + 1;", "twice + 2;")
    assert session.call("apply")["outcome"] == "patched"
    # Stopped in patch 1, whose only function has a newer version.
    assert patch_files(session) == ["patch-1.elf", "patch-2.elf"]
    assert session.evaluate("twice") == 40
    shown = in_both(session, "backtrace", "bt")
    if session.name == "gdb":
        first = r"^#0 .*plain \[old code, version 2 of 3\] \(value=20\) at frames\.c:\d+\n"
        assert re.search(rf"{first}#1 .*in main \(\)", shown), shown
    else:
        assert "patch-1.elf`plain" in shown
    status = session.call("status")
    assert status["old"] == [{"thread": talk.process.pid, "function": "plain", "version": 2, "newest": 3}]
    assert "version 2 of 'plain'" in status["text"]
    session.resume()
    assert answer(talk, session) == ("41", 0)
    assert session.call("status")["old"] == []
    session.stop()
    assert "old code" not in in_both(session, "backtrace", "bt")
    assert patch_files(session) == ["patch-2.elf"]


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_program_that_is_run_again_stops_at_its_breakpoints(debugger: str, project: Project, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    told = os.open(tmp_path / "in", os.O_RDWR)  # so that nobody waits for the other end
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.launch(project.program, tmp_path)
            session.break_at(function="plain")
            edit(project, "twice + 1;", "twice + 2;")
            assert session.call("apply")["outcome"] == "patched"
            assert project.program.name in in_both(session, "info inferiors", "target list")
            os.write(told, b"plain\n")
            session.resume()
            session.wait_until_stopped()
            assert "plain" in session.where()
            in_both(session, "kill", "process kill")
            run = {
                "gdb": f"run < {tmp_path}/in > {tmp_path}/out",
                "lldb": f"process launch --stdin {tmp_path}/in --stdout {tmp_path}/out --stderr {tmp_path}/err",
            }
            session.go(run[debugger])
            os.write(told, b"plain\n")
            session.wait_until_stopped()
            assert "plain" in session.where()
            assert "patch-1" not in session.where()
    finally:
        os.close(told)


def step(session: Session, gdb: str, lldb: str) -> None:
    session.go(gdb if session.name == "gdb" else lldb)
    session.wait_until_stopped()
