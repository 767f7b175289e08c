"""Many processes at once, from a shell: a server that forks its workers is patched as a whole, process by process."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from prefork import Prefork, serving
from scenario import Edit, Project
from sessions import build_one

from ipbp.cli.target import status_field

pytestmark = pytest.mark.live

ANSWER = Edit("answer", "prefork.c", [("return x + 1;", "return x + 1000;")], [], ["answer"])
AGAIN = Edit("again", "prefork.c", [("return x + 1000;", "return x + 2000;")], [], ["answer"])
REFUSED = Edit("refused", "prefork.c", [("static int answered;", "static long answered;")], [], [])
WORKERS = 3


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_one(tmp_path / "project", "prefork", "-O0")


@pytest.fixture
def server(project: Project) -> Iterator[Prefork]:
    with serving(project.program, WORKERS) as running:
        yield running


@pytest.fixture
def pair(project: Project) -> Iterator[Prefork]:
    """With one worker."""
    with serving(project.program, 1) as running:
        yield running


@dataclass(frozen=True)
class Done:
    """What one `ipbp` printed with --json: a row for each process, and one for all."""

    status: int
    processes: dict[int, dict[str, Any]]
    total: dict[str, Any]

    def outcomes(self) -> dict[int, str]:
        return {pid: row["outcome"] for pid, row in self.processes.items()}


def ipbp(verb: str, debugger: str, *words: str, **environment: str) -> Done:
    command = [sys.executable, "-m", "ipbp.cli.main", verb, "--debugger", debugger, "--json", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=240, env={**os.environ, **environment})
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return Done(done.returncode, {row["pid"]: row for row in rows[:-1]}, rows[-1])


def numbers(pids: list[int]) -> str:
    return ",".join(map(str, pids))


def test_all_are_patched_by_one_build_and_one_plan(
    project: Project, server: Prefork, debugger: str, tmp_path: Path
) -> None:
    everybody = [server.master, *server.workers()]
    for pid in everybody:
        server.ask(pid, "1")
    before = {pid: server.ask(pid, "1") for pid in everybody}
    assert {answer for answer, _ in before.values()} == {2}
    project.edit(ANSWER)
    runs, path = counting_compiler(tmp_path)

    done = ipbp("apply", debugger, "--yes", "--pid", numbers(everybody), PATH=path)

    assert done.outcomes() == dict.fromkeys(everybody, "patched")
    assert (done.status, done.total["outcome"], done.total["plans"]) == (0, "patched", 1)
    assert done.total["summary"] == {"processes": WORKERS + 1, "patched": WORKERS + 1}
    assert compiles(runs) == 1
    for pid in everybody:
        assert server.ask(pid, "1") == (1001, before[pid][1] + 1)

    again = ipbp("apply", debugger, "--pid", numbers(everybody))
    assert again.outcomes() == dict.fromkeys(everybody, "unchanged")
    assert again.status == 0

    assert ipbp("undo", debugger, "--pid", numbers(everybody)).outcomes() == dict.fromkeys(everybody, "undone")
    assert {server.ask(pid, "1")[0] for pid in everybody} == {2}
    nothing = ipbp("undo", debugger, "--pid", numbers(everybody))
    assert (nothing.status, set(nothing.outcomes().values())) == (0, {"ok"})


def test_children_are_patched_and_what_they_fork_inherits_it(project: Project, server: Prefork, debugger: str) -> None:
    family = {server.master, *server.workers()}
    project.edit(ANSWER)
    assert ipbp("apply", debugger, "--pid", str(server.master), "--children").outcomes() == dict.fromkeys(
        family, "patched"
    )
    heir = server.start_worker("fork")
    assert server.ask(heir, "1")[0] == 1001

    known = ipbp("status", debugger, "--pid", str(server.master), "--children").processes
    assert set(known) == {*family, heir}
    assert {pid: row["patches"][0]["inherited"] for pid, row in known.items()} == {
        **dict.fromkeys(family, 0),
        heir: server.master,
    }
    assert f"patch 1, inherited from process {server.master}: 1 function" in known[heir]["text"]

    # It runs the new code: there is nothing to do, and the next edit goes over the inherited patch.
    assert ipbp("apply", debugger, "--pid", str(server.master), "--children").outcomes()[heir] == "unchanged"
    project.edit(AGAIN)
    done = ipbp("apply", debugger, "--pid", str(server.master), "--children")
    assert done.outcomes() == dict.fromkeys([*family, heir], "patched")
    assert done.processes[heir]["patch"] == 2
    assert server.ask(heir, "1")[0] == 2001

    # Both are taken back where they were never applied, also when the parent is gone.
    server.end_master()
    assert ipbp("undo", debugger, "--pid", str(heir), "0").total["outcome"] == "undone"
    assert server.ask(heir, "1")[0] == 2


def test_all_or_none(project: Project, server: Prefork, debugger: str) -> None:
    family = [server.master, *server.workers()]
    for pid in family:
        server.ask(pid, "1")
    project.edit(ANSWER)
    # The last one may not map any more memory, which shows when the others are patched already.
    *before, last = family
    limits = resource.prlimit(last, resource.RLIMIT_AS)
    resource.prlimit(last, resource.RLIMIT_AS, (1, limits[1]))
    none = ipbp("apply", debugger, "--atomic", "--pid", numbers(family))
    resource.prlimit(last, resource.RLIMIT_AS, limits)
    assert none.processes[last]["error"]["code"] == "inject-failed", none
    said = {none.processes[pid]["error"]["fact"].partition(",")[0] for pid in before}
    assert said == {"patched and taken back before it ran on"}
    assert (none.status, none.total["outcome"]) == (1, "error")
    assert {server.ask(pid, "1")[0] for pid in family} == {2}
    assert all(not row["patches"] for row in ipbp("status", debugger, "--pid", numbers(family)).processes.values())

    done = ipbp("apply", debugger, "--atomic", "--pid", str(server.master), "--children")
    assert done.outcomes() == dict.fromkeys(family, "patched")
    assert (done.status, done.total["between"]) == (0, 0.0)
    assert done.total["stopped"] > 0
    assert {server.ask(pid, "1")[0] for pid in family} == {1001}


@contextmanager
def following(server: Prefork, debugger: str, *before: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`ipbp apply --follow` of the server's family; it is killed in the end. `before`: words before the command."""
    words = ["--pid", str(server.master), "--children", "--follow", "--yes", "--debugger", debugger, "--json"]
    command = [*before, sys.executable, "-m", "ipbp.cli.main", "apply", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        try:
            yield process
        finally:
            process.kill()


def next_row(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    row: dict[str, Any] = json.loads(process.stdout.readline())
    return row


def family_is_patched(process: subprocess.Popen[str], server: Prefork) -> None:
    for _ in [server.master, *server.workers()]:
        assert next_row(process)["outcome"] == "patched"


def test_what_is_started_by_exec_is_followed_and_runs_no_old_code(
    project: Project, pair: Prefork, debugger: str, tmp_path: Path
) -> None:
    project.edit(ANSWER)
    runs, path = counting_compiler(tmp_path)
    (worker,) = pair.workers()
    with following(pair, debugger, PATH=path) as process:
        assert next_row(process)["pid"] == pair.master
        # While the others are being patched, too.
        started = pair.start_worker("exec")
        rows = [next_row(process) for _ in (worker, started)]
        assert [(row["pid"], row["outcome"]) for row in rows] == [(worker, "patched"), (started, "patched")], rows
        assert pair.ask(started, "first")[0] == 1000
        assert pair.ask(started, "1")[0] == 1001
        process.send_signal(signal.SIGINT)
        total = next_row(process)
    assert (total["outcome"], total["notes"], total["plans"]) == ("patched", [], 2)
    assert compiles(runs) == 1
    assert pair.ask(pair.start_worker("exec"), "first")[0] == 1  # whoever is not followed is not held


@pytest.mark.slow
def test_what_may_not_be_held_is_followed_all_the_same(project: Project, pair: Prefork) -> None:
    project.edit(ANSWER)
    with following(pair, "gdb", "setpriv", "--bounding-set=-sys_admin") as process:
        family_is_patched(process, pair)
        started = pair.start_worker("exec")
        row = next_row(process)
        assert (row["pid"], row["outcome"]) == (started, "patched"), row
        process.send_signal(signal.SIGINT)
        total = next_row(process)
    assert total["outcome"] == "patched"
    (note,) = total["notes"]
    assert note.startswith("what is started later is not held until it is patched: ")


def test_what_is_held_goes_on_when_nobody_follows_any_more(project: Project, pair: Prefork) -> None:
    project.edit(ANSWER)
    with following(pair, "gdb") as process:
        family_is_patched(process, pair)
        known = {pair.master, *pair.workers()}
        pair.tell_master("exec")
        pair.wait_until(lambda: any(status_field(pid, "State")[:1] == "T" for pid in pair.children() - known))
        process.kill()
        pair.wait_until(lambda: set(pair.workers()) > known - {pair.master})
    (started,) = {*pair.workers()} - known
    assert pair.ask(started, "1")[0] in (2, 1001)


def test_ctrl_c_half_way_leaves_each_process_as_it_is_said(project: Project, server: Prefork, debugger: str) -> None:
    family = [server.master, *server.workers()]
    project.edit(ANSWER)
    words = ["--pid", numbers(family), "--debugger", debugger, "--json"]
    command = [sys.executable, "-m", "ipbp.cli.main", "apply", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as half:
        assert half.stdout is not None
        first = json.loads(half.stdout.readline())
        half.send_signal(signal.SIGINT)
        *rows, total = [first, *map(json.loads, half.stdout)]
    assert [row["pid"] for row in rows] == family
    assert (first["outcome"], total["outcome"], half.returncode) == ("patched", "partly", 5)
    assert rows[-1]["error"]["code"] == "interrupted"
    for row in rows:
        assert status_field(row["pid"], "TracerPid") == "0"
        assert server.ask(row["pid"], "1")[0] == (1001 if row["outcome"] == "patched" else 2), row

    assert ipbp("apply", debugger, "--pid", numbers(family)).status == 0
    assert {server.ask(pid, "1")[0] for pid in family} == {1001}


def test_what_goes_wrong_with_one_does_not_keep_the_others(
    project: Project, server: Prefork, debugger: str, gdb: str, tmp_path: Path
) -> None:
    good, traced = [server.master, *server.workers()[1:]], server.workers()[0]
    stranger = subprocess.Popen([shutil.copy(shutil.which("sleep") or "", tmp_path / "sleep"), "600"])
    zombie = subprocess.Popen(["true"])
    while status_field(zombie.pid, "State")[:1] != "Z":
        os.sched_yield()
    gone = subprocess.Popen(["true"])
    gone.wait()
    other = subprocess.Popen([gdb, "-nx", "-q", "-p", str(traced)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while status_field(traced, "TracerPid") == "0":
        assert other.poll() is None
    project.edit(ANSWER)

    everybody = [gone.pid, traced, *good, zombie.pid, stranger.pid, good[0]]
    done = ipbp("apply", debugger, "--pid", numbers(everybody))
    other.communicate(b"detach\nquit\n")
    stranger.kill()
    stranger.wait()
    zombie.wait()

    assert {pid: row["outcome"] for pid, row in done.processes.items() if pid in good} == dict.fromkeys(good, "patched")
    codes = {pid: row["error"]["code"] for pid, row in done.processes.items() if row["error"]}
    assert codes.pop(stranger.pid) == "no-commands"
    assert codes == {gone.pid: "process-missing", traced: "process-traced", zombie.pid: "process-ended"}
    assert (done.status, done.total["outcome"]) == (5, "partly")
    assert done.total["notes"] == [f"process {good[0]} was named more than once"]
    assert {server.ask(pid, "1")[0] for pid in good} == {1001}
    assert server.ask(traced, "1")[0] == 2


def test_all_that_run_a_program_are_found_and_another_build_has_a_plan_of_its_own(
    project: Project, server: Prefork, debugger: str
) -> None:
    family = [server.master, *server.workers()]
    with TemporaryDirectory() as folder:
        # Built from another text, and its file is replaced by the first build's again.
        kept = project.program.read_bytes()
        source = project.folder / "prefork.c"
        text = source.read_text()
        source.write_text(text.replace("return x + 1;", "return 3 * x + 7 * answered;"))
        project.program.unlink()
        subprocess.run(["gcc", "-g", "-O0", "prefork.c", "-o", project.program], cwd=project.folder, check=True)
        other = Prefork(project.program, Path(folder), 1)
        project.program.unlink()
        project.program.write_bytes(kept)
        project.program.chmod(0o755)
        source.write_text(text)
        project.edit(ANSWER)
        done = ipbp("apply", debugger, "--exe", str(project.program))
        strangers = [other.master, *other.workers()]
        said = {other.ask(pid, "1")[0] for pid in strangers}
        other.close()
    assert done.outcomes() == dict.fromkeys([*family, *strangers], "patched")
    assert done.total["plans"] > 1
    # Each is compared with the code that it really runs.
    assert said == {server.ask(pid, "1")[0] for pid in family} == {1001}


def counting_compiler(folder: Path) -> tuple[Path, str]:
    """A file that gets a line for each run of gcc, and the PATH that makes it so."""
    runs, bin = folder / "runs", folder / "bin"
    bin.mkdir()
    compiler = bin / "gcc"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {runs}\nexec {shutil.which("gcc")} "$@"\n')
    compiler.chmod(0o755)
    return runs, f"{bin}:{os.environ['PATH']}"


def compiles(runs: Path) -> int:
    return sum(" -c " in line for line in runs.read_text().splitlines())
