"""The words of `hotpatch`: one grammar for both debuggers, which raises instead of ending them."""

from __future__ import annotations

import argparse
import re
import shlex
from functools import lru_cache
from typing import NoReturn, Optional

from ipbp.errors import IpbpError
from ipbp.host.frames import MODES as FRAME_MODES
from ipbp.host.quiet_point import TIMEOUT

_WORDS = (
    ("apply", "compile what was edited and patch the running program (just `hotpatch` does the same)"),
    ("preview", "everything but the last step: what would change, and what is refused"),
    ("object", "patch with the difference of two object files: object OLD.o NEW.o"),
    ("save", "write what is patched to a file, for other processes of this build: save FILE"),
    ("load", "apply such a file, here or where there is no compiler: load FILE"),
    ("report", "write a page of HTML with all that was done to this program: report [FILE]"),
    ("status", "patches, functions and memory"),
    ("undo", "take back the newest patch, or all after patch N (0: all)"),
    ("deopt", "compile files, or those of functions, without optimisation, to step through them: deopt NAME..."),
    ("reopt", "take that back, for all or for these: reopt [NAME...]"),
    ("watch", "watch on: from now on a save of a source is a patch; watch off"),
    ("doctor", "check everything that a patch needs"),
    ("agree", "let the project run what `hotpatch` asked about"),
    ("help", "this text"),
)


_OPTIONS = (
    ("--frame remap", "and the selected call goes on in the new code; --frame restart: begins again in it"),
    ("--all", "every process of this debugger that runs this program (also load, preview, status, undo)"),
    ("--quiet-point", "at a moment when no thread is in a function that changes (--timeout SECONDS)"),
    ("--frame ... --unwind", "and the calls inside of that frame may be dropped"),
)


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of ending the debugger."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match("argument WORD: invalid choice: '(.*?)'", message)
        if unknown:
            message = f"there is no `hotpatch {unknown[1]}`"
        raise IpbpError("usage", f"hotpatch: {message}", "`hotpatch help` lists what there is.")

    def exit(self, status: int = 0, message: Optional[str] = None) -> NoReturn:
        raise IpbpError("usage", f"hotpatch: {message or 'wrong usage'}", "`hotpatch help` lists what there is.")


@lru_cache(maxsize=None)
def parser() -> argparse.ArgumentParser:
    """The grammar of `hotpatch`, made once: that takes longer than most commands have to say."""
    top = _Parser(prog="hotpatch", add_help=False)
    words = top.add_subparsers(dest="action", metavar="WORD", parser_class=_Parser)
    for name, _text in _WORDS:
        word = words.add_parser(name, add_help=False)
        word.add_argument("--json", action="store_true")
        if name == "object":
            word.add_argument("old", metavar="OLD.o")
            word.add_argument("new", metavar="NEW.o")
        if name in ("apply", "object", "load"):
            word.add_argument("--load", metavar="LIBRARY", action="append")
            word.add_argument("--frame", choices=FRAME_MODES, default="old")
            word.add_argument("--unwind", action="store_true")
            word.add_argument("--current-arguments", action="store_true")
            word.add_argument("--quiet-point", action="store_true")
            word.add_argument("--timeout", metavar="SECONDS", type=float, default=TIMEOUT)
        if name in ("apply", "preview", "deopt", "reopt", "watch", "doctor"):
            word.add_argument("--build-dir", metavar="DIR")
            word.add_argument("--compile-commands", metavar="FILE")
        if name in ("apply", "preview", "deopt", "reopt", "watch", "object", "load", "save"):
            word.add_argument("--allow-layout", metavar="TYPE", action="append")
            word.add_argument("--exact", action="store_true")
        if name in ("apply", "load", "preview", "undo", "status"):
            word.add_argument("--all", action="store_true")
        if name == "apply":
            word.add_argument("--plan", metavar="FILE", help=argparse.SUPPRESS)
        word.add_argument("--our-stop", action="store_true", help=argparse.SUPPRESS)
        if name == "load":
            word.add_argument("patch_file", metavar="FILE")
        if name == "save":
            word.add_argument("file", metavar="FILE")
        if name in ("deopt", "reopt"):
            word.add_argument(name, metavar="NAME", nargs="+" if name == "deopt" else "*")
        if name == "preview":
            word.add_argument("names", metavar="FUNCTION", nargs="*")
        if name == "report":
            word.add_argument("file", metavar="FILE", nargs="?")
        if name == "watch":
            word.add_argument("state", choices=("on", "off"), nargs="?")
        if name == "undo":
            word.add_argument("number", metavar="N", type=int, nargs="?")
        if name == "agree":
            word.add_argument("hash", metavar="HASH")
    return top


def help_text() -> str:
    """A line for each word."""
    lines = [f"  hotpatch {name:8} {text}" for name, text in _WORDS]
    lines += ["", *(f"  hotpatch {name:21} {text}" for name, text in _OPTIONS)]
    return "\n".join(["Change the running program to the edited source.", "", *lines]) + "\n"


def parse(arguments: str) -> argparse.Namespace:
    """The words after `hotpatch`. `usage` for what they cannot be."""
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise IpbpError(
            "usage", f"hotpatch: {error}", "Close the quotes; `hotpatch help` lists what there is."
        ) from error
    if not words or words[0].startswith("-"):
        words.insert(0, "apply")
    return parser().parse_args(words)
