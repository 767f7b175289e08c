"""Threads keep their variables: every model of thread-local storage, in threads that run and in those to come."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from scenario import PROGRAMS, Project, Talk
from sessions import Outcome, build_one, debug_with, ipbp, read_memory

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

BUILDS = {
    "pie": ("gcc", ["-O2"], []),
    "fixed": ("gcc", ["-O0", "-fno-pie"], ["-no-pie"]),
    "general": ("gcc", ["-O0", "-fPIC"], []),
    "no plt": ("clang", ["-O2", "-fPIC", "-fno-plt"], []),
    "descriptors": ("gcc", ["-O2", "-fPIC", "-mtls-dialect=gnu2"], []),
    "static": ("gcc", ["-O2"], ["-static"]),
    "musl": ("musl-gcc", ["-O2"], []),
    "musl static": ("musl-gcc", ["-O0"], ["-static"]),
    "musl library": ("musl-gcc", ["-O2", "-fPIC"], ["-shared"]),
    "plugin of musl": ("musl-gcc", ["-O2", "-fPIC"], ["-shared"]),
    "library": ("gcc", ["-O2", "-fPIC"], ["-shared"]),
    "plugin": ("gcc", ["-O2", "-fPIC"], ["-shared"]),
    "plugin of general code": ("gcc", ["-O2", "-fPIC", "-DLARGE"], ["-shared"]),
    "plugin of descriptors": ("gcc", ["-O2", "-fPIC", "-mtls-dialect=gnu2", "-DLARGE"], ["-shared"]),
}
EDIT = ("    return sum;", "    return sum * 2 + own[0];")


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(folder: Path, compiler: str, flags: Sequence[str], link: Sequence[str]) -> Project:
    """locals.c and threads.c with a compile_commands.json."""
    folder.mkdir(parents=True)
    rows = []
    for name in ("locals", "threads"):
        shutil.copy(PROGRAMS / f"{name}.c", folder)
        is_host = folder.name.startswith("plugin") and name == "threads"
        more = [f'-DPLUGIN="{folder}/liblocals.so"'] if is_host else []
        arguments = [compiler, *flags, *more, "-g", "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(arguments, cwd=folder, check=True)
        rows.append({"directory": str(folder), "file": f"{name}.c", "arguments": arguments})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    program = folder / "threads"
    parts = ["locals.o"]
    if "-shared" in link:
        subprocess.run([compiler, "-shared", "locals.o", "-o", "liblocals.so"], cwd=folder, check=True)
        parts = ["-rdynamic"] if folder.name.startswith("plugin") else [str(folder / "liblocals.so")]
        link = []
    subprocess.run([compiler, "threads.o", *parts, *link, "-o", program, "-pthread"], cwd=folder, check=True)
    return Project(folder, program)


@pytest.fixture
def start(tmp_path: Path, clang: str) -> Iterator[Callable[[str], tuple[Project, Talk]]]:
    """Builds and starts one of BUILDS."""
    running = []

    def make(name: str) -> tuple[Project, Talk]:
        compiler, flags, link = BUILDS[name]
        project = build(tmp_path / name.replace(" ", "-"), clang if compiler == "clang" else compiler, flags, link)
        running.append(Talk(project.program))
        return project, running[-1]

    yield make
    for talk in running:
        talk.kill()


def edit(project: Project, *pairs: tuple[str, str]) -> None:
    """Replace texts of locals.c."""
    path = project.folder / "locals.c"
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


def patch(talk: Talk, debugger: str, *more: str) -> Outcome:
    """One `ipbp apply` that patches."""
    outcome = ipbp("apply", talk.process.pid, debugger, *more)
    assert outcome["outcome"] == "patched", outcome
    return outcome


def numbers(line: str) -> list[int]:
    return [int(word) for word in line.split()]


def expected(threads: int, visits: int) -> list[int]:
    """What `tell` of the old code says in each thread after so many visits: 1111 and errno for each, and 14."""
    return [14 + visits * 1111 * (n + 1) + (n + 1 if visits else 0) for n in range(threads)]


# Each in one debugger; the long runs go through all of them in both.
SLICE = {
    "pie": "gdb",
    "fixed": "lldb",
    "general": "gdb",
    "no plt": "lldb",
    "descriptors": "gdb",
    "static": "lldb",
    "musl": "gdb",
    "plugin of musl": "lldb",
    "library": "gdb",
    "plugin": "lldb",
    "plugin of descriptors": "gdb",
}


def each(*names: str) -> pytest.MarkDecorator:
    """These builds, in both debuggers."""
    rows = [(name, debugger) for name in names for debugger in ("gdb", "lldb")]
    marks = [() if SLICE.get(name) == debugger else pytest.mark.slow for name, debugger in rows]
    return pytest.mark.parametrize(
        ("build_name", "debugger"),
        [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks, strict=True)],
        indirect=["debugger"],
    )


@each(*BUILDS)
def test_running_threads_keep_their_values(
    build_name: str, debugger: str, start: Callable[[str], tuple[Project, Talk]]
) -> None:
    project, talk = start(build_name)
    talk.ask("visit")
    assert numbers(talk.ask("tell")) == expected(8, 1)
    edit(project, EDIT, ("    zero += 1000 * x;", "    zero += 1000 * x; own[0] += 1;"))
    outcome = patch(talk, debugger)
    # gcc -O2 adds to two neighbours at once, which needs them at a multiple of 16.
    if build_name == "pie":
        assert any("-fno-tree-slp-vectorize" in note for note in outcome["notes"]), outcome
    assert numbers(talk.ask("tell")) == [2 * n + 1 for n in expected(8, 1)]
    # A thread that starts now has the initial values.
    assert talk.ask("start") == "9"
    assert numbers(talk.ask("tell"))[8] == 2 * 14 + 1
    talk.ask("visit")
    assert numbers(talk.ask("tell"))[:8] == [2 * n + 2 for n in expected(8, 2)]
    assert numbers(talk.ask("tell"))[8] == 2 * expected(9, 1)[8] + 2
    assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
    assert numbers(talk.ask("tell"))[:8] == expected(8, 2)
    assert talk.close() == 0


NEW = (
    "long tell(void) {\n    long sum",
    "static __thread long added = 70;\n__thread char bytes[100] __attribute__((aligned(64)));\n"
    "long tell(void) {\n    added += 1;\n    bytes[99] += 2;\n"
    "    if ((long)bytes % 64) return -1;\n"
    "    long sum = 1000000 * (added * 100 + bytes[99] + bytes[0]);\n    sum",
)


@each("pie", "general", "fixed", "descriptors")
def test_new_variables_are_in_running_and_in_future_threads(
    build_name: str, debugger: str, start: Callable[[str], tuple[Project, Talk]]
) -> None:
    project, talk = start(build_name)
    talk.ask("visit")
    edit(project, NEW, ("sum = outer +", "sum += outer +"))
    patch(talk, debugger)

    def own(calls: int) -> int:
        return 1000000 * ((70 + calls) * 100 + 2 * calls)

    assert numbers(talk.ask("tell")) == [own(1) + old for old in expected(8, 1)]
    assert talk.ask("start") == "9"
    assert numbers(talk.ask("tell")) == [own(2) + old for old in expected(8, 1)] + [own(1) + 14]
    # A later patch knows them, and brings one more.
    edit(project, ("added += 1;", "static __thread long third = 3; third += 1; added += third;"))
    patch(talk, debugger)
    values = numbers(talk.ask("tell"))
    assert values[0] == 1000000 * ((72 + 4) * 100 + 2 * 3) + expected(8, 1)[0]
    assert values[8] == 1000000 * ((71 + 4) * 100 + 2 * 2) + 14
    assert ipbp("undo", talk.process.pid, debugger, "0")["outcome"] == "undone"
    assert numbers(talk.ask("tell"))[:8] == expected(8, 1)
    assert talk.close() == 0


def test_code_that_counts_on_a_fixed_place_is_compiled_so_that_it_asks(
    debugger: str, start: Callable[[str], tuple[Project, Talk]]
) -> None:
    project, talk = start("plugin of general code")
    talk.ask("visit")
    # As after a change of the build's flags: the plugin that runs has no fixed place in the threads.
    database = project.folder / "compile_commands.json"
    database.write_text(database.read_text().replace('"-fPIC"', '"-fPIC", "-ftls-model=initial-exec"'))
    edit(project, EDIT)
    outcome = patch(talk, debugger)
    assert any("-ftls-model=global-dynamic" in note for note in outcome["notes"]), outcome
    assert numbers(talk.ask("tell")) == [2 * n + 1 for n in expected(8, 1)]
    # What the source insists on stays as it is, and is refused.
    edit(project, ("__thread long shared", '__attribute__((tls_model("initial-exec"))) __thread long shared'))
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert {row["code"] for row in outcome["refusals"]} == {"thread-local"}, outcome
    assert numbers(talk.ask("tell")) == [2 * n + 1 for n in expected(8, 1)]


SHOWN = {
    "pie": {"added": "71", "own[1]": "102", "zero": "1000", "shared": "15"},
    "library": {"own[1]": "102", "zero": "1000", "shared": "15"},
    "plugin of descriptors": {"own[1]": "", "zero": "", "shared": ""},
}


@pytest.mark.parametrize("build_name", SHOWN)
def test_gdb_shows_them_as_new_code_has_them_or_not_at_all(
    build_name: str, start: Callable[[str], tuple[Project, Talk]]
) -> None:
    project, talk = start(build_name)
    talk.ask("visit")
    edits = [EDIT] if build_name != "pie" else [NEW, ("sum = outer +", "sum += outer +")]
    edit(project, *edits)
    with debug_with("gdb", find_debugger("gdb")) as session:
        session.attach(talk.process.pid)
        session.resume()
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome
        answers = talk.ask("tell")
        session.stop()
        (row,) = (row for row in outcome["functions"] if row["name"] == "tell")
        session.break_at(address=row["address"], condition="$_thread == 2")
        session.resume()
        talk.tell("tell")
        session.wait_until_stopped()
        for name, value in SHOWN[build_name].items():
            said = session.tell(f"print {name}")
            assert said.endswith(f" = {value}\n") if value else "Cannot access memory" in said, said
        session.delete_breakpoints()
        session.resume()
        assert len(talk.hear().split()) == len(answers.split()) == 8


def memory_of(pid: int) -> tuple[list[str], bytes]:
    """The mapped files and large blocks of the memory map (lldb leaves a page of its own), and the program's code."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    code = next(line for line in lines if " r-xp " in line)
    start, end = (int(part, 16) for part in code.split()[0].split("-"))
    kept = [line for line in lines if line.endswith((".so", ".6", ".2", "/threads")) or _size(line) >= 1 << 20]
    return kept, read_memory(pid, start, end - start)


