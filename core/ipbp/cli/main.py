"""The `ipbp` command: what works from a shell, without a debugger open.

Exit status of everything that patches: 0 patched or nothing to do, 3 refused, 2 usage, 5 some of several processes, 1
anything else; `ipbp.cli.apply` says more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module

from ipbp import __version__
from ipbp.cli import apply, consent, init, launch, path, watch
from ipbp.cli.debuggers import DEBUGGERS
from ipbp.errors import IpbpError


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = sys.argv[1:] if words is None else words
    try:
        if words and words[0] in DEBUGGERS and list(words[1:]) not in (["-h"], ["--help"]):
            launch.launch(words[0], words[1:])
        arguments = parser(words[0] if words else "").parse_args(words)
        status: int = arguments.run(arguments)
    except IpbpError as error:
        if "--json" in words:
            print(json.dumps({"outcome": "error", "error": error.to_json()}))
        else:
            print(f"ipbp: {error}", file=sys.stderr)
        return 1
    return status


_LINKER_COMMANDS = {
    "diff": "what changed between two object files",
    "link": "link object files against a program's file, with no process",
    "build-patch": "write what differs between two build trees to a patch file",
    "inspect": "what is in a patch file, and which builds it fits",
}


def parser(wanted: str) -> argparse.ArgumentParser:
    """All commands. Each command's module adds its own; some bring the readers of object files with them, which take
    half a second to load, so they are only imported when they are `wanted`."""
    top = argparse.ArgumentParser(prog="ipbp", description="Change the code of a running program.")
    top.add_argument("--version", action="version", version=f"ipbp {__version__}")
    subparsers = top.add_subparsers(required=True, metavar="command")
    apply.add_parsers(subparsers)
    watch.add_parsers(subparsers)
    consent.add_parser(subparsers)
    for command, what in _LINKER_COMMANDS.items():
        if command == wanted:
            import_module(f"ipbp.cli.{command.replace('-', '_')}").add_parser(subparsers)
        else:
            subparsers.add_parser(command, help=what)
    path.add_parser(subparsers)
    launch.add_parsers(subparsers)
    init.add_parser(subparsers)
    return top


if __name__ == "__main__":
    sys.exit(main())
