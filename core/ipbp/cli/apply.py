"""`ipbp apply|undo|preview|status`: running programs are patched from a shell, one or many, with no debugger open.

Of many processes all plans are made before the first one is patched, from one build. Each process has an outcome of its
own; what goes wrong with one does not keep the others from being patched, unless it is `--atomic`.

Exit status: 0 all of them are patched, or there was nothing to do; 2 usage; 3 refused, nothing was patched; 5 some are
patched and some are not; 1 anything else. A `preview` that would change nothing is 4.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ipbp.cli import attach, processes
from ipbp.cli.debuggers import DEBUGGERS
from ipbp.cli.many import Many
from ipbp.cli.outcome import Outcome, told
from ipbp.errors import IpbpError
from ipbp.host import render
from ipbp.host.commands import EXIT
from ipbp.host.tally import as_text
from ipbp.patch_file import read_patch_file

_VERBS = {
    "apply": "compile what was edited and patch the running program",
    "preview": "all of `apply` but the last step: what would change, and what is refused",
    "undo": "take back the newest patch, or all after patch N",
    "status": "patches, functions and memory of a running program",
}


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for verb, what in _VERBS.items():
        parser = subparsers.add_parser(verb, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if verb in ("apply", "preview"):
            parser.add_argument(
                "patch_file", type=Path, nargs="?", metavar="FILE", help="a patch file, for what was edited"
            )
        processes.add_options(parser)
        parser.add_argument("--debugger", choices=DEBUGGERS, default="gdb", help="which to attach with (gdb)")
        parser.add_argument("--json", action="store_true", help="print a JSON object for each process, and one for all")
        parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for one debugger (600)")
        if verb in ("apply", "preview"):
            attach.add_build_options(parser)
        if verb == "apply":
            parser.add_argument("--atomic", action="store_true", help="all processes or none: stop them together")
            parser.add_argument("--follow", action="store_true", help="and then what is started later, until Ctrl-C")
            parser.add_argument("--load", metavar="LIBRARY", action="append", help="load this library first")
        if verb == "undo":
            parser.add_argument("number", type=int, nargs="?", metavar="N", help="the patch that is to stay newest")
        parser.set_defaults(run=run, verb=verb, asks=True)


def run(arguments: argparse.Namespace) -> int:
    """Do it, print the outcome of each process and of all; the exit status."""
    wrong = told(partial(_check_words, arguments))
    if wrong is not None:
        _print(arguments, wrong, render.as_text(wrong))
        return EXIT[wrong["outcome"]]
    with _ends_like_ctrl_c():
        if processes.is_one(arguments):
            (pid,) = arguments.pid
            outcome = told(partial(_one, arguments, pid)) or {}
            _print(arguments, {**outcome, "pid": pid}, render.as_text(outcome))
            has_nothing_to_do = arguments.verb == "apply" and outcome["outcome"] == "unchanged"
            return 0 if has_nothing_to_do else EXIT[outcome["outcome"]]
        total = told(Many(arguments, lambda outcome: _print(arguments, outcome, render.of_process(outcome))).run) or {}
    if "summary" not in total:
        _print(arguments, total, render.as_text(total))
        return EXIT[total["outcome"]]
    if arguments.json:
        print(render.compact(total), end="", flush=True)
    else:
        print(as_text(total), end="", flush=True)
    return int(total["status"])


def _check_words(arguments: argparse.Namespace) -> None:
    """What is wrong whatever the processes are, of which there may be none. Errors: `usage`, those of
    `read_patch_file`."""
    if getattr(arguments, "atomic", False) and arguments.load:
        fact = "--load cannot be --atomic: a library that was loaded stays"
        raise IpbpError("usage", fact, "Use two commands: load it, then patch.")
    if getattr(arguments, "follow", False) and (arguments.atomic or processes.is_one(arguments)):
        fact = "--follow waits for processes that --children or --exe means, and is not --atomic"
        raise IpbpError("usage", fact, "Add --children or --exe, or leave --follow out.")
    file = getattr(arguments, "patch_file", None)
    if file is None:
        return
    if arguments.build_dir or arguments.compile_commands or arguments.exact:
        raise IpbpError(
            "usage", "a patch file is applied as it is, and nothing is built", "Leave the build options out."
        )
    read_patch_file(file)


def _one(arguments: argparse.Namespace, pid: int) -> Outcome:
    if arguments.verb == "undo":
        return attach.undo(arguments, pid)
    if arguments.verb == "status":
        return attach.status(arguments, pid)
    from ipbp.pipeline.order import make_plan  # which takes a while to load

    prepared = attach.prepare(arguments, pid, make_plan)
    return attach.preview(prepared) if arguments.verb == "preview" else attach.patch(arguments, prepared, make_plan)


def _print(arguments: argparse.Namespace, outcome: Outcome, text: str) -> None:
    if arguments.json:
        print(render.as_json(outcome), end="", flush=True)
    else:
        print(text, end="", file=sys.stderr if outcome["outcome"] == "error" else sys.stdout, flush=True)


@contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP take the way of Ctrl-C: detach first."""

    def stop(*unused: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
