"""The demonstration: a program with three threads is changed while it runs, in a real gdb and in a real lldb.

Everything happens in a temporary folder. The debuggers are started as `ipbp gdb` and `ipbp lldb` start them, and are
typed to through a terminal.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from difflib import unified_diff
from pathlib import Path

from terminal import Terminal

Say = Callable[[str, str], None]
"""kind of line ("note", "typed", "output", "added", "removed", "result"), text"""

PROGRAM = """\
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static int customers;

int price(int items)
{
    return items * 10;
}

__attribute__((noinline)) static void serve(int till)
{
    flockfile(stdout);
    printf("till %d: customer %d pays %d\\n", till, ++customers, price(3));
    fflush(stdout);
    funlockfile(stdout);
}

static void *open_till(void *number)
{
    for (;;) {
        serve((int)(long)number);
        usleep(200000);
    }
    return NULL;
}

int main(void)
{
    pthread_t tills[3];
    for (long i = 0; i < 3; i++) pthread_create(&tills[i], NULL, open_till, (void *)(i + 1));
    for (int i = 0; i < 3; i++) pthread_join(tills[i], NULL);
    return 0;
}
"""

EDITS = (
    ("    return items * 10;", "    return items * 10 * 80 / 100;"),
    ("customer %d pays %d\\n", "customer %d pays only %d, it is happy hour\\n"),
)
BUILD = (
    ["gcc", "-g", "-O2", "-pthread", "-c", "shop.c", "-o", "shop.o"],
    ["gcc", "-pthread", "shop.o", "-o", "shop"],
)
OPTIONS = {"gdb": ["-nx", "-q"], "lldb": ["--no-lldbinit"]}
QUIET = {
    "gdb": ["set pagination off", "set confirm off", "set print thread-events off", "set debuginfod enabled off"],
    "lldb": ["settings set use-color false", "settings set auto-confirm true"],
}
# In both the prompt stays ours while the program runs: lldb gives the terminal to a program whose input it is.
START = {
    "gdb": "run > out.txt &",
    "lldb": "process launch --stdin /dev/null --stdout out.txt --stderr /dev/null",
}


def demonstrate(debugger: str, say: Say) -> None:
    """Build, run, edit, patch, undo; ends with SystemExit when anything does not happen as it should."""
    with tempfile.TemporaryDirectory(prefix="ipbp-demo-") as name:
        folder = Path(name)
        say("note", f"# a program with three threads, built as anybody would, and started under {debugger}")
        build(folder, say)
        command = [sys.executable, "-m", "ipbp.cli.main", debugger, *OPTIONS[debugger], "--", "./shop"]
        say("typed", f"$ ipbp {debugger} -- ./shop")
        try:
            with Terminal(command, folder) as terminal:
                _session(debugger, terminal, folder, say)
        finally:
            end_programs_of(folder)


def end_programs_of(folder: Path) -> None:
    """End what still runs out of this folder: lldb's programs outlive an lldb that was ended by force."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "exe").readlink().is_relative_to(folder):
                os.kill(int(process.name), signal.SIGKILL)
        except (OSError, ValueError):  # not ours to look at, or gone meanwhile
            continue


def build(folder: Path, say: Say) -> None:
    (folder / "shop.c").write_text(PROGRAM)
    for command in BUILD:
        say("typed", f"$ {shlex.join(command)}")
        subprocess.run(command, cwd=folder, check=True)
    database = [{"directory": str(folder), "file": "shop.c", "arguments": BUILD[0]}]
    (folder / "compile_commands.json").write_text(json.dumps(database))


def _session(debugger: str, terminal: Terminal, folder: Path, say: Say) -> None:
    prompt = f"({debugger})"

    def enter(line: str) -> None:
        say("typed", f"{prompt} {line}")
        terminal.type(line)

    terminal.wait_for_text(rf"^\({debugger}\)")
    for line in QUIET[debugger]:
        terminal.type(line)
        terminal.wait_for_text(rf"^\({debugger}\)")
    enter(START[debugger])
    _show(terminal, folder, "pays 30", say)

    say("note", "# the program goes on; meanwhile, in an editor:")
    _edit(folder, say)
    enter("hotpatch")
    say("result", terminal.wait_for_text(r"patched \d.*\n|^.*\[[a-z0-9-]+\]$"))
    _show(terminal, folder, "pays only 24, it is happy hour", say)

    enter("hotpatch undo")
    _show(terminal, folder, "pays 30", say)
    enter("kill" if debugger == "gdb" else "process kill")
    terminal.type("quit")
    terminal.wait_for_end()


def _show(terminal: Terminal, folder: Path, text: str, say: Say) -> None:
    """Wait until three new lines in a row say so, and show them."""
    output = folder / "out.txt"
    seen = len(_lines(output))

    def newest() -> list[str]:
        return _lines(output)[seen:][-3:]

    terminal.wait_for(lambda: len(newest()) == 3 and all(line.endswith(text) for line in newest()), repr(text))
    for line in newest():
        say("output", f"    {line}")


def _lines(path: Path) -> list[str]:
    """The complete lines of the program's output so far."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def _edit(folder: Path, say: Say) -> None:
    source = folder / "shop.c"
    old = source.read_text()
    new = old
    for before, after in EDITS:
        assert new.count(before) == 1
        new = new.replace(before, after)
    source.write_text(new)
    for line in unified_diff(old.splitlines(), new.splitlines(), n=0):
        if line[:1] in "+-" and line[:3] not in ("+++", "---"):
            say("added" if line[0] == "+" else "removed", line)


def say_on_terminal(kind: str, text: str) -> None:
    colours = {"note": "2", "typed": "1", "added": "32", "removed": "31", "result": "36;1"}
    colour = colours.get(kind) if sys.stdout.isatty() and "NO_COLOR" not in os.environ else None
    print(f"\x1b[{colour}m{text}\x1b[0m" if colour else text, flush=True)


def main(words: Sequence[str]) -> None:
    if set(words) - {"gdb", "lldb"}:
        raise SystemExit("usage: scripts/demo [gdb] [lldb]")
    for debugger in words or ("gdb", "lldb"):
        demonstrate(debugger, say_on_terminal)
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
