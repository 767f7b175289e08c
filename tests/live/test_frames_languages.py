"""Fix and continue and what else makes a session, in C++ and in Rust: the debug information and the code are those of
other compilers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from answerer import Answerer
from scenario import Edit, Talk
from sessions import Session, answer, build_one, debug_with
from test_frames import ADD, said_after, select_frame, stop_in
from test_new_code_known import hits, in_both, step
from test_old_sources import clang

from ipbp.cli.debuggers import find_debugger

pytestmark = [pytest.mark.live, pytest.mark.compiles]

LARGEST = Edit("largest", "till.cpp", [("T best = *fallback", "T best = fallback ? *fallback : T()")], [], [])
SCALED = Edit("scaled", "src/main.rs", [("&entries[index]", "&entries[index % entries.len()]")], [], [])


@pytest.mark.parametrize("project", ["c++"], indirect=True)
def test_a_method_goes_on_and_an_instance_of_a_template_begins_again(
    project: Answerer, talk: Talk, session: Session
) -> None:
    stop_in(session, talk, "add")
    project.edit(ADD)
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "10.5"
    stop_in_again(session, talk, "largest")
    project.edit(LARGEST)
    outcome = session.call("apply --frame restart")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "5"
    assert talk.ask("total") == "6.5"


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_method_that_clang_compiled_goes_on(debugger: str, tmp_path: Path) -> None:
    # It copies `this` to a place without a name, which the edit moves.
    project = build_one(tmp_path / "project", "till", "-O0", compiler=clang("clang++"), suffix="cpp")
    talk = Talk(project.program)
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            stop_in(session, talk, "add")
            project.edit(ADD)
            outcome = session.call("apply --frame remap")
            assert outcome["outcome"] == "patched", outcome["text"]
            assert said_after(session, talk) == "10.5"
            assert answer(talk, session, "total") == ("6.5", 0)
    finally:
        talk.kill()


def stop_in_again(session: Session, talk: Talk, command: str) -> None:
    session.stop()
    stop_in(session, talk, command)


@pytest.mark.parametrize("project", ["rust"], indirect=True)
def test_rust_begins_again_in_the_function_that_panicked(project: Answerer, talk: Talk, session: Session) -> None:
    session.break_at(function="rust_panic")
    stop_in(session, talk, "scaled")
    assert select_frame(session, "ledger::scaled") > 2
    project.edit(SCALED)
    outcome = session.call("apply --frame restart --unwind")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert outcome["frame"]["dropped"][-1].endswith("panic_bounds_check")
    assert any("panicking() is true" in note for note in outcome["notes"])
    assert said_after(session, talk) == "45"
    assert answer(talk, session, "scaled") == ("45", 0)


EXTRA = ("double price = rate;", "int extra = 7;\n        double price = extra + rate;")
INSIDE = {
    "c++": (
        Edit("add", "till.cpp", [EXTRA, *ADD.replace], [], []),
        "double price = extra",
        ("shop::Till::add", "main"),
    ),
    "rust": (
        Edit(
            "plain", "src/main.rs", [("let more = twice + 1;", "let extra = 7;\n    let more = twice + extra;")], [], []
        ),
        "let more = twice + extra",
        ("ledger::plain", "ledger::answer"),
    ),
}
"""By language: an edit, a line of the new code at which `extra` has its value, and it and its caller."""


@pytest.mark.parametrize("project", ["c++", "rust"], indirect=True)
def test_new_code_is_known_as_any(project: Answerer, talk: Talk, session: Session) -> None:
    edit, text, (function, caller) = INSIDE[project.language]
    project.edit(edit)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    file, line = project.source, project.line_of(text)
    session.break_at(file=file.name, line=line, condition="extra == 7")
    stop_in(session, talk, edit.name)
    assert f"{file.name}:{line}" in session.where()
    assert " = 7" in in_both(session, "print extra", "frame variable extra")
    assert "extra = 7" in in_both(session, "info locals", "frame variable")
    session.delete_breakpoints()
    step(session, "next", "next")
    assert edit.name in session.where()
    assert f"{file.name}:{line}:" not in session.where()
    assert select_frame(session, caller) == 1
    assert select_frame(session, function) == 0
    assert "ret" in in_both(session, "disassemble", "disassemble --frame")
    step(session, "finish", "finish")
    assert caller in session.where()


AGAIN = {
    "c++": Edit("add", "till.cpp", [("return price + shown.size();", "return price + shown.size() + 1;")], [], []),
    "rust": Edit("plain", "src/main.rs", [("    more\n}", "    more + 100\n}")], [], []),
}
COUNT = "import ipbp; ipbp.seen = getattr(ipbp, 'seen', 0) + 1"
"""Of the tests; run by a breakpoint."""


def seen(session: Session) -> str:
    """How often COUNT was run."""
    say = "python" if session.name == "gdb" else "script"
    return re.findall(r"<(\d+)>", session.tell(f"{say} import ipbp; print('<%d>' % getattr(ipbp, 'seen', 0))"))[-1]


@pytest.mark.parametrize("project", ["c++", "rust"], indirect=True)
def test_a_breakpoint_keeps_all_that_it_has(project: Answerer, talk: Talk, session: Session) -> None:
    edit, text, _ = INSIDE[project.language]
    project.edit(edit)
    assert session.call("apply")["outcome"] == "patched"
    file, line = project.source, project.line_of(text)
    session.break_at(file=file.name, line=line, condition="extra == 7")
    in_both(
        session,
        f'python gdb.breakpoints()[0].commands = "python {COUNT}"',
        f'breakpoint command add -s command -o "script {COUNT}" 1',
    )
    session.resume()
    first, stops = answer(talk, session, edit.name)
    assert stops == 1
    project.edit(AGAIN[project.language])
    assert session.call("apply")["outcome"] == "patched"
    said, stops = answer(talk, session, edit.name)
    assert (said != first, stops) == (True, 1)
    assert session.call("undo")["outcome"] == "undone"
    assert answer(talk, session, edit.name)[1] == 1
    session.stop()
    assert (hits(session, 1), seen(session)) == (3, "3")


WATCHED = {
    "c++": (INSIDE["c++"][0], "double price = extra", "total", "this->total", 8, "13.5"),
    "rust": (
        Edit("plain", "src/main.rs", [("more = twice + 1;", "mut more = twice + 1;\n    more += 6;")], [], []),
        "more += 6",
        "more",
        "more",
        4,
        "47",
    ),
}
"""By language: an edit, a line of the new code, what is watched from there on (for gdb, for lldb), its size, and what
it becomes."""


@pytest.mark.parametrize("project", ["c++", "rust"], indirect=True)
def test_a_watchpoint_stops_in_new_code(project: Answerer, talk: Talk, session: Session) -> None:
    edit, text, plain, watched, size, value = WATCHED[project.language]
    project.edit(edit)
    assert session.call("apply")["outcome"] == "patched"
    file, line = project.source, project.line_of(text)
    session.break_at(file=file.name, line=line)
    stop_in(session, talk, edit.name)
    session.delete_breakpoints()
    said = in_both(session, f"watch {plain}", f"watchpoint set expression -w write -s {size} -- &{watched}")
    assert "atchpoint" in said, said
    session.resume()
    session.wait_until_stopped()
    assert edit.name in session.where()
    assert f" = {value}" in in_both(session, f"print {plain}", f"frame variable {watched}")
    in_both(session, "delete", "watchpoint delete --force")
    session.resume()
    assert answer(talk, session)[1] == 0
