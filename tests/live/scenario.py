"""The talking program, its edits, and what it must answer before and after each of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from time import monotonic, sleep

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Edit:
    """`replace`: text in `file` -> new text. `ask`: command -> (answer before, answer after)."""

    name: str
    file: str
    replace: Sequence[tuple[str, str]]
    ask: Sequence[tuple[str, str, str]]
    functions: Sequence[str]


EDITS = (
    Edit("body", "talk.c", [("return x + 1; }", "return x + 1000; }")], [("body 5", "6", "1005")], ["body"]),
    Edit(
        "new string",
        "talk.c",
        [('"hello from the old code"', '"hello from the new code, which is longer"')],
        [("greeting", "hello from the old code", "hello from the new code, which is longer")],
        ["greeting"],
    ),
    Edit(
        "new function and new static",
        "talk.c",
        [
            (
                "__attribute__((noinline)) int uses_helper(int x) {\n    int helped = helper(x);",
                "static int extra_calls = 40;\n"
                "__attribute__((noinline)) static int added(int x) { extra_calls += 1; return x + extra_calls; }\n"
                "__attribute__((noinline)) int uses_helper(int x) {\n    int helped = added(helper(x));",
            )
        ],
        [("uses_helper 1", "4", "46"), ("uses_helper 1", "5", "48")],
        ["uses_helper", "added"],
    ),
    Edit(
        "local static kept and renumbered",
        "talk.c",
        [
            (
                "    static int count = 500;\n    count += x;\n    return count;",
                "    static int fresh = 7;\n    static int count = 500;\n"
                "    count += x;\n    fresh += 1;\n    return count * 10 + fresh;",
            )
        ],
        [("counted_too 1", "501", "5028"), ("counted 1", "101", "101")],
        ["counted_too"],
    ),
    Edit(
        "recursion",
        "talk.c",
        [("return n <= 0 ? 0 : n + recursive(n - 1); }", "return n <= 0 ? 7 : 2 * n + recursive(n - 1); }")],
        [("recursive 10", "55", "117")],
        ["recursive"],
    ),
    Edit(
        "functions of the C library that the program never imported",
        "talk.c",
        [("return s[0] != 0; }", 'return (int)strlen(s) + (getppid() > 0) + (strcasestr(s, "LENGTH") != 0); }')],
        [("text_length", "1", "14")],
        ["text_length"],
    ),
    Edit(
        "switch table",
        "shape.c",
        [("case 5: return value << 3;", "case 5: return value << 4;\n    case 7: return value + 70;")],
        [("shape 5 2", "16", "32"), ("shape 7 2", "0", "72"), ("shape 1 9", "81", "81"), ("shape 6 9", "-9", "-9")],
        ["shape"],
    ),
    Edit("header", "talk.h", [("#define SCALE 10", "#define SCALE 100")], [("area 2 3", "60 1", "600 2")], ["area"]),
)


def edit_sources(folder: Path, edits: Sequence[Edit]) -> None:
    """Make these edits in the sources of `folder`."""
    for edit in edits:
        path = folder / edit.file
        text = path.read_text()
        for old, new in edit.replace:
            assert text.count(old) == 1, f"{edit.name}: {old!r} must stand once in {edit.file}"
            text = text.replace(old, new)
        path.write_text(text)


@dataclass(frozen=True)
class Project:
    """Sources, objects and program in one folder with a compile_commands.json, all built by the test."""

    folder: Path
    program: Path

    def edit(self, *edits: Edit) -> None:
        edit_sources(self.folder, edits)


def build_project(
    folder: Path, compiler: str, flags: Sequence[str], more: str = "", edits: Sequence[Edit] = ()
) -> Project:
    """Compile the talking program object by object and link it, as a make would. `more`: the text of one more file.
    `edits`: made before that."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = ["talk.c", "shape.c", *(["more.c"] if more else [])]
    for name in ["talk.c", "shape.c", "talk.h"]:
        shutil.copy(PROGRAMS / name, folder / name)
    if more:
        (folder / "more.c").write_text(more)
    edit_sources(folder, edits)
    commands = []
    for name in sources:
        arguments = [compiler, "-D_GNU_SOURCE", *flags, "-g", "-MD", "-c", name, "-o", name.replace(".c", ".o")]
        subprocess.run(arguments, cwd=folder, check=True)
        commands.append({"directory": str(folder), "file": name, "arguments": arguments})
    (folder / "compile_commands.json").write_text(json.dumps(commands))
    pie = [flag for flag in flags if flag in ("-no-pie", "-pie", "-static")]
    program = folder / "talk"
    objects = [name.replace(".c", ".o") for name in sources]
    subprocess.run([compiler, *pie, *objects, "-o", str(program), "-pthread"], cwd=folder, check=True)
    return Project(folder, program)


class Talk:
    """A running program and its two pipes."""

    def __init__(self, program: Path, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", **environment},
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """A line of its output; a program that keeps silent for a minute is killed, and said nothing."""
        assert self.process.stdout is not None
        silence = Timer(60, self.process.kill)
        silence.start()
        try:
            return self.process.stdout.readline().decode().rstrip("\n")
        finally:
            silence.cancel()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def until_it_reads(self) -> None:
        """Until one of its threads waits for input (proc_pid_syscall(5): read from descriptor 0)."""
        deadline = monotonic() + 20
        while not any(call.startswith("0 0x0 ") for call in _system_calls(self.process.pid)):
            assert monotonic() < deadline, "nothing is read"
            sleep(0.005)

    def close(self) -> int:
        """End of input; the program's exit status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(timeout=20)
        self.process.stdout.close()
        return status

    def kill(self) -> None:
        """The end of a test that may have failed half-way."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _system_calls(pid: int) -> Iterator[str]:
    for task in list(Path(f"/proc/{pid}/task").iterdir()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            yield (task / "syscall").read_text()
