"""A Rust source as tokens (Rust reference, "Lexical structure"), as far as it takes to compare two texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<doc>///(?!/)[^\n]*|//![^\n]*)
    |(?P<comment>//[^\n]*)
    |(?P<block>/\*)
    |(?P<raw>[bc]?r(?P<marks>\#*)")
    |(?P<text>[bc]?"(?:[^"\\]|\\.)*")
    |(?P<char>b?'(?:[^'\\\n]|\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.))')
    |(?P<lifetime>'[^\W\d]\w*)
    |(?P<word>(?:r\#)?[^\W\d]\w*)
    |(?P<number>\d\w*(?:\.\d\w*)?)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


class NotUnderstood(Exception):
    """The text is not divided into tokens or items that balance."""


@dataclass(frozen=True, slots=True)
class Token:
    """`is_apart`: something that is no token stands before it. `place`: line and column."""

    kind: str
    text: str
    is_apart: bool
    place: tuple[int, int]


def tokens(text: str) -> list[Token]:
    """The tokens without white space and comments; comments that document are tokens, for macros see them (Rust
    reference, "Comments")."""
    found: list[Token] = []
    place, is_apart = 0, False
    line, begin = 1, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotUnderstood
        kind, end = str(match.lastgroup if match.lastgroup != "marks" else "raw"), match.end()
        if kind == "block":
            end = _end_of_comment(text, place)
            is_doc = re.match(r"/\*(?:\*(?![*/])|!)", text[place : place + 4]) is not None
            kind = "doc" if is_doc else "comment"
        elif kind == "raw":
            closing = '"' + match["marks"]
            end = text.find(closing, end)
            if end < 0:
                raise NotUnderstood
            end += len(closing)
        elif kind == "sign" and match[0] in "\"'":
            raise NotUnderstood
        if kind in ("space", "comment"):
            is_apart = True
        else:
            found.append(Token(kind, text[place:end], is_apart, (line, place - begin)))
            is_apart = False
        if (lines := text.count("\n", place, end)) > 0:
            line, begin = line + lines, text.rindex("\n", place, end) + 1
        place = end
    return found


def _end_of_comment(text: str, place: int) -> int:
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[place:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return place + mark.end()
    raise NotUnderstood
