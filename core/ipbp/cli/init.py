"""`ipbp init gdb|lldb`: the line that loads the plugin, added to the user's init file once, and shown."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from ipbp.cli import init_vscode
from ipbp.cli.debuggers import DEBUGGERS
from ipbp.cli.engine_python import remember_engine_python
from ipbp.cli.path import load_line

_LOADS = {
    "gdb": re.compile(r"^\s*source\s+.*gdb_ipbp\.py\s*$"),
    "lldb": re.compile(r"^\s*command script import .*lldb_ipbp"),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("init", help="load the plugin whenever gdb, lldb or VS Code starts")
    kinds = parser.add_subparsers(required=True, metavar="debugger")
    for debugger in DEBUGGERS:
        kinds.add_parser(debugger, help=f"add a line to {debugger}'s init file").set_defaults(
            run=run, debugger=debugger
        )
    init_vscode.add_parser(kinds)


def run(arguments: argparse.Namespace) -> int:
    file, line = init_file(arguments.debugger), load_line(arguments.debugger)
    old = file.read_text() if file.exists() else ""
    new = with_line(old, line, _LOADS[arguments.debugger])
    remember_engine_python()
    if new == old:
        print(f"{file} loads ipbp already:\n  {line}")
        return 0
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(new)
    print(f"added to {file}:\n  {line}")
    return 0


def init_file(debugger: str) -> Path:
    """The file that the debugger reads at start.

    gdb reads $XDG_CONFIG_HOME/gdb/gdbinit and, when that is not there, ~/.gdbinit (gdb manual, "Initialization
    Files"); lldb reads ~/.lldbinit.
    """
    home = Path.home()
    if debugger == "lldb":
        return home / ".lldbinit"
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(home / ".config")
    modern = Path(configuration) / "gdb" / "gdbinit"
    return modern if modern.exists() else home / ".gdbinit"


def with_line(text: str, line: str, loads: re.Pattern[str]) -> str:
    """`text` with `line` in it once: a line that loads the plugin from elsewhere is replaced where it stands."""
    rows = text.splitlines()
    places = [number for number, row in enumerate(rows) if loads.match(row)]
    if [rows[number] for number in places] == [line]:
        return text
    kept = [row for number, row in enumerate(rows) if number not in places[1:]]
    if places:
        kept[places[0]] = line
    else:
        kept.append(line)
    return "\n".join(kept) + "\n"
