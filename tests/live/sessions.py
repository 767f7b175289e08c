"""gdb and lldb with the plugin loaded, told the same things in the same words.

What a program's state is, is asked of the kernel, not of the debugger: that is what the user's program feels.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Protocol

from debuggers import Gdb, Lldb
from lldb_servers import platform_server, process_server
from scenario import PROGRAMS, Project, Talk

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.outcome import find_outcome
from ipbp.cli.path import load_line

Outcome = dict[str, Any]


class Session(Protocol):
    """One debugger, its program stopped or in the background."""

    name: str
    pid: int

    def tell(self, line: str) -> str: ...

    def go(self, line: str) -> None:
        """A command that lets the program run."""

    def attach(self, pid: int) -> None: ...

    def launch(self, program: Path, folder: Path, *, stop_at_entry: bool = False) -> None:
        """Start it, stopped at `main` or before that in the dynamic loader. It reads from the fifo `in` and writes to
        the file `out`, both in `folder`."""

    def resume(self) -> None: ...

    def stop(self) -> None: ...

    def is_stopped(self) -> bool:
        """As far as the user can see."""

    def wait_until_stopped(self) -> None: ...

    def where(self) -> str:
        """What is shown of the innermost frame."""

    def read(self, address: int, size: int) -> bytes:
        """Memory as the debugger shows it."""

    def step(self, count: int = 1) -> None:
        """Instructions of the selected thread."""

    def break_at(
        self, function: str = "", line: int = 0, address: int = 0, condition: str = "", file: str = "talk.c"
    ) -> None: ...

    def delete_breakpoints(self) -> None: ...

    def evaluate(self, expression: str) -> int: ...

    def call(self, words: str) -> Outcome:
        """`hotpatch WORDS`, waited for until its outcome is there."""

    def detach(self) -> None: ...

    def kill_debugger(self) -> None:
        """As the out-of-memory killer would."""

    def has_died(self) -> bool:
        """Whether it was killed, waited for."""

    @property
    def process_id(self) -> int:
        """Of the debugger."""


@contextmanager
def debug_with(name: str, path: str) -> Iterator[Any]:
    """A session of `name` ("gdb", "gdbserver", "lldb", or lldb behind an "lldb-server" or "lldb-gdbserver"), which is
    ended in any case."""
    if name in ("gdb", "gdbserver"):
        with Gdb(path) as gdb:
            yield (GdbSession if name == "gdb" else GdbserverSession)(gdb)
    elif name == "lldb-gdbserver":
        with ExitStack() as servers, Lldb(path) as lldb:
            yield LldbGdbserverSession(lldb, servers)
    else:
        with _platform(name) as url, Lldb(path) as lldb:
            yield LldbServerSession(lldb, url) if url else LldbSession(lldb)


@contextmanager
def debugged(program: Path, debugger: str) -> Iterator[tuple[Any, Talk]]:
    """The program, running in the background of a session that has attached to it; it is killed in the end."""
    talk = Talk(program)
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(talk.process.pid)
            session.resume()
            yield session, talk
    finally:
        talk.kill()


@contextmanager
def _platform(name: str) -> Iterator[str]:
    if name == "lldb":
        yield ""
        return
    with TemporaryDirectory() as folder, platform_server(Path(folder)) as url:
        yield url


class GdbSession:
    """gdb over its machine interface."""

    name = "gdb"

    def __init__(self, gdb: Gdb) -> None:
        self._gdb = gdb
        self.pid = 0
        said = self.tell(load_line("gdb"))
        assert "rror" not in said, said

    def tell(self, line: str) -> str:
        return self._gdb.tell(line)

    def attach(self, pid: int) -> None:
        self.pid = pid
        self._gdb.stopped = False
        self.tell(f"attach {pid}")
        self._gdb.wait_until(lambda: self._gdb.stopped)

    def launch(self, program: Path, folder: Path, *, stop_at_entry: bool = False) -> None:
        self.tell(f"file {program}")
        if not stop_at_entry:
            self.tell("tbreak main")
        self.go(f"{'starti' if stop_at_entry else 'run'} < {folder}/in > {folder}/out")
        self.wait_until_stopped()
        self.pid = int(self.tell("python print(gdb.selected_inferior().pid)"))

    def resume(self) -> None:
        self.go("continue &")

    def stop(self) -> None:
        self.tell("interrupt")
        self.wait_until_stopped()

    def is_stopped(self) -> bool:
        self.tell("echo")
        return self._gdb.stopped

    def wait_until_stopped(self) -> None:
        self._gdb.wait_until(lambda: self._gdb.stopped)

    def where(self) -> str:
        return self.tell("frame")

    def read(self, address: int, size: int) -> bytes:
        return _bytes_shown(self.tell(f"x/{size}xb {address:#x}"))

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.go("stepi")
            self.wait_until_stopped()

    def break_at(
        self, function: str = "", line: int = 0, address: int = 0, condition: str = "", file: str = "talk.c"
    ) -> None:
        place = function or (f"{file}:{line}" if line else f"*{address:#x}")
        said = self.tell(f"break {place}" + (f" if {condition}" if condition else ""))
        assert "reakpoint" in said, said

    def delete_breakpoints(self) -> None:
        self.tell("delete")

    def evaluate(self, expression: str) -> int:
        return int(self.tell(f'printf "<%ld>", (long) ({expression})').rpartition("<")[2].rpartition(">")[0])

    def call(self, words: str) -> Outcome:
        said = self.tell(f"hotpatch {words} --json")
        if find_outcome(said) is None:
            self._gdb.wait_until(lambda: find_outcome(self._gdb.text) is not None)
        outcome = find_outcome(self._gdb.text)
        assert outcome is not None, said
        return outcome

    def detach(self) -> None:
        self.tell("detach")

    def kill_debugger(self) -> None:
        self._gdb.process.kill()
        self._gdb.process.wait()

    def has_died(self) -> bool:
        return self._gdb.process.wait(10) == -signal.SIGKILL

    @property
    def process_id(self) -> int:
        return int(self._gdb.process.pid)

    def go(self, line: str) -> None:
        """A command that lets the program run."""
        self.tell(line)
        self._gdb.wait_until(lambda: any(row["message"] == "running" for row in self._gdb.records))


@contextmanager
def _while_stopped(session: Session) -> Iterator[None]:
    """What a user does behind a stub, where a running program is not stopped by ipbp."""
    if session.is_stopped():
        yield
        return
    session.stop()
    yield
    session.resume()


class GdbserverSession(GdbSession):
    """gdb, its program behind gdbserver: `kind` of target, what `wraps` the server's command, and its `sysroot`."""

    name = "gdbserver"
    kind = "remote"
    wraps = ""
    sysroot = "/"

    def attach(self, pid: int) -> None:
        self.pid = pid
        if self.kind == "extended-remote":
            self.connect("--once --multi -")
            self._gdb.stopped = False
            self.tell(f"attach {pid}")
        else:
            self._gdb.stopped = False
            self.connect(f"--once --attach - {pid}")
        self._gdb.wait_until(lambda: self._gdb.stopped)

    def launch(self, program: Path, folder: Path, *, stop_at_entry: bool = False) -> None:
        # What the server starts has no terminal and no files of ours: a shell redirects.
        self.tell(f"file {program}")
        self.connect(f"--once - {program} < {folder}/in > {folder}/out")
        if not stop_at_entry:
            self.tell("tbreak main")
            self.go("continue")
            self.wait_until_stopped()
        self.pid = int(self.tell("python print(gdb.selected_inferior().pid)"))

    def call(self, words: str) -> Outcome:
        with _while_stopped(self):
            return super().call(words)

    def stop(self) -> None:
        # At gdb's `interrupt` gdbserver (13) sends this to the program's process group, of which ours is no leader.
        os.kill(self.pid, signal.SIGINT)
        self.wait_until_stopped()

    def connect(self, server: str) -> None:
        self.tell(f"set sysroot {self.sysroot}")
        said = self.tell(f"target {self.kind} | {self.wraps} gdbserver {server}")
        assert "Remote debugging" in said or "rror" not in said, said