def _size(line: str) -> int:
    start, end = (int(part, 16) for part in line.split()[0].split("-"))
    return end - start


@each("static", "musl", "musl static")
def test_a_program_whose_threads_have_no_room_is_left_as_it_is(
    build_name: str, debugger: str, start: Callable[[str], tuple[Project, Talk]]
) -> None:
    project, talk = start(build_name)
    assert numbers(talk.ask("tell")) == expected(8, 0)
    before = memory_of(talk.process.pid)
    edit(project, NEW, ("sum = outer +", "sum += outer +"))
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "refused", outcome
    assert sorted(row["symbol"] for row in outcome["refusals"]) == ["added", "bytes"]
    assert {row["code"] for row in outcome["refusals"]} == {"new-thread-local"}
    assert memory_of(talk.process.pid) == before


def test_more_than_the_loader_has_room_for_leaves_the_program_as_it_was(
    debugger: str, start: Callable[[str], tuple[Project, Talk]]
) -> None:
    project, talk = start("pie")
    assert numbers(talk.ask("tell")) == expected(8, 0)
    before = memory_of(talk.process.pid)
    edit(
        project, EDIT, ("long tell(void) {", "static __thread char large[100000];\nlong tell(void) {\n    large[5]++;")
    )
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "error", outcome
    assert outcome["error"]["code"] == "library-not-loaded"
    assert "static TLS" in outcome["error"]["detail"]
    assert memory_of(talk.process.pid) == before
    assert numbers(talk.ask("tell")) == expected(8, 0)


def test_threads_that_allocate_all_the_time_are_waited_for(debugger: str, tmp_path: Path) -> None:
    project = build_one(tmp_path / "project", "allocators", "-O2")
    source = project.folder / "allocators.c"
    talk = Talk(project.program)
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            session.resume()
            assert talk.ask("1") == "2"
            new = "long next(long x) {\n    static __thread long calls = 500;\n    calls += 1;\n    return x + calls;"
            source.write_text(source.read_text().replace("long next(long x) {\n    return x + 1;", new))
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", outcome
            assert [talk.ask("1"), talk.ask("1")] == ["502", "503"]
            session.stop()
            session.detach()
        assert talk.ask("1") == "504"
        assert talk.close() == 0
    finally:
        talk.kill()
