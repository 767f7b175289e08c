"""The programs whose edits are measured, each as its user would have it: built, running, with one function to edit.

`value` of the program is what the edited function answers; it names the generation of the code that runs. Of C and C++
programs the unit is compiled by the recorded command, and linked by whichever linker is asked for.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bench_witness
from bench_inputs import source_of
from bench_types import TEMPLATES
from bench_witness import Witness, wait_until

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from source_packages import unpack

LINKERS = ("bfd", "lld", "mold")
MAIN = (
    bench_witness.C
    + """\
long value(void);
long (*current)(void) = value;
volatile long forced = -1;
static long answer(void) { return forced >= 0 ? forced : current(); }
int main(void) { witness(answer); }
"""
)
SMALL_UNIT = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
%s
static long calls;
long value(void) { calls++; return %d; }
"""
CXX_UNIT = """\
%s
static std::vector<item> none;
extern "C" long value(void) { static const std::string empty; return work(none, empty); }
"""


class Program(ABC):
    """One program in `folder`. `beyond`: milliseconds beyond the compiler that are aimed at, or 0."""

    name: str
    beyond = 0.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def build(self) -> None:
        """Write the sources and build them all, generation 0."""

    @abstractmethod
    def edit(self, generation: int) -> None:
        """Write the source in which the function answers this."""

    def prepare(self, linker: str) -> None:  # noqa: B027
        """What a build with this linker needs once."""

    @abstractmethod
    def compile(self) -> float:
        """Compile what was edited as the user's build does; milliseconds, or 0 where that is done together with the
        link."""

    @abstractmethod
    def link(self, linker: str) -> None:
        """What is left of the user's build after an edit, with this linker."""

    def rebuild(self) -> None:
        """The program as its sources are, by a fast linker."""
        self.compile()
        self.link("mold")

    @abstractmethod
    def start(self) -> subprocess.Popen[bytes]:
        """The program, which is at work and has answered once."""

    @abstractmethod
    def value(self) -> int: ...

    @abstractmethod
    def since(self) -> float:
        """Seconds of `time.perf_counter()` at which the value was new."""

    def forget_gap(self) -> None:  # noqa: B027
        """The longest stop begins anew."""

    def gap_ms(self) -> float | None:
        """The longest stop since then as the program saw it; None where it does not tell."""
        return None

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start()
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for(self, generation: int) -> None:
        wait_until(lambda: self.value() == generation, f"generation {generation} of {self.name}")


class Witnessed(Program):
    """One that tells by a file."""

    program: str

    def start(self) -> subprocess.Popen[bytes]:
        self._witness = Witness(self.folder)
        self._witness.forget()
        null = subprocess.DEVNULL
        process = subprocess.Popen([self.folder / self.program], cwd=self.folder, stdin=null, stdout=null)
        wait_until(lambda: self._witness.value() >= 0, f"the start of {self.name}")
        return process

    def value(self) -> int:
        return self._witness.value()

    def since(self) -> float:
        return self._witness.since()

    def forget_gap(self) -> None:
        self._witness.forget_gap()

    def gap_ms(self) -> float | None:
        return self._witness.gap_ms()


class Units(Witnessed):
    """A few sources and a compile_commands.json."""

    unit: str
    compiler = "gcc"
    flags: tuple[str, ...] = ("-g", "-O2")
    program = "program"

    def texts(self, generation: int) -> dict[str, str]:
        raise NotImplementedError

    def build(self) -> None:
        for name, text in self.texts(0).items():
            (self.folder / name).write_text(text)
        rows = []
        self.objects = []
        for name in self.texts(0):
            words = self.command(name)
            subprocess.run(words, cwd=self.folder, check=True)
            rows.append({"directory": str(self.folder), "file": name, "arguments": words})
            self.objects.append(words[-1])
        (self.folder / "compile_commands.json").write_text(json.dumps(rows))
        self.link("bfd")

    def command(self, name: str) -> list[str]:
        compiler = self.compiler if name == self.unit else "gcc"
        return [compiler, *self.flags, "-c", name, "-o", str(Path(name).with_suffix(".o"))]

    def edit(self, generation: int) -> None:
        (self.folder / self.unit).write_text(self.texts(generation)[self.unit])

    def compile(self) -> float:
        """Milliseconds of the compiler for the edited unit."""
        began = time.perf_counter()
        subprocess.run(self.command(self.unit), cwd=self.folder, check=True)
        return 1000 * (time.perf_counter() - began)

    def link(self, linker: str) -> None:
        words = [self.compiler, *linker_flags(linker), *self.objects, "-o", self.program, "-pthread", "-rdynamic"]
        subprocess.run(words, cwd=self.folder, check=True)

    def address_of(self, pid: int, name: str) -> int:
        """Of a function, in the process."""
        said = subprocess.run(["nm", self.folder / self.program], capture_output=True, text=True, check=True).stdout
        offset = next(int(row.split()[0], 16) for row in said.splitlines() if row.split()[-1] == name)
        with open(f"/proc/{pid}/maps") as maps:
            return int(maps.readline().split("-")[0], 16) + offset


