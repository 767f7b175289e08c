"""`ipbp build-patch OLD NEW -o FILE`: what differs between two build trees, as a patch file. No process is needed.

Exit status: 0 written, 4 nothing differs, 3 refused, 2 usage; errors are raised.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ipbp.build.store import user_store
from ipbp.errors import Refused
from ipbp.host import render
from ipbp.host.commands import EXIT, failed
from ipbp.patch_file import described
from ipbp.pipeline.build_trees import patch_of_trees
from ipbp.pipeline.patch_making import write_patch_file


def add_parser(subparsers: Any) -> None:
    """Add `build-patch` to the parsers of the `ipbp` command."""
    parser = subparsers.add_parser(
        "build-patch",
        help="write what differs between two build trees to a patch file",
        description="Compare the objects of two build trees, before an edit and after it, with the programs and "
        "libraries that were linked from them, and write what a running process of the old build needs to a file.",
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="the tree of the build that runs, or a program in it")
    parser.add_argument("new", type=Path, metavar="NEW", help="the tree after the edit")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--allow-layout",
        action="append",
        default=[],
        metavar="TYPE",
        help="a type whose layout may change, because no value of it will be alive; `all`",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="units whose object is not in the tree were not edited"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and print what is in it; the exit status."""
    try:
        outcome = _written(arguments)
    except Refused as refused:
        outcome = failed(refused)
    text = render.as_json(outcome) if arguments.json else render.as_text(outcome)
    print(text, end="", file=sys.stdout)
    return EXIT[outcome["outcome"]]


def _written(arguments: argparse.Namespace) -> dict[str, Any]:
    found = patch_of_trees(
        arguments.old,
        arguments.new,
        arguments.allow_layout,
        arguments.allow_missing,
        user_store(),
        lambda _text: None,
    )
    if found is None:
        return {"outcome": "unchanged", "notes": ["the trees differ in nothing that runs; no file is written"]}
    return {"outcome": "ok", "file": str(arguments.output), **described(write_patch_file(found, arguments.output))}
