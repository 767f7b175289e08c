"""`ipbp path gdb|lldb`: where the plugin is, for the one line that loads it."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from ipbp.cli.debuggers import DEBUGGERS
from ipbp.errors import IpbpError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("path", help="print where the plugin for gdb or lldb is")
    parser.add_argument("debugger", choices=DEBUGGERS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    print(plugin_path(arguments.debugger))
    return 0


def plugin_path(debugger: str) -> Path:
    """The file that gdb sources, or the folder that lldb imports. Errors: `plugin-missing`."""
    spec = find_spec(f"{debugger}_ipbp")
    if spec is None or not spec.submodule_search_locations:
        raise IpbpError("plugin-missing", f"the {debugger} plugin is not installed", "Reinstall ipbp.")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    return folder / "gdb_ipbp.py" if debugger == "gdb" else folder


def load_line(debugger: str) -> str:
    """The debugger command that loads the plugin, as it stands in an init file."""
    path = plugin_path(debugger)
    if debugger == "gdb":
        return f"source {path}"
    quoted = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'command script import "{quoted}"'
