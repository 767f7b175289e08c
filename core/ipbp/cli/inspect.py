"""`ipbp inspect FILE`: what a patch file holds and which builds it fits. No process is looked at.

Exit status: 0; errors are raised.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ipbp.host import render
from ipbp.patch_file import described, read_patch_file


def add_parser(subparsers: Any) -> None:
    """Add `inspect` to the parsers of the `ipbp` command."""
    parser = subparsers.add_parser("inspect", help="what is in a patch file, and which builds it fits")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what is in it; the exit status."""
    patch = read_patch_file(arguments.file)
    outcome = {"outcome": "ok", "file": str(arguments.file), **described(patch)}
    print(render.as_json(outcome) if arguments.json else render.as_text(outcome), end="")
    return 0
