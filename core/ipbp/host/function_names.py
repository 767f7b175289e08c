"""What a user calls a function whose name in a symbol table says more."""

from __future__ import annotations

import re

_UNNAMED = re.compile(r"\(anonymous namespace\)::")
_ARGUMENTS = re.compile(r"<[^<>]*>")


def is_called(function: str, name: str) -> bool:
    """Whether the function of this full name is meant by `name`: without its parameters, what it returns, the arguments
    of its templates, and namespaces or classes around it."""
    plain, before = _UNNAMED.sub("", function), ""
    while plain != before:
        before, plain = plain, _ARGUMENTS.sub("", plain)
    plain = plain.partition("(")[0]
    last = plain.rpartition(" ")[2]
    return name in (function, function.partition("(")[0], plain, last) or last.endswith(f"::{name}")