class LldbSession:
    """lldb in asynchronous mode, over a pipe."""

    name = "lldb"

    def __init__(self, lldb: Lldb) -> None:
        self._lldb = lldb
        self.pid = 0
        self._went = 0  # length of the history when the program was last let go
        said = self.tell(load_line("lldb"))
        assert "rror" not in said, said

    def tell(self, line: str) -> str:
        said = self._lldb.tell(line)
        # Without the echo of the line.
        return said.partition("\n")[2] if said.startswith("(lldb)") else said

    def attach(self, pid: int) -> None:
        self.pid = pid
        self.go(f"process attach -p {pid}")
        self.wait_until_stopped()

    def launch(self, program: Path, folder: Path, *, stop_at_entry: bool = False) -> None:
        self.tell(f"file {program}")
        if not stop_at_entry:
            self.tell("breakpoint set --one-shot true --name main")
        entry = "--stop-at-entry " if stop_at_entry else ""
        self.go(f"process launch {entry}--stdin {folder}/in --stdout {folder}/out --stderr {folder}/err")
        self.wait_until_stopped()
        self.pid = int(self._python("lldb.debugger.GetSelectedTarget().GetProcess().GetProcessID()"))

    def resume(self) -> None:
        self.go("process continue")

    def stop(self) -> None:
        # lldb loses an interrupt now and then that comes while it is still about to let the program go: so again, as a
        # user would.
        self.tell("process interrupt")
        again = monotonic() + 3.0

        def is_stopped() -> bool:
            nonlocal again
            if monotonic() > again:
                again = monotonic() + 3.0
                if re.search(r"Process \d+ stopped", self.tell("process status")):
                    return True
                self.tell("process interrupt")
            return self.is_stopped()

        self._lldb.wait_until(is_stopped)

    def is_stopped(self) -> bool:
        # By what lldb has shown: `process status` is late to tell that the program goes on.
        self.tell("version")
        return re.search(r"Process \d+ stopped\n", self._lldb.history[self._went :]) is not None

    def wait_until_stopped(self) -> None:
        self._lldb.wait_until(self.is_stopped)

    def where(self) -> str:
        return self.tell("frame info")

    def read(self, address: int, size: int) -> bytes:
        return _bytes_shown(self.tell(f"x/{size}xb {address:#x}"))

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.go("thread step-inst")
            self.wait_until_stopped()

    def break_at(
        self, function: str = "", line: int = 0, address: int = 0, condition: str = "", file: str = "talk.c"
    ) -> None:
        place = f"--name {function}" if function else f"--file {file} --line {line}" if line else f"--address {address}"
        said = self.tell(f"breakpoint set {place}" + (f" --condition '{condition}'" if condition else ""))
        assert "Breakpoint" in said, said

    def delete_breakpoints(self) -> None:
        self.tell("breakpoint delete --force")

    def evaluate(self, expression: str) -> int:
        return int(self._python(f"lldb.frame.EvaluateExpression('(long)({expression})').GetValueAsSigned()"))

    def call(self, words: str) -> Outcome:
        said = self.tell(f"hotpatch {words} --json")
        if find_outcome(said) is None:
            self._lldb.wait_until(lambda: find_outcome(self._lldb.text) is not None)
        outcome = find_outcome(self._lldb.text)
        assert outcome is not None, said
        return outcome

    def detach(self) -> None:
        self.tell("process detach")

    def kill_debugger(self) -> None:
        self._lldb.process.kill()
        self._lldb.process.wait()

    def has_died(self) -> bool:
        return self._lldb.process.wait(10) == -signal.SIGKILL

    @property
    def process_id(self) -> int:
        return int(self._lldb.process.pid)

    def go(self, line: str) -> None:
        """A command that lets the program run."""
        self._went = len(self._lldb.history)
        self.tell(line)

    def _python(self, expression: str) -> str:
        said = self.tell(f"script print('<' + str({expression}) + '>')")
        return said.rpartition("<")[2].partition(">")[0]