class SmallC(Units):
    """A unit of some 250 lines with three headers of the C library."""

    name = "small C file"
    unit = "unit.c"
    beyond = 12.0

    def texts(self, generation: int) -> dict[str, str]:
        return {"main.c": MAIN, "unit.c": SMALL_UNIT % (source_of(12, 0), generation)}


class Templates(Units):
    """A unit full of the standard library's templates: half a megabyte of debug information and more."""

    name = "template-heavy C++ unit"
    unit = "unit.cpp"
    compiler = "g++"
    flags = ("-g", "-O2", "-w")
    beyond = 60.0

    def texts(self, generation: int) -> dict[str, str]:
        text = TEMPLATES.replace("    std::smatch", f"    if (all.empty()) return {generation};\n    std::smatch")
        return {"main.c": MAIN, "unit.cpp": CXX_UNIT % text}


class Redis(Program):
    """Redis from the distribution's source package, at -O2, without link-time optimisation; its largest unit but one
    is edited."""

    name = "redis, -O2"
    _SETTINGS = ("OPTIMIZATION=-O2", "MALLOC=libc", "BUILD_TLS=no", "USE_SYSTEMD=no")
    _EDITED = "        addReply(c,shared.pong);\n"

    def build(self) -> None:
        tree = unpack("redis", self.folder)
        self._src = tree.folder / "src"
        make = ["make", "-C", "src", "--silent", "-j2", f"CC={tree.recorder}", *self._SETTINGS]
        tree.run("sh", "-c", 'exec "$@" 2>/dev/null', "sh", *make, "redis-server")
        rows = [row for row in tree.commands() if Path(str(row["directory"])) == self._src]
        (self._src / "compile_commands.json").write_text(json.dumps(rows))
        self._text = (self._src / "server.c").read_text()
        if self._text.count(self._EDITED) != 1:
            raise SystemExit("this redis is another one: its PING cannot be edited")
        self._compile = [word for row in rows if row["file"] == "server.c" for word in _words(row)]
        self._link_command = _link_command(tree.record, "redis-server")

    def edit(self, generation: int) -> None:
        text = self._text.replace(self._EDITED, f"        addReplyLongLong(c,{generation});\n")
        (self._src / "server.c").write_text(text)

    def compile(self) -> float:
        began = time.perf_counter()
        subprocess.run(self._compile, cwd=self._src, check=True)
        return 1000 * (time.perf_counter() - began)

    def link(self, linker: str) -> None:
        subprocess.run([*self._link_command, *linker_flags(linker)], cwd=self._src, check=True)

    def start(self) -> subprocess.Popen[bytes]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = ["--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        process = subprocess.Popen([self._src / "redis-server", *words], cwd=self._src, stdout=subprocess.DEVNULL)
        self._client = _Client(port)
        wait_until(lambda: self._client.value >= 0, "the start of redis")
        return process

    def value(self) -> int:
        return self._client.value

    def since(self) -> float:
        return self._client.since


class _Client(threading.Thread):
    """A client that asks all the time, as fast as it is answered but for a pause of 0.2 ms, until redis ends."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.value, self.since, self._port = -1, 0.0, port
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self._port))
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.0003)
        with connection:
            try:
                while True:
                    connection.sendall(b"PING\r\n")
                    answer = connection.recv(100)
                    value = int(answer[1:]) if answer.startswith(b":") else 0
                    if value != self.value:
                        self.since = time.perf_counter()
                        self.value = value
                    if not answer:
                        return
                    time.sleep(0.0002)
            except ConnectionError:
                return


def linker_flags(linker: str) -> list[str]:
    """What gcc is told, and where it finds a linker that the distribution gave a version in its name."""
    if linker != "lld":
        return [f"-fuse-ld={linker}"]
    found = shutil.which("ld.lld")
    versioned = sorted(Path("/usr/bin").glob("ld.lld-*"))
    if found is None and not versioned:
        raise SystemExit("there is no lld; scripts/setup installs it")
    folder = Path(versioned[-1]).resolve().parent if found is None else Path(found).resolve().parent
    return [f"-B{folder}", "-fuse-ld=lld"]


def _words(row: dict[str, object]) -> Sequence[str]:
    words = row["arguments"]
    assert isinstance(words, list)
    return words


def _link_command(record: Path, program: str) -> list[str]:
    """The command that made the program, from what the recorder wrote down."""
    fields = iter(record.read_text().split("\0")[:-1])
    for _directory in fields:
        words = [next(fields) for _ in range(int(next(fields)))]
        if "-o" in words and words[words.index("-o") + 1] == program and "-c" not in words:
            return ["gcc", *words]
    raise SystemExit(f"nothing linked {program}")
