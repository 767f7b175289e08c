"""Fix and continue and what else makes a session, in C++ and in Rust: the debug information and the code are those of
other compilers."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cargo_project import CargoProject, build_cargo_project
from scenario import Edit, Project, Talk
from sessions import Session, answer, build_one, debug_with
from test_frames import said_after, select_frame, stop_in
from test_new_code_known import hits, in_both, step
from test_old_sources import clang

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

ADD = Edit("add", "till.cpp", [("price += item->value *", "price += (item ? item->value : 8) *")], [], [])
LARGEST = Edit("largest", "till.cpp", [("T best = *fallback", "T best = fallback ? *fallback : T()")], [], [])
SCALED = Edit("scaled", "src/main.rs", [("&entries[index]", "&entries[index % entries.len()]")], [], [])
PLAIN = Edit("plain", "src/main.rs", [("twice + 1;", "twice + 1000;")], [], [])
DEBUGGERS = ["gdb", "lldb"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build_one(tmp_path_factory.mktemp("till") / "project", "till", "-O0", compiler="g++", suffix="cpp")


@pytest.fixture
def till(built: Project) -> Iterator[Project]:
    source, kept = built.folder / "till.cpp", built.folder.parent / "till.cpp"
    if not kept.exists():
        shutil.copy2(source, kept)
    yield built
    shutil.copy2(kept, source)


@pytest.fixture(scope="module")
def built_ledger(tmp_path_factory: pytest.TempPathFactory) -> CargoProject:
    return build_cargo_project(tmp_path_factory.mktemp("cargo") / "ledger", workspace="ledger")


@pytest.fixture
def ledger(built_ledger: CargoProject) -> Iterator[CargoProject]:
    yield built_ledger
    built_ledger.restore()


@pytest.fixture
def talk(request: pytest.FixtureRequest) -> Iterator[Talk]:
    name = getattr(request, "param", "till" if "till" in request.fixturenames else "ledger")
    project = request.getfixturevalue(name)
    program = Talk(project.program)
    yield program
    program.kill()


@pytest.fixture(params=DEBUGGERS)
def session(request: pytest.FixtureRequest, talk: Talk) -> Iterator[Session]:
    with debug_with(request.param, find_debugger(request.param)) as session:
        session.attach(talk.process.pid)
        yield session


def test_a_method_goes_on_and_an_instance_of_a_template_begins_again(
    till: Project, talk: Talk, session: Session
) -> None:
    stop_in(session, talk, "add")
    till.edit(ADD)
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "10.5"
    stop_in_again(session, talk, "largest")
    till.edit(LARGEST)
    outcome = session.call("apply --frame restart")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "5"
    assert talk.ask("total") == "6.5"


@pytest.mark.parametrize("debugger", DEBUGGERS)
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


def test_rust_begins_again_in_the_function_that_panicked(ledger: CargoProject, talk: Talk, session: Session) -> None:
    session.break_at(function="rust_panic")
    stop_in(session, talk, "scaled")
    assert select_frame(session, "ledger::scaled") > 2
    ledger.edit(SCALED)
    outcome = session.call("apply --frame restart --unwind")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert outcome["frame"]["dropped"][-1].endswith("panic_bounds_check")
    assert any("panicking() is true" in note for note in outcome["notes"])
    assert said_after(session, talk) == "45"
    assert answer(talk, session, "scaled") == ("45", 0)


@pytest.mark.slow
def test_rust_goes_on_at_a_breakpoint(ledger: CargoProject, talk: Talk, session: Session) -> None:
    line = next(
        n for n, row in enumerate((ledger.folder / "src/main.rs").read_text().splitlines(), 1) if "let more" in row
    )
    session.break_at(file="main.rs", line=line)
    stop_in(session, talk, "plain")
    session.delete_breakpoints()
    ledger.edit(PLAIN)
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "1040"


EXTRA = ("double price = rate;", "int extra = 7;\n        double price = extra + rate;")
INSIDE = {
    "till": (
        Edit("add", "till.cpp", [EXTRA, *ADD.replace], [], []),
        "double price = extra",
        ("shop::Till::add", "main"),
    ),
    "ledger": (
        Edit(
            "plain", "src/main.rs", [("let more = twice + 1;", "let extra = 7;\n    let more = twice + extra;")], [], []
        ),
        "let more = twice + extra",
        ("ledger::plain", "ledger::answer"),
    ),
}
"""By fixture: an edit, a line of the new code at which `extra` has its value, and it and its caller."""


@pytest.mark.parametrize("talk", INSIDE, indirect=True)
def test_new_code_is_known_as_any(request: pytest.FixtureRequest, talk: Talk, session: Session) -> None:
    name = request.node.callspec.params["talk"]
    project, (edit, text, (function, caller)) = request.getfixturevalue(name), INSIDE[name]
    project.edit(edit)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    file = project.folder / edit.file
    line = next(n for n, row in enumerate(file.read_text().splitlines(), 1) if text in row)
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
    "till": Edit("add", "till.cpp", [("return price + shown.size();", "return price + shown.size() + 1;")], [], []),
    "ledger": Edit("plain", "src/main.rs", [("    more\n}", "    more + 100\n}")], [], []),
}
COUNT = "import ipbp; ipbp.seen = getattr(ipbp, 'seen', 0) + 1"
"""Of the tests; run by a breakpoint."""


def seen(session: Session) -> str:
    """How often COUNT was run."""
    say = "python" if session.name == "gdb" else "script"
    return re.findall(r"<(\d+)>", session.tell(f"{say} import ipbp; print('<%d>' % getattr(ipbp, 'seen', 0))"))[-1]


@pytest.mark.parametrize("talk", INSIDE, indirect=True)
def test_a_breakpoint_keeps_all_that_it_has(request: pytest.FixtureRequest, talk: Talk, session: Session) -> None:
    name = request.node.callspec.params["talk"]
    project, (edit, text, _) = request.getfixturevalue(name), INSIDE[name]
    project.edit(edit)
    assert session.call("apply")["outcome"] == "patched"
    file = project.folder / edit.file
    line = next(n for n, row in enumerate(file.read_text().splitlines(), 1) if text in row)
    session.break_at(file=file.name, line=line, condition="extra == 7")
    in_both(
        session,
        f'python gdb.breakpoints()[0].commands = "python {COUNT}"',
        f'breakpoint command add -s command -o "script {COUNT}" 1',
    )
    session.resume()
    first, stops = answer(talk, session, edit.name)
    assert stops == 1
    project.edit(AGAIN[name])
    assert session.call("apply")["outcome"] == "patched"
    said, stops = answer(talk, session, edit.name)
    assert (said != first, stops) == (True, 1)
    assert session.call("undo")["outcome"] == "undone"
    assert answer(talk, session, edit.name)[1] == 1
    session.stop()
    assert (hits(session, 1), seen(session)) == (3, "3")


WATCHED = {
    "till": (INSIDE["till"][0], "double price = extra", "total", "this->total", 8, "13.5"),
    "ledger": (
        Edit("plain", "src/main.rs", [("more = twice + 1;", "mut more = twice + 1;\n    more += 6;")], [], []),
        "more += 6",
        "more",
        "more",
        4,
        "47",
    ),
}
"""By fixture: an edit, a line of the new code, what is watched from there on (for gdb, for lldb), its size, and what it
becomes."""


@pytest.mark.parametrize("talk", WATCHED, indirect=True)
def test_a_watchpoint_stops_in_new_code(request: pytest.FixtureRequest, talk: Talk, session: Session) -> None:
    name = request.node.callspec.params["talk"]
    project, (edit, text, plain, watched, size, value) = request.getfixturevalue(name), WATCHED[name]
    project.edit(edit)
    assert session.call("apply")["outcome"] == "patched"
    file = project.folder / edit.file
    line = next(n for n, row in enumerate(file.read_text().splitlines(), 1) if text in row)
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


READ_LINE = {
    "till": Edit(
        "read_line",
        "till.cpp",
        [
            (
                "return static_cast<bool>(std::getline(std::cin, line));",
                "bool is_there(std::getline(std::cin, line));\n    return is_there;",
            )
        ],
        [],
        [],
    ),
    "ledger": Edit("read_line", "src/main.rs", [("if size > 0", "if size != 0")], [], []),
}


@pytest.mark.parametrize("talk", READ_LINE, indirect=True)
def test_a_quiet_point_is_waited_for(request: pytest.FixtureRequest, talk: Talk, session: Session) -> None:
    # The program is in `read_line` but for the moment in which it answers.
    name = request.node.callspec.params["talk"]
    session.resume()
    before = talk.ask("total")
    talk.until_it_reads()
    request.getfixturevalue(name).edit(READ_LINE[name])
    outcome = session.call("apply --quiet-point --timeout 0.3")
    assert outcome["error"]["code"] == "quiet-point", outcome
    assert re.search(rf"thread {talk.process.pid} is in '.*read_line", outcome["error"]["fact"])
    assert session.call("status")["patches"] == []
    is_done = threading.Event()

    def feed() -> None:
        while not is_done.is_set():
            talk.ask("total")

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        outcome = session.call("apply --quiet-point --timeout 30")
    finally:
        is_done.set()
        feeder.join()
    assert outcome["outcome"] == "patched", outcome["text"]
    assert not any("may still be in the old" in note for note in outcome["notes"])
    assert session.call("status")["old"] == []
    assert answer(talk, session, "total") == (before, 0)
