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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

RUST_PRICES = """\
pub fn price(items: u64) -> u64 {
    items * 10
}
"""
RUST_PROGRAM = """\
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

static CUSTOMERS: Mutex<u64> = Mutex::new(0);

fn serve(till: u64) {
    let mut customers = CUSTOMERS.lock().unwrap();
    *customers += 1;
    println!("till {till}: customer {customers} pays {}", prices::price(3));
}

fn main() {
    thread::scope(|scope| {
        for till in 1..=3 {
            scope.spawn(move || loop {
                serve(till);
                thread::sleep(Duration::from_millis(200));
            });
        }
    });
}
"""
PACKAGE = '[package]\nname = "{}"\nversion = "0.1.0"\nedition = "2021"\n'
HAPPY_HOUR = "pays only {}, it is happy hour"


@dataclass(frozen=True)
class Shop:
    """A small program. `files`: path -> text. `edits`: (file, old text, new text)."""

    files: Mapping[str, str]
    build: Sequence[Sequence[str]]
    program: str
    edits: Sequence[tuple[str, str, str]]
    database: str = ""


GCC = ["gcc", "-g", "-O2", "-pthread", "-c", "shop.c", "-o", "shop.o"]
C_SHOP = Shop(
    files={"shop.c": PROGRAM},
    build=(GCC, ["gcc", "-pthread", "shop.o", "-o", "shop"]),
    program="./shop",
    edits=(
        ("shop.c", "    return items * 10;", "    return items * 10 * 80 / 100;"),
        ("shop.c", "customer %d pays %d\\n", "customer %d pays only %d, it is happy hour\\n"),
    ),
    database="shop.c",
)
RUST_SHOP = Shop(
    files={
        "Cargo.toml": '[workspace]\nmembers = ["prices", "shop"]\nresolver = "2"\n',
        "prices/Cargo.toml": PACKAGE.format("prices"),
        "prices/src/lib.rs": RUST_PRICES,
        "shop/Cargo.toml": PACKAGE.format("shop") + '[dependencies]\nprices = { path = "../prices" }\n',
        "shop/src/main.rs": RUST_PROGRAM,
    },
    build=(["cargo", "build", "--quiet", "--offline"],),
    program="./target/debug/shop",
    edits=(
        ("prices/src/lib.rs", "    items * 10\n", "    items * 10 * 80 / 100\n"),
        ("shop/src/main.rs", "pays {}", HAPPY_HOUR),
    ),
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


def demonstrate(debugger: str, say: Say, shop: Shop = C_SHOP) -> None:
    """Build, run, edit, patch, undo; ends with SystemExit when anything does not happen as it should."""
    with tempfile.TemporaryDirectory(prefix="ipbp-demo-") as name:
        folder = Path(name)
        say("note", f"# a program with three threads, built as anybody would, and started under {debugger}")
        build(folder, say, shop)
        command = [sys.executable, "-m", "ipbp.cli.main", debugger, *OPTIONS[debugger], "--", shop.program]
        say("typed", f"$ ipbp {debugger} -- {shop.program}")
        try:
            with Terminal(command, folder) as terminal:
                _session(debugger, terminal, folder, say, shop)
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


def build(folder: Path, say: Say, shop: Shop = C_SHOP) -> None:
    for name, text in shop.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for command in shop.build:
        say("typed", f"$ {shlex.join(command)}")
        subprocess.run(command, cwd=folder, check=True)
    if shop.database:
        row = {"directory": str(folder), "file": shop.database, "arguments": shop.build[0]}
        (folder / "compile_commands.json").write_text(json.dumps([row]))


def _session(debugger: str, terminal: Terminal, folder: Path, say: Say, shop: Shop) -> None:
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
    _edit(folder, say, shop)
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


def _edit(folder: Path, say: Say, shop: Shop) -> None:
    for name, before, after in shop.edits:
        source = folder / name
        old = source.read_text()
        assert old.count(before) == 1
        new = old.replace(before, after)
        source.write_text(new)
        for line in unified_diff(old.splitlines(), new.splitlines(), n=0):
            if line[:1] in "+-" and line[:3] not in ("+++", "---"):
                say("added" if line[0] == "+" else "removed", line)


def say_on_terminal(kind: str, text: str) -> None:
    colours = {"note": "2", "typed": "1", "added": "32", "removed": "31", "result": "36;1"}
    colour = colours.get(kind) if sys.stdout.isatty() and "NO_COLOR" not in os.environ else None
    print(f"\x1b[{colour}m{text}\x1b[0m" if colour else text, flush=True)


def main(words: Sequence[str]) -> None:
    if set(words) - {"gdb", "lldb", "rust"}:
        raise SystemExit("usage: scripts/demo [rust] [gdb] [lldb]")
    shop = RUST_SHOP if "rust" in words else C_SHOP
    for debugger in [word for word in words if word != "rust"] or ("gdb", "lldb"):
        demonstrate(debugger, say_on_terminal, shop)
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