class BehindLldbServer(LldbSession):
    """lldb, its program behind an lldb-server. `stops_first`: the user stops it for each command, not ipbp."""

    stops_first = True

    def call(self, words: str) -> Outcome:
        if not self.stops_first:
            return super().call(words)
        with _while_stopped(self):
            return super().call(words)


class LldbServerSession(BehindLldbServer):
    """The server is a platform at `url`."""

    name = "lldb-server"

    def __init__(self, lldb: Lldb, url: str) -> None:
        super().__init__(lldb)
        self._url = url

    def attach(self, pid: int) -> None:
        self.tell("platform select remote-linux")
        said = self.tell(f"platform connect {self._url}")
        assert "Connected: yes" in said, said
        super().attach(pid)


class LldbGdbserverSession(BehindLldbServer):
    """The server is there for the program alone, and ends with `servers`. `wraps` its command. `passes`: what leads to
    its host and port, given as a link to them."""

    name = "lldb-gdbserver"
    wraps: Sequence[str] = ()
    passes: Callable[[str], AbstractContextManager[str]] = nullcontext

    def __init__(self, lldb: Lldb, servers: ExitStack) -> None:
        super().__init__(lldb)
        self._servers = servers

    def attach(self, pid: int) -> None:
        self.pid = pid
        self._connect("--attach", pid, wraps=self.wraps)

    def launch(self, program: Path, folder: Path, *, stop_at_entry: bool = False) -> None:
        """The server gives the program a terminal, which is lldb's business: what
        it writes there lldb shows, what it reads comes from nowhere."""
        self._connect("--", program, wraps=self.wraps)
        if not stop_at_entry:
            self.tell("breakpoint set --one-shot true --name main")
            self.go("process continue")
            self.wait_until_stopped()
        self.pid = int(self._python("lldb.debugger.GetSelectedTarget().GetProcess().GetProcessID()"))

    def wait_until_shown(self, pattern: str) -> list[str]:
        """Everywhere where it is in what lldb has shown, the launched program's lines among it."""
        self._lldb.wait_until(lambda: re.search(pattern, self._lldb.history, re.M) is not None)
        return re.findall(pattern, self._lldb.history, re.M)

    def _connect(self, *process: object, wraps: Sequence[str]) -> None:
        place = self._servers.enter_context(process_server(*process, wraps=wraps))
        self.go(f"gdb-remote {self._servers.enter_context(self.passes(place))}")
        self.wait_until_stopped()


