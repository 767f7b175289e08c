"""The debugger knows new code as any code: breakpoints, stepping, variables, and no more symbols than are of use."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from answerer import Answerer
from scenario import Talk
from sessions import Session, answer, debug_with
from test_frames import IN_EACH_LANGUAGE, MOSTLY_IN_C, select_frame, variable

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live


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


def named(session: Session, project: Answerer, function: str) -> str:
    """What a breakpoint on it is set by: lldb finds a function of Rust by its last name only."""
    return f"{project.scope}{function}" if session.name == "gdb" else function


@MOSTLY_IN_C
@pytest.mark.parametrize("patches", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_breakpoints_are_hit_once_a_call_whatever_the_number_of_patches(
    session: Session, project: Answerer, talk: Talk, patches: int
) -> None:
    line = project.line_of("more =")
    session.break_at(function=named(session, project, "plain"))
    session.break_at(file=project.source.name, line=line, condition="value > 25")
    session.resume()
    assert answer(talk, session, "plain") == ("41", 1)
    for number in range(patches):
        before, after = (f"twice + {1 + n};" for n in (number, number + 1))
        project.replace(before, after)
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert answer(talk, session, "plain") == (str(42 + number), 1)
    session.stop()
    assert hits(session, 1) == patches + 1
    assert hits(session, 2) == 0
    assert "value > 25" in breakpoints(session)
    # Of all the versions one is called.
    assert patch_files(session) == [f"patch-{patches}.elf"]
    # (Of several in the same line gdb shows one.)
    assert plain_functions(session, project) == (1 if session.name == "gdb" else 2)
    session.delete_breakpoints()
    for left in range(patches - 5, -1, -5) if patches > 5 else (0,):
        assert session.call(f"undo {left}")["outcome"] == "undone"
    assert patch_files(session) == []
    assert plain_functions(session, project) == 1


def plain_functions(session: Session, project: Answerer) -> int:
    shown = in_both(session, rf"info functions ^{project.scope}plain(\(int\))?$", "image lookup --name plain")
    found = rf"\b{project.scope}plain\(" if session.name == "gdb" else rf"Summary: .*`{project.scope}plain\b"
    return len(re.findall(found, shown))


def test_breakpoints_move_back_with_undo(session: Session, project: Answerer, talk: Talk) -> None:
    session.break_at(function="plain")
    in_both(session, "set $seen = 0", "expression int $seen = 0")
    more = "breakpoint command add -o 'expression $seen = $seen + 1' 1"
    in_both(session, "python gdb.breakpoints()[0].commands = 'set $seen = $seen + 1'", more)
    session.resume()
    for text in ("twice + 2;", "twice + 3;"):
        project.replace(re.findall(r"twice \+ \d;", project.source.read_text())[0], text)
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
def test_one_that_the_user_switched_off_stays_off(session: Session, project: Answerer, talk: Talk) -> None:
    session.break_at(function="plain")
    in_both(session, "disable 1", "breakpoint disable 1")
    session.resume()
    project.replace("twice + 1;", "twice + 2;")
    assert session.call("apply")["outcome"] == "patched"
    assert answer(talk, session, "plain") == ("42", 0)
    session.stop()
    in_both(session, "enable 1", "breakpoint enable 1")
    session.resume()
    assert answer(talk, session, "plain") == ("42", 1)


@MOSTLY_IN_C
def test_new_code_is_stepped_and_looked_at_as_any(session: Session, project: Answerer, talk: Talk) -> None:
    # Lines that the old source does not have.
    declared = "let mut" if project.language == "rust" else "int"
    line = project.source.read_text().splitlines()[project.line_of("more =") - 1]
    project.replace(line, f"\n\n    {declared} more = checked(2);\n    more += twice;")
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    number = project.line_of("more =")
    session.break_at(file=project.source.name, line=number)
    session.resume()
    talk.tell("plain")
    session.wait_until_stopped()
    assert f"{project.source.name}:{number}" in session.where()
    assert variable(session, "twice") == 40
    step(session, "step", "step")
    assert "checked" in session.where()
    assert select_frame(session, f"{project.scope}plain") == 1
    assert variable(session, "value") == 20
    assert select_frame(session, project.caller) == 2
    assert select_frame(session, f"{project.scope}checked") == 0
    step(session, "finish", "finish")
    assert "plain" in session.where()
    step(session, "next", "next")
    if f"{project.source.name}:{number}" in session.where():  # the rest of the line that was left by `finish`
        step(session, "next", "next")
    assert f"{project.source.name}:{number + 1}" in session.where()
    shown = in_both(session, "info locals", "frame variable")
    assert re.search(r"twice = 40", shown), shown
    assert re.search(r"more = 4\b", shown), shown
    assert "more += twice;" in in_both(session, "frame", "frame select 0")
    assert "checked" in in_both(session, "disassemble", "disassemble --frame")
    shown = in_both(session, "backtrace", "bt")
    assert session.name == "lldb" or re.search(rf"#0 .*plain.*\n#1 .*{project.caller}", shown), shown
    session.delete_breakpoints()
    session.resume()
    assert answer(talk, session) == ("44", 0)


@pytest.mark.slow
def test_a_watchpoint_stops_in_new_code(session: Session, project: Answerer, talk: Talk) -> None:
    project.replace("    int more = twice + 1;", "    int more = twice + 1;\n    total += more;")
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


@IN_EACH_LANGUAGE
def test_code_that_still_runs_keeps_its_symbols_and_is_told(session: Session, project: Answerer, talk: Talk) -> None:
    session.break_at(file=project.source.name, line=project.line_of("more ="))
    project.replace("value + value;", "(value | 1) - 1 + value;")
    assert session.call("apply")["outcome"] == "patched"
    session.resume()
    talk.tell("plain")
    session.wait_until_stopped()
    session.delete_breakpoints()
    project.replace("twice + 1;", "twice + 2;")
    assert session.call("apply")["outcome"] == "patched"
    # Stopped in patch 1, whose only function has a newer version.
    assert patch_files(session) == ["patch-1.elf", "patch-2.elf"]
    assert variable(session, "twice") == 40
    shown = in_both(session, "backtrace", "bt")
    if session.name == "gdb":
        first = rf"^#0 .*plain \[old code, version 2 of 3\] \(value=20\) at .*{project.source.name}:\d+\n"
        assert re.search(rf"{first}#1 .*in {project.caller} \(", shown), shown
    else:
        assert f"patch-1.elf`{project.scope}plain" in shown
    status = session.call("status")
    (row,) = status["old"]
    assert re.fullmatch(rf"{project.scope}plain(\(int\))?", row["function"])
    assert (row["thread"], row["version"], row["newest"]) == (talk.process.pid, 2, 3)
    assert f"version 2 of '{row['function']}'" in status["text"]
    session.resume()
    assert answer(talk, session) == ("41", 0)
    assert session.call("status")["old"] == []
    session.stop()
    assert "old code" not in in_both(session, "backtrace", "bt")
    assert patch_files(session) == ["patch-2.elf"]


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_program_that_is_run_again_stops_at_its_breakpoints(debugger: str, project: Answerer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    told = os.open(tmp_path / "in", os.O_RDWR)  # so that nobody waits for the other end
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.launch(project.program, tmp_path)
            session.break_at(function="plain")
            project.replace("twice + 1;", "twice + 2;")
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
