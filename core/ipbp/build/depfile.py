"""Dependency rules as compilers write them for make: `object: source header header ...`.

Quoting is GNU make's (GNU make manual, "Rule Syntax", and gcc's libcpp/mkdeps.cc, `munge`): a backslash quotes a
space, `#` or `:`, backslashes before a space are doubled, `$$` is one dollar, a backslash at the end of a line
continues it. A name with a newline cannot be written at all.
"""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(rb"(\\+)([ \t])|\\([#:])|\$\$")


def dependencies_of(content: bytes) -> tuple[str, ...]:
    """What any rule of the file depends on, in order, each once, as written there (relative to the directory that
    the compiler ran in). The empty rules that -MP adds are no dependencies."""
    found: dict[bytes, None] = {}
    for line in content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
        words = line.split() if b"\\" not in line and b"$" not in line else _quoted_words(line)
        end_of_targets = next((i for i, word in enumerate(words) if word.endswith(b":")), None)
        if end_of_targets is not None:
            found.update(dict.fromkeys(words[end_of_targets + 1 :]))
    return tuple(map(os.fsdecode, found))


def _quoted_words(line: bytes) -> list[bytes]:
    return [_ESCAPE.sub(_meaning, word) for word in _split(line)]


def _split(line: bytes) -> list[bytes]:
    # An odd number of backslashes quotes the space behind them; an even number quotes only itself.
    words = []
    start = 0
    for separator in re.finditer(rb"(\\*)[ \t]", line):
        if len(separator[1]) % 2 == 0:
            words.append(line[start : separator.end() - 1])
            start = separator.end()
    words.append(line[start:])
    return [word for word in words if word]


def _meaning(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return b"\\" * (len(found[1]) // 2) + found[2]
    return found[3] or b"$"