def _bytes_shown(lines: str) -> bytes:
    # "0x1139 <body>:   0xe9 0x02" or "0x1139: 0xe9 0x02"
    return bytes(int(word, 16) for line in re.findall("^0x.*:(.*)", lines, re.M) for word in line.split())


def answer(talk: Talk, session: Session, line: str = "") -> tuple[str, int]:
    """What the program says to `line`, continued at every stop on the way; the number of stops."""
    assert talk.process.stdout is not None
    if line:
        talk.tell(line)
    stops = 0
    deadline = monotonic() + 30
    while not select.select([talk.process.stdout], [], [], 0.01)[0]:
        assert monotonic() < deadline, (stops, session.tell("echo"))
        if session.is_stopped():
            stops += 1
            session.resume()
    return talk.hear(), stops


def build_one(
    folder: Path, name: str, *flags: str, compiler: str = "gcc", link: Sequence[str] = (), suffix: str = "c"
) -> Project:
    """The program of `programs/NAME.c`, with a compile_commands.json."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROGRAMS / f"{name}.{suffix}", folder)
    compile_it = [compiler, "-D_GNU_SOURCE", *flags, "-g", "-c", f"{name}.{suffix}", "-o", f"{name}.o"]
    subprocess.run(compile_it, cwd=folder, check=True)
    rows = [{"directory": str(folder), "file": f"{name}.{suffix}", "arguments": compile_it}]
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    program = folder / name
    subprocess.run([compiler, *link, f"{name}.o", "-o", str(program), "-pthread"], cwd=folder, check=True)
    return Project(folder, program)


def read_memory(pid: int, address: int, size: int) -> bytes:
    """What is really there, traps and all."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), size, address)


def code_of(pid: int) -> bytes:
    """All bytes of the executable's code."""
    program = os.readlink(f"/proc/{pid}/exe")
    rows = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    places = [row[0].split("-") for row in rows if row[1] == "r-xp" and row[-1] == program]
    return b"".join(read_memory(pid, int(low, 16), int(high, 16) - int(low, 16)) for low, high in places)


def states(pid: int) -> list[str]:
    """The state of each thread: S sleeps in the kernel, R runs, t is stopped by a debugger (proc_pid_stat(5))."""
    found = []
    for task in list(Path(f"/proc/{pid}/task").iterdir()):
        try:
            found.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found


def is_stopped(pid: int) -> bool:
    return all(state == "t" for state in states(pid))


def ipbp(verb: str, pid: int, debugger: str, *more: str) -> Outcome:
    """One `ipbp VERB --pid PID --json`."""
    words: Sequence[str] = [sys.executable, "-m", "ipbp.cli.main", verb, "--pid", str(pid), "--debugger", debugger]
    done = subprocess.run([*words, "--json", *more], capture_output=True, text=True, timeout=120, check=False)
    outcome = find_outcome(done.stdout)
    assert outcome is not None, done.stdout + done.stderr
    return outcome
