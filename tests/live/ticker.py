"""The ticking program in a terminal, in a debugger that a person would type to, and its source saved in all the ways
that editors have."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from cargo_project import build_cargo_project
from scenario import PROGRAMS
from terminal import Terminal

from ipbp.cli.path import load_line

VALUE = "ticks * 0 + "
"""In the line of `value` that returns, in each language."""
OPENED = "file = "
"""In a line at the beginning of `main`, of which the first of the source has it."""


@dataclass(frozen=True)
class Ticker:
    """The project in `folder`. `value` is in `source`; `other` is in `part`, with the number that it returns."""

    language: str

    folder: Path
    program: Path
    source: Path
    part: Path
    scope: str  # of its functions, as gdb wants them named
    unused: str  # a definition that changes nothing

    def line_of(self, text: str) -> int:
        """The first line of the source that has it."""
        return next(number for number, line in enumerate(self.source.read_text().splitlines(), 1) if text in line)

    def text(self, value: int) -> str:
        """The source, edited so that the program shows this."""
        return re.sub(r"ticks \* 0 \+ \d+", f"ticks * 0 + {value}", self.source.read_text(), count=1)

    def save_wrong(self) -> None:
        """What no compiler takes: it has no `tocks`."""
        text = self.source.read_text()
        assert text.count("ticks * 0") == 1
        self.source.write_text(text.replace("ticks * 0", "tocks * 0"))

    def save_part(self, number: int) -> None:
        self.part.write_text(re.sub(r"\d{3}", str(number), self.part.read_text(), count=1))

    def save(self, value: int, how: Callable[[Path, str], None] | None = None) -> None:
        (how or in_place)(self.source, self.text(value))

    def shown(self) -> tuple[int, int, int]:
        """What the program's two functions return now, and how often they were called."""
        file = self.folder / "out"
        if not file.exists() or file.stat().st_size < 24:
            return -1, -1, 0  # it has not begun yet
        value, other, count = struct.unpack("<3q", file.read_bytes()[:24])
        return value, other, count

    def wait_for(self, value: int) -> None:
        wait_until(lambda: self.shown()[0] == value, lambda: str(self.shown()))

    def is_ticking(self) -> bool:
        before = self.shown()[2]
        wait_until(lambda: self.shown()[2] > before + 3, lambda: "it does not go on")
        return True


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    """As most editors save: the new file takes the old one's name."""
    fresh = path.with_name(f".{path.name}.swp")
    fresh.write_text(text)
    fresh.replace(path)


def by_backup(path: Path, text: str) -> None:
    """As vim does by default: the old file is renamed, a new one is written, the old one removed."""
    old = path.with_name(f"{path.name}~")
    path.rename(old)
    path.write_text(text)
    old.unlink()


def in_pieces(path: Path, text: str) -> None:
    """Slowly, through one open file."""
    with path.open("w") as file:
        for at in range(0, len(text), 400):
            file.write(text[at : at + 400])
            file.flush()


WAYS = (in_place, by_rename, by_backup, in_pieces)


def build_ticker(folder: Path, language: str = "c") -> Ticker:
    """Compiled object by object, with a compile_commands.json, or by cargo. `language`: c, c++ or rust."""
    if language == "rust":
        project = build_cargo_project(folder, workspace="ticker")
        unused = "static _MORE: [u8; 2] = [0; 2];\n"
        return Ticker(
            language, folder, project.program, folder / "src/main.rs", folder / "src/other.rs", "ticker::", unused
        )
    compiler, name = {"c": ("gcc", "ticker.c"), "c++": ("g++", "ticker.cpp")}[language]
    folder.mkdir(parents=True)
    for file in (name, "ticker.h"):
        shutil.copy(PROGRAMS / file, folder)
    arguments = [compiler, "-g", "-O0", "-MD", "-c", name, "-o", "ticker.o"]
    subprocess.run(arguments, cwd=folder, check=True)
    subprocess.run([compiler, "ticker.o", "-o", "ticker", "-pthread"], cwd=folder, check=True)
    rows = [{"directory": str(folder), "file": name, "arguments": arguments}]
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    return Ticker(language, folder, folder / "ticker", folder / name, folder / "ticker.h", "", "static long more[2];\n")


class Typed:
    """A debugger at a terminal. `words`: its own for what both can do."""

    def __init__(self, terminal: Terminal, prompt: str, words: dict[str, str]) -> None:
        self.terminal = terminal
        self._prompt = re.escape(prompt)
        self._words = words

    def tell(self, line: str) -> str:
        """What is shown until the prompt is there again."""
        self.go(line)
        return self.terminal.wait_for(rf"{self._prompt}$")

    def go(self, line: str) -> None:
        """A line after which the program has the terminal."""
        self.terminal.type(self._words.get(line, line))

    def hears(self, line: str) -> bool:
        """Whether the program gets what is typed."""
        self.terminal.type(line)
        self.terminal.wait_for(f"heard {line}\n")
        return True

    def interrupt(self, end: str = "") -> str:
        """Ctrl-C, as often as it takes: lldb now and then loses one that comes while it lets the program go. `end` of
        what is shown, the prompt for the most part."""
        pattern = rf"(?:SIGINT|SIGSTOP)[\s\S]*{end or self._prompt + '$'}"
        for _ in range(10):
            self.terminal.press_ctrl_c()
            again = monotonic() + 3
            while monotonic() < again:
                self.terminal.read()
                if re.search(pattern, self.terminal.screen[-600:]):
                    return self.terminal.wait_for(pattern)
        raise AssertionError(self.terminal.screen[-2000:])


_WORDS = {
    "gdb": {},
    "lldb": {
        "continue": "process continue",
        "break slow": "breakpoint set --name slow",
        "attach": "process attach -p",
        "detach": "process detach",
    },
}


@contextmanager
def typed_to(name: str, path: str, ticker: Ticker, *more: str) -> Iterator[Typed]:
    """The debugger in a terminal, with the program and the plugin loaded, at its prompt."""
    if name == "gdb":
        line = ["-nx", "-q", "-iex", "set debuginfod enabled off", "-iex", "set style enabled off"]
        command = [path, *line, "-ex", load_line("gdb"), "--args", ticker.program, "out"]
    else:
        line = ["--no-lldbinit", "-O", "settings set use-color false", "-O", "settings set auto-confirm true"]
        command = [path, *line, "-O", load_line("lldb"), "--", ticker.program, "out"]
    with Terminal(command, ticker.folder) as terminal:
        words = {"break slow": f"break {ticker.scope}slow", **_WORDS[name]}
        typed = Typed(terminal, f"({name}) ", words)
        if name == "gdb":
            terminal.wait_for(r"\(gdb\) $")
            typed.tell("set confirm off")
        else:
            terminal.wait_for(r"target\.run-args.*\n\(lldb\) $")
        yield typed


def wait_until(is_true: Callable[[], bool], said: Callable[[], str], seconds: float = 30.0) -> None:
    deadline = monotonic() + seconds
    while not is_true():
        assert monotonic() < deadline, said()
        sleep(0.005)
