"""`ipbp init vscode`: launch configurations that load the plugin, for the three debuggers that VS Code has for native
programs. What else is in launch.json stays as it is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ipbp.cli.engine_python import remember_engine_python
from ipbp.cli.path import load_line

Configuration = dict[str, Any]

_MARK = "ipbp: "
"""How the names of our configurations begin; others are not ours to change."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("vscode", help="write launch configurations for VS Code")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="of the workspace (this one)")
    parser.add_argument("--program", default="${workspaceFolder}/build/app", help="what they start")
    parser.add_argument("--watch", action="store_true", help="with watch mode on from the start")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file, or print the pieces where it is not plain JSON (VS Code allows comments, which would be lost)."""
    file: Path = arguments.folder / ".vscode" / "launch.json"
    ours = configurations(arguments.program, arguments.watch)
    remember_engine_python()
    old = file.read_text() if file.exists() else '{"version": "0.2.0", "configurations": []}'
    try:
        text = with_configurations(old, ours)
    except ValueError:
        print(f"{file} has comments, which would be lost. Add these to its configurations:")
        print(json.dumps(ours, indent=4))
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    names = ", ".join(f'"{row["name"]}"' for row in ours)
    print(f"{file} has {names}.\nType `hotpatch` in the debug console; docs/ides says how in each of them.")
    return 0


def configurations(program: str, watch: bool) -> list[Configuration]:
    """For the extensions LLDB DAP, CodeLLDB and C/C++ (cpptools), by what their documentation says."""
    common = {"request": "launch", "program": program, "args": [], "cwd": "${workspaceFolder}"}
    gdb, lldb, more = load_line("gdb"), load_line("lldb"), ["hotpatch watch on"] if watch else []
    return [
        {"name": f"{_MARK}lldb-dap", "type": "lldb-dap", **common, "initCommands": [lldb], "preRunCommands": more},
        {"name": f"{_MARK}CodeLLDB", "type": "lldb", **common, "initCommands": [lldb], "preRunCommands": more},
        {
            "name": f"{_MARK}cpptools with gdb",
            "type": "cppdbg",
            **common,
            "MIMode": "gdb",
            "setupCommands": [{"text": f"-interpreter-exec console {json.dumps(line)}"} for line in [gdb, *more]],
        },
    ]


def with_configurations(text: str, ours: list[Configuration]) -> str:
    """launch.json with these in place of earlier ones of ours. `ValueError` when it is not plain JSON."""
    row = json.loads(text)
    if not isinstance(row, dict) or not isinstance(row.get("configurations", []), list):
        raise ValueError("no launch.json")
    theirs = [c for c in row.get("configurations", []) if not str(c.get("name", "")).startswith(_MARK)]
    return json.dumps({"version": "0.2.0", **row, "configurations": [*theirs, *ours]}, indent=4) + "\n"
