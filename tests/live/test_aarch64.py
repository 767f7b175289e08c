"""AArch64 programs that run in qemu-user, patched by gdb through its stub: code, state, more patches, and back."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
RUST_TARGET = "aarch64-unknown-linux-gnu"
_STEPS = ("compile", "link")
SYSROOT = "/usr/aarch64-linux-gnu"
PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Way:
    """How a program is made: `target`: that clang compiles, or links, instead of gcc."""

    source: str
    compile: tuple[str, ...]
    link: tuple[str, ...] = ("-pthread",)
    target: tuple[str, ...] = ()


WAYS = {
    "gcc, pie": Way("metronome.c", ("-g", "-O0")),
    "gcc -O2 with branch protection, lld": Way(
        "metronome.c",
        ("-g", "-O2", "-mbranch-protection=standard", "-ffunction-sections", "-fdata-sections"),
        ("-pthread", "-fuse-ld=lld"),
        ("link",),
    ),
    "clang -O2, static": Way(
        "metronome.c", ("-g", "-O2", "-fno-pie", "-fdata-sections"), ("-pthread", "-static"), ("compile", "link")
    ),
    "g++ -O2": Way("thrower.cpp", ("-g", "-O2")),
}
C = [name for name, way in WAYS.items() if way.source == "metronome.c"]


@dataclass
class Metronome:
    """The program in qemu, which waits for gdb at `port`."""

    folder: Path
    source: str
    program: str
    port: int
    process: subprocess.Popen[str]

    def session(self, *commands: str) -> str:
        """What gdb prints; a command that fails is shown and the next one is carried out."""
        lines = ["set pagination off", "set confirm off", f"set sysroot {SYSROOT}", f"file {self.program}"]
        lines += [f"target remote :{self.port}", f"source {ROOT}/gdb_ipbp/gdb_ipbp.py"]
        for command in commands:
            lines += ["python", f"try: gdb.execute({command!r})", "except gdb.error as error: print(error)", "end"]
        script = self.folder / "session.gdb"
        script.write_text("\n".join([*lines, "kill", ""]))
        done = subprocess.run(
            ["gdb-multiarch", "-nx", "-batch", "-x", script],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        return done.stdout + done.stderr

    def edit(self, old: str, new: str) -> str:
        """The command of a session that edits the source."""
        text = f"import pathlib; p = pathlib.Path({str(self.folder / self.source)!r}); "
        text += f"t = p.read_text(); assert {old!r} in t; p.write_text(t.replace({old!r}, {new!r}))"
        return f"python exec({text!r})"

    def printed(self) -> list[list[int]]:
        """Its lines: the beat's number, what `beat` made of it, both counters."""
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()
        return [[int(word) for word in line.split()] for line in lines if re.fullmatch(r"\d+ -?\d+ \d+", line)]


