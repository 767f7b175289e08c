"""Stands in for rustc while cargo is asked how it would build a program: writes commands down and compiles nothing.

cargo does not look into what a compiler makes, only whether it is there. So each compile is recorded and leaves empty
files under the right names, in a target directory of ipbp's own, and cargo goes on to the next crate. A build script
is answered by a program that prints what the script printed in the user's own build. Nothing of the project runs.

Run by cargo as RUSTC_WRAPPER, as a script by itself: standard library only, and quick to start.
"""

import json
import os
import stat
import sys
from typing import NoReturn

RECORDS = "IPBP_CARGO_RECORDS"
"""Folder that gets one JSON file for each compile."""
SHADOW = "IPBP_CARGO_SHADOW"
TARGET = "IPBP_CARGO_TARGET"
"""The folder that cargo builds into now, and the one of the user's build."""

# What the user's build script printed is beside its OUT_DIR, and cargo tells that one.
_ANSWER = """#!/bin/sh
exec cat "$IPBP_CARGO_TARGET${OUT_DIR#"$IPBP_CARGO_SHADOW"}/../output"
"""


def main(argv: list[str]) -> None:
    """`argv`: rustc, or the user's workspace wrapper and rustc, and the arguments."""
    if "--crate-name" not in argv or "___" in argv or "-" in argv:
        _run(argv)  # a question about the compiler itself
    options = read_options(argv)
    record = {"arguments": argv, "directory": os.getcwd(), "environment": dict(os.environ)}
    path = os.path.join(os.environ[RECORDS], f"{os.getpid()}.json")
    with open(path + ".part", "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(record, file)
    os.rename(path + ".part", path)
    for name in outputs(options):
        with open(os.path.join(options["--out-dir"][-1], name), "w", encoding="utf-8"):
            pass
    if options["--crate-name"][-1].startswith("build_script_"):
        _answer(os.path.join(options["--out-dir"][-1], stem(options)))


def read_options(arguments: list[str]) -> dict[str, list[str]]:
    """The values of each option that takes one, by its name; those of `-C` by `-C name`."""
    found: dict[str, list[str]] = {}
    index = 0
    while index < len(arguments):
        word = arguments[index]
        name, equals, value = word.partition("=")
        if word in ("-C", "--codegen"):
            index += 1
            name, _, value = arguments[index].partition("=") if index < len(arguments) else ("", "", "")
            name = f"-C {name}"
        elif not equals and word.startswith("-"):
            index += 1
            value = arguments[index] if index < len(arguments) else ""
        if name.startswith("-"):
            found.setdefault(name, []).append(value)
        index += 1
    return found


def stem(options: dict[str, list[str]]) -> str:
    """Name of a crate's files without their ends."""
    return options["--crate-name"][-1] + options.get("-C extra-filename", [""])[-1]


def outputs(options: dict[str, list[str]]) -> tuple[str, ...]:
    """Names of the files that this compile is expected to leave in its folder (rustc book, "Emit")."""
    name = stem(options)
    made = [f"{name}.d"]
    for kind in options.get("--crate-type", ["bin"]) + (["bin"] if "--test" in options else []):
        made += {
            "bin": [name],
            "lib": [f"lib{name}.rlib", f"lib{name}.rmeta"],
            "rlib": [f"lib{name}.rlib", f"lib{name}.rmeta"],
            "proc-macro": [f"lib{name}.so"],
            "dylib": [f"lib{name}.so", f"lib{name}.rmeta"],
            "cdylib": [f"lib{name}.so"],
            "staticlib": [f"lib{name}.a"],
        }.get(kind, [])
    return tuple(made)


def _answer(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(_ANSWER)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


def _run(argv: list[str]) -> NoReturn:
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1:])
