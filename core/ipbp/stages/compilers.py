"""Which compiler made an object, by what it says in `.comment`."""

from __future__ import annotations

import re

from ipbp.graph.model import LinkGraph

_GCC = re.compile(rb"GCC: \([^)]*\) (\d+)\.")


def gcc_version(graph: LinkGraph) -> int:
    """The major version of the gcc that made it, 0 for another compiler."""
    comments = [bytes(side.content) for side in graph.side if side.name == ".comment"]
    found = [_GCC.search(text) for text in comments if b"clang" not in text]
    return max((int(match[1]) for match in found if match), default=0)


def registers_of_results(graph: LinkGraph) -> int:
    """In how many registers a function of this compiler may give back what it returns: gcc does what the C ABIs say
    (two), LLVM has as many of them as arguments where the language is not C."""
    return 2 if gcc_version(graph) else 8


def is_of_clang(graph: LinkGraph) -> bool:
    return any(side.name == ".comment" and b"clang" in bytes(side.content) for side in graph.side)