@pytest.fixture
def metronome(request: pytest.FixtureRequest, tmp_path: Path, clang: str, aarch64: str) -> Iterator[Metronome]:
    name, *arguments = getattr(request, "param", ["gcc, pie"])
    way = WAYS[name]
    shutil.copy(PROGRAMS / way.source, tmp_path)
    own = aarch64.replace("gcc", "g++") if way.source.endswith(".cpp") else aarch64
    drivers = {step: [clang, "--target=aarch64-linux-gnu"] if step in way.target else [own] for step in _STEPS}
    command = [*drivers["compile"], *way.compile, "-c", way.source, "-o", "unit.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([*drivers["link"], "unit.o", *way.link, "-o", "program"], cwd=tmp_path, check=True)
    row = {"directory": str(tmp_path), "file": way.source, "arguments": command}
    (tmp_path / "compile_commands.json").write_text(json.dumps([row]))
    with in_qemu(tmp_path, way.source, "./program", *arguments) as metronome:
        yield metronome


@contextmanager
def in_qemu(folder: Path, source: str, *program: str) -> Iterator[Metronome]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    qemu = ["qemu-aarch64", "-L", SYSROOT, "-g", str(port), *program]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(qemu, cwd=folder, **output) as process:
        yield Metronome(folder, source, program[0], port, process)
        process.kill()


def outcomes(said: str) -> list[str]:
    return [json.loads(line)["outcome"] for line in said.splitlines() if line.startswith('{"')]


RUST = """use std::sync::atomic::{AtomicI32, Ordering};
static COUNT: AtomicI32 = AtomicI32::new(0);
#[inline(never)]
fn speak(n: i32) -> i32 {
    COUNT.fetch_add(1, Ordering::SeqCst);
    n * 2
}
#[inline(never)]
fn tick(n: i32) {
    println!("{} {} {}", n, speak(n), COUNT.load(Ordering::SeqCst));
}
fn main() {
    for n in 0.. {
        tick(n);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
"""


def test_a_crate_is_patched(tmp_path: Path, aarch64: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / ".cargo").mkdir()
    (tmp_path / "src/main.rs").write_text(RUST)
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "beats"\nversion = "0.1.0"\nedition = "2021"\n')
    (tmp_path / ".cargo/config.toml").write_text(f"[target.{RUST_TARGET}]\nlinker = {json.dumps(aarch64)}\n")
    subprocess.run(["cargo", "build", "--quiet", "--offline", "--target", RUST_TARGET], cwd=tmp_path, check=True)
    with in_qemu(tmp_path, "src/main.rs", f"target/{RUST_TARGET}/debug/beats") as metronome:
        said = metronome.session(
            "tbreak beats::tick if n == 2",
            "continue",
            metronome.edit("n * 2", "n * 100 + 7"),
            "hotpatch --json",
            "tbreak beats::tick if n == 5",
            "continue",
            "hotpatch undo --json",
            "tbreak beats::tick if n == 7",
            "continue",
        )
        assert outcomes(said) == ["patched", "undone"], said
        assert [row[1:] for row in metronome.printed()] == [
            [0, 1],
            [2, 2],
            [207, 3],
            [307, 4],
            [407, 5],
            [10, 6],
            [12, 7],
        ]


def _replace_again_and_take_back(metronome: Metronome) -> None:
    said = metronome.session(
        "tbreak tick if n == 2",
        "continue",
        metronome.edit("return n * 2;", "return n * 100 + 7;"),
        "hotpatch --json",
        "tbreak tick if n == 5",
        "continue",
        metronome.edit("return n * 100 + 7;", "static int fresh = 40; return n * 1000 + fresh++;"),
        "hotpatch --json",
        "tbreak tick if n == 8",
        "continue",
        "hotpatch undo --json",
        "hotpatch undo --json",
        "tbreak tick if n == 11",
        "continue",
    )
    assert outcomes(said) == ["patched", "patched", "undone", "undone"], said
    rows = metronome.printed()
    assert [row[1] for row in rows] == [0, 2, 207, 307, 407, 5040, 6041, 7042, 16, 18, 20], said
    # Variables of the process and of the thread go on, whichever code counts them.
    assert [row[2] for row in rows] == [102 + 2 * n for n in range(11)]


@pytest.mark.parametrize("metronome", [[way] for way in C], indirect=True, ids=C)
def test_code_is_replaced_again_and_taken_back(metronome: Metronome) -> None:
    _replace_again_and_take_back(metronome)


@pytest.mark.parametrize("metronome", [[way] for way in C], indirect=True, ids=C)
def test_code_is_replaced_when_its_object_is_gone(metronome: Metronome) -> None:
    (metronome.folder / "unit.o").unlink()
    _replace_again_and_take_back(metronome)


HEADER = """
inline int &counter() { static int count = 100; return count; }
inline int twice(int n) { counter()++; return 2 * n; }
template <class T> T least(T a, T b) { counter()++; return a < b ? a : b; }
"""
USES = """
#include "shared.h"
int used(int n) { return twice(n) + least(n, 3); }
"""
EDITED = """
#include <cstdio>
#include <unistd.h>
#include "shared.h"
int used(int n);
__attribute__((noinline)) int speak(int n) { return n * 2; }
__attribute__((noinline)) void tick(int n) { int said = speak(n); std::printf("%d %d %d\\n", n, said, used(n)); }
int main() {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    for (int n = 0;; n++, usleep(20000)) tick(n);
}
"""


@pytest.mark.parametrize("compiler", ["g++", "clang"])
def test_what_other_files_have_of_a_header_is_found_in_the_program(
    compiler: str, tmp_path: Path, clang: str, aarch64: str
) -> None:
    own = aarch64.replace("gcc", "g++")
    driver = [own] if compiler == "g++" else [clang, "--target=aarch64-linux-gnu"]
    rows = []
    for name, text in (("shared.h", HEADER), ("uses.cpp", USES), ("edited.cpp", EDITED)):
        (tmp_path / name).write_text(text)
        if name.endswith(".cpp"):
            command = [*driver, "-g", "-O0", "-c", name, "-o", f"{name}.o"]
            subprocess.run(command, cwd=tmp_path, check=True)
            rows.append({"directory": str(tmp_path), "file": name, "arguments": command})
    (tmp_path / "compile_commands.json").write_text(json.dumps(rows))
    subprocess.run([own, "uses.cpp.o", "edited.cpp.o", "-o", "program"], cwd=tmp_path, check=True)
    with in_qemu(tmp_path, "edited.cpp", "./program") as metronome:
        said = metronome.session(
            "tbreak tick if n == 2",
            "continue",
            metronome.edit("return n * 2;", "return twice(n) + least(n, 9) + 1000 * counter();"),
            "hotpatch --json",
            "tbreak tick if n == 5",
            "continue",
        )
        assert outcomes(said) == ["patched"], said
        # Both files count in one variable.
        new = [3 * n + 1000 * (102 + 4 * (n - 1)) for n in (2, 3, 4)]
        assert [row[1] for row in metronome.printed()] == [0, 2, *new], said


LIBRARY = """
static __thread long own[2] = {5, 6};
__thread long shared = 7;
long tell(long n) { own[1] += n; shared += n; return own[1] + shared; }
"""
USER = """
#include <stdio.h>
#include <unistd.h>
long tell(long n);
__thread long before = 1000;
__attribute__((noinline)) void tick(long n) { before++; printf("%ld %ld %ld\\n", n, tell(n), before); }
int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    for (long n = 0;; n++, usleep(20000)) tick(n);
}
"""


def test_a_librarys_variables_of_threads_are_where_they_were(tmp_path: Path, aarch64: str) -> None:
    rows = []
    for name, text in (("library", LIBRARY), ("user", USER)):
        (tmp_path / f"{name}.c").write_text(text)
        command = [aarch64, "-g", "-O2", "-fPIC", "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
        rows.append({"directory": str(tmp_path), "file": f"{name}.c", "arguments": command})
    (tmp_path / "compile_commands.json").write_text(json.dumps(rows))
    subprocess.run([aarch64, "-shared", "library.o", "-o", "liblibrary.so"], cwd=tmp_path, check=True)
    subprocess.run([aarch64, "user.o", tmp_path / "liblibrary.so", "-o", "program"], cwd=tmp_path, check=True)
    with in_qemu(tmp_path, "library.c", "./program") as metronome:
        said = metronome.session(
            f"set solib-search-path {tmp_path}",
            "tbreak tick if n == 3",
            "continue",
            metronome.edit("return own[1] + shared;", "return 1000 * own[1] + shared;"),
            "hotpatch --json",
            "tbreak tick if n == 6",
            "continue",
        )
        assert outcomes(said) == ["patched"], said
        sums = [0, 1, 3, 6, 10, 15]
        old, new = [[13 + 2 * n, 1001 + at] for at, n in enumerate(sums)], [6007 + 1001 * n for n in sums]
        rows = [row[1:] for row in metronome.printed()]
        assert rows == [*old[:3], *([new[at], 1001 + at] for at in (3, 4, 5))], said


@pytest.mark.parametrize("metronome", [["g++ -O2"]], indirect=True)
def test_new_code_throws_and_catches_and_is_called_through_tables(metronome: Metronome) -> None:
    said = metronome.session(
        "tbreak tick if n == 2",
        "continue",
        metronome.edit('"odd "', '"very odd "'),
        metronome.edit("return side * side;", "return side * 100;"),
        "hotpatch --json",
        "tbreak tick if n == 6",
        "continue",
        "hotpatch undo --json",
        "tbreak tick if n == 9",
        "continue",
    )
    assert outcomes(said) == ["patched", "undone"], said
    assert [row[1:] for row in metronome.printed()] == [
        *([9, 1], [-5, 1], [302, 1], [-10, 1], [304, 1], [-10, 1]),
        *([15, 1], [-5, 1], [17, 1]),
    ]


DYNAMIC = [name for name in C if "static" not in name]


@pytest.mark.parametrize("metronome", [[way] for way in DYNAMIC], indirect=True, ids=DYNAMIC)
def test_a_new_variable_of_threads_begins_with_its_value(metronome: Metronome) -> None:
    said = metronome.session(
        "tbreak tick if n == 2",
        "continue",
        metronome.edit("beats++;", "static __thread int more = 3; static __thread long rest[3] = {7, 0, 50}; beats++;"),
        metronome.edit("return n * 2;", "rest[2] += 100; more++; return n + more * 1000 + (int)rest[2];"),
        "hotpatch --json",
        "tbreak tick if n == 5",
        "continue",
        metronome.edit("return n + more * 1000", "static __thread int most = 90000; return n + most + more * 1000"),
        "hotpatch --json",
        "tbreak tick if n == 7",
        "continue",
        "hotpatch undo --json",
        "hotpatch undo --json",
        "tbreak tick if n == 9",
        "continue",
    )
    assert outcomes(said) == ["patched", "patched", "undone", "undone"], said
    new = [n + 1000 * (n + 2) + 50 + 100 * (n - 1) for n in range(2, 7)]
    assert [row[1] for row in metronome.printed()] == [0, 2, *new[:3], 90000 + new[3], 90000 + new[4], 14, 16], said


LATER = """
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline)) int beat(int n) { return n * 2; }
__attribute__((noinline)) void tick(int n) { int got = beat(n); printf("%d %d 0\\n", n, got); }
static void *work(void *unused) { tick(100); tick(101); return unused; }
int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int n = 0; n < 8; n++, usleep(20000)) {
        pthread_t thread;
        if (n == 5 && !pthread_create(&thread, 0, work, 0)) pthread_join(thread, 0);
        tick(n);
    }
}
"""


def test_a_later_thread_has_new_variables_of_its_own(tmp_path: Path, aarch64: str) -> None:
    (tmp_path / "later.c").write_text(LATER)
    command = [aarch64, "-g", "-O1", "-fPIC", "-c", "later.c", "-o", "later.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "compile_commands.json").write_text(
        json.dumps([{"directory": str(tmp_path), "file": "later.c", "arguments": command}])
    )
    subprocess.run([aarch64, "later.o", "-pthread", "-o", "program"], cwd=tmp_path, check=True)
    with in_qemu(tmp_path, "later.c", "./program") as metronome:
        said = metronome.session(
            "tbreak tick if n == 3",
            "continue",
            metronome.edit(
                "return n * 2;", "static __thread int own = 7; static __thread char zero; return own++ + zero;"
            ),
            "hotpatch --json",
            "continue",
        )
        assert outcomes(said) == ["patched"], said
        rows = [row[:2] for row in metronome.printed()]
        assert rows == [[0, 0], [1, 2], [2, 4], [3, 7], [4, 8], [100, 7], [101, 8], [5, 9], [6, 10], [7, 11]], said


@pytest.mark.parametrize("metronome", [["clang -O2, static"]], indirect=True)
def test_what_is_refused_leaves_the_program_alone(metronome: Metronome) -> None:
    said = metronome.session(
        "tbreak tick if n == 2",
        "continue",
        metronome.edit("beats++;", "static __thread int more = 3; beats += more++;"),
        "hotpatch",
        "tbreak tick if n == 4",
        "continue",
    )
    assert "new-thread-local" in said, said
    assert [row[1] for row in metronome.printed()] == [0, 2, 4, 6]


@pytest.mark.parametrize("metronome", [["gcc, pie", "thread"]], indirect=True)
def test_a_stub_that_does_not_stop_all_threads_is_told(metronome: Metronome) -> None:
    said = metronome.session(
        "tbreak tick if n == 2",
        "continue",
        metronome.edit("return n * 2;", "return n * 100 + 7;"),
        "hotpatch",
        "tbreak tick if n == 4",
        "continue",
    )
    assert "inferior-running" in said
    assert [row[1] for row in metronome.printed()][:4] == [0, 2, 4, 6]
