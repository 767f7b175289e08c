"""A recorded command line, taken apart as a shell would, without ever starting one.

The compilation database stores a command either as a list of words or as one string with shell quoting (LLVM, "JSON
Compilation Database Format Specification"). The string is split by the POSIX rules (Shell Command Language, 2.2);
what would need a shell to mean something (a pipe, a substitution, a second command) is refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class NeedsShell(ValueError):
    """The text means more than words; the argument says what was found."""


@dataclass(frozen=True, slots=True)
class Simple:
    """One command without a shell. `directory`: of a leading `cd`, in front of it, or None. `environment`: what a
    leading `env X=Y` or `X=Y` sets."""

    words: tuple[str, ...]
    directory: str | None
    environment: tuple[tuple[str, str], ...]


_PLAIN = re.compile(r"[A-Za-z0-9_\-./=+,:@%^~ ]*\Z")
_PIECE = re.compile(
    r"""(?P<space>[ \t\n]+)
      | (?P<single>'(?P<raw>[^']*)')
      | (?P<double>"(?P<soft>(?:[^"\\`$]|\\.|\$(?![A-Za-z_({?*@#!$0-9-]))*)")
      | (?P<escape>\\(?P<escaped>.))
      | (?P<operator>&&|\|\||[|&;<>()`])
      | (?P<dollar>\$(?=[A-Za-z_({'"?*@\#!$0-9-]))
      | (?P<text>[^ \t\n'"\\|&;<>()`$]+|\$)""",
    re.VERBOSE | re.DOTALL,
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_OPERATOR = "\0"  # marks a word that is an operator; no argument can hold a NUL


def simple_command(text: str) -> Simple:
    """The one command that a string means. `NeedsShell` for anything else, or for a quote that is never closed."""
    words = text.split() if _PLAIN.match(text) else _split(text)
    directory = None
    while len(words) >= 3 and words[0] == "cd" and words[2] == f"{_OPERATOR}&&":
        directory, words = words[1], words[3:]
    for word in words:
        if word.startswith(_OPERATOR):
            raise NeedsShell(f"'{word[1:]}'")
    rest, environment = without_environment(words)
    if not rest:
        raise NeedsShell("no command")
    return Simple(tuple(rest), directory, environment)


def without_environment(words: list[str]) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Words after a leading `env` and `NAME=value`s, and what these set."""
    start = 1 if words and words[0] in ("env", "/usr/bin/env") else 0
    end = start
    while end < len(words) and _ASSIGNMENT.match(words[end]):
        end += 1
    pairs = (word.split("=", 1) for word in words[start:end])
    return words[end:], tuple((name, value) for name, value in pairs)


def _split(text: str) -> list[str]:
    words: list[str] = []
    word: str | None = None  # None: between words; "": an empty quoted word
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None:
            character = text[position]
            raise NeedsShell("a quote that is not closed" if character in "'\"\\" else f"'{character}'")
        position = piece.end()
        if piece["space"] is not None or piece["operator"] is not None:
            if word is not None:
                words.append(word)
                word = None
            if piece["operator"] is not None:
                words.append(_OPERATOR + piece["operator"])
            continue
        if piece["escaped"] == "\n":
            continue  # a continued line (POSIX 2.2.1)
        if piece["dollar"] is not None:
            raise NeedsShell("'$', a substitution")
        word = (word or "") + _meaning(piece)
    if word is not None:
        words.append(word)
    return words


def _meaning(piece: re.Match[str]) -> str:
    if piece["single"] is not None:
        return piece["raw"]
    if piece["double"] is not None:
        # Inside double quotes a backslash quotes only these (POSIX 2.2.3); before a newline both vanish.
        return re.sub(r'\\([$`"\\\n])', lambda m: "" if m[1] == "\n" else m[1], piece["soft"])
    if piece["escape"] is not None:
        return piece["escaped"]
    return piece["text"]
