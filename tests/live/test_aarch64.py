"""AArch64 programs that run in qemu-user, patched by gdb through its stub: code, state, more patches, and back."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
SYSROOT = "/usr/aarch64-linux-gnu"
SOURCE = Path(__file__).parent / "programs" / "metronome.c"
WAYS = {
    "gcc, pie": (["-g", "-O0"], ["-pthread"], False),
    "gcc -O2 with branch protection, lld": (
        ["-g", "-O2", "-mbranch-protection=standard", "-ffunction-sections", "-fdata-sections"],
        ["-pthread", "-fuse-ld=lld"],
        True,
    ),
    "clang -O2, static": (["-g", "-O2", "-fno-pie", "-fdata-sections"], ["-pthread", "-static"], True),
}


@dataclass
class Metronome:
    folder: Path
    port: int
    process: subprocess.Popen[str]

    def session(self, *commands: str) -> str:
        """What gdb prints; a command that fails is shown and the next one is carried out."""
        lines = ["set pagination off", "set confirm off", f"set sysroot {SYSROOT}", "file metronome"]
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
        text = f"import pathlib; p = pathlib.Path({str(self.folder / 'metronome.c')!r}); "
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
    way, *arguments = getattr(request, "param", ["gcc, pie"])
    compile_options, link_options, needs_clang = WAYS[way]
    shutil.copy(SOURCE, tmp_path)
    driver = [clang, "--target=aarch64-linux-gnu"] if needs_clang else [aarch64]
    compiler = driver if "clang" in way else [aarch64]
    command = [*compiler, *compile_options, "-c", "metronome.c", "-o", "metronome.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([*driver, "metronome.o", *link_options, "-o", "metronome"], cwd=tmp_path, check=True)
    row = {"directory": str(tmp_path), "file": "metronome.c", "arguments": command}
    (tmp_path / "compile_commands.json").write_text(json.dumps([row]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    qemu = ["qemu-aarch64", "-L", SYSROOT, "-g", str(port), "./metronome", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(qemu, cwd=tmp_path, **output) as process:
        yield Metronome(tmp_path, port, process)
        process.kill()


@pytest.mark.parametrize("metronome", [[way] for way in WAYS], indirect=True, ids=list(WAYS))
def test_code_is_replaced_again_and_taken_back(metronome: Metronome) -> None:
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
    outcomes = [json.loads(line)["outcome"] for line in said.splitlines() if line.startswith('{"')]
    assert outcomes == ["patched", "patched", "undone", "undone"], said
    rows = metronome.printed()
    assert [row[1] for row in rows] == [0, 2, 207, 307, 407, 5040, 6041, 7042, 16, 18, 20], said
    # Variables of the process and of the thread go on, whichever code counts them.
    assert [row[2] for row in rows] == [102 + 2 * n for n in range(11)]


def test_what_is_refused_leaves_the_program_alone(metronome: Metronome) -> None:
    said = metronome.session(
        "tbreak tick if n == 2",
        "continue",
        metronome.edit("beats++;", "static __thread int more = 3; beats += more;"),
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
