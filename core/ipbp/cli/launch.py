"""`ipbp gdb -- ./app args` and `ipbp lldb -- ./app args`: the debugger, with the plugin loaded.

ipbp steps aside: the process becomes the debugger, so that terminal, signals and exit status are the debugger's own.
The words are not parsed by argparse, which would take the debugger's options for its own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from ipbp.cli.debuggers import DEBUGGERS, find_debugger
from ipbp.cli.engine_python import remember_engine_python
from ipbp.cli.path import load_line


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """For `--help` only: `launch` takes the words as they are."""
    for debugger in DEBUGGERS:
        subparsers.add_parser(
            debugger,
            help=f"start {debugger} with the plugin loaded",
            usage=f"ipbp {debugger} [{debugger} options] [-- program [arguments ...]]",
        )


def launch(debugger: str, words: Sequence[str]) -> NoReturn:
    """Become the debugger. Errors: those of `find_debugger` and `load_line`."""
    command = launch_command(debugger, find_debugger(debugger), words)
    remember_engine_python()
    os.execv(command[0], command)


def launch_command(debugger: str, path: str, words: Sequence[str]) -> list[str]:
    """The command line: what stands before `--` goes to the debugger, what stands after it is the program."""
    at = words.index("--") if "--" in words else len(words)
    options, program = list(words[:at]), list(words[at + 1 :])
    if debugger == "gdb":
        return [path, "-iex", load_line("gdb"), *options, *(["--args", *program] if program else [])]
    return [path, "-O", load_line("lldb"), *options, *(["--", *program] if program else [])]
