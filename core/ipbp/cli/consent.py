"""`ipbp trust`, and the question in a shell: may programs that the project names be run?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ipbp.host.consent import consented, is_yes

T = TypeVar("T")


def with_consent(arguments: argparse.Namespace, action: Callable[[], T]) -> T:
    """What `action` returns, which may start compilers. `arguments.yes` agrees to all that it asks; else the user is
    asked where there is a terminal, if it is ours (`asks`). Errors: those of `consented`."""
    from ipbp.build.environment import forget_relative_path  # which takes a while to load
    from ipbp.build.trust import agree

    forget_relative_path()
    return consented(action, partial(_confirm, arguments), agree)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("trust", help="agree to programs that a project wants to run, or list those")
    parser.add_argument("hash", nargs="?", help="from the message of `hotpatch`; none: list what was agreed to")
    parser.add_argument("--forget", action="store_true", help="ask again the next time")
    parser.set_defaults(run=trust)


def trust(arguments: argparse.Namespace) -> int:
    """Agree, forget or list. `agreement-unknown`."""
    from ipbp.build.trust import agree, agreed, disagree

    if arguments.hash is None:
        for hash, text in agreed().items():
            print(f"{hash}\n{text}".rstrip("\n"))
    elif arguments.forget:
        disagree(arguments.hash)
    else:
        agree(arguments.hash)
    return 0


def _confirm(arguments: argparse.Namespace, question: str) -> bool | None:
    if arguments.yes:
        return True
    if not arguments.asks or getattr(arguments, "json", False) or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print(question, end="", file=sys.stderr, flush=True)
    return is_yes(sys.stdin.readline())
