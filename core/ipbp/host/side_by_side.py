"""Two texts side by side in a terminal: old on the left, new on the right, what differs in colour."""

from __future__ import annotations

import shutil
from itertools import zip_longest
from typing import Any, Iterable, Mapping, Sequence

from ipbp.host.function_names import is_called

_RED, _GREEN, _BOLD, _DIM, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
_NARROWEST = 40  # columns


def as_text(sides: Mapping[str, Any], names: Sequence[str], colour: bool) -> str:
    """Code of the functions of these names, and of their files what changed. No names: of the only function there is,
    else a line that says how to see one."""
    code = [row for row in sides["code"] if not names or any(is_called(row["name"], name) for name in names)]
    unknown = [name for name in names if not any(is_called(row["name"], name) for row in code)]
    if not names and len(code) > 1:
        return "  `hotpatch preview NAME` shows the code of one of them side by side\n"
    files = {row["file"] for row in code}
    lines = [f"  no function that changes is called '{name}'" for name in unknown]
    for row in code:
        lines += _table(f"{row['name']}: machine code that runs | new", row["rows"], colour)
    for row in sides["source"]:
        if row["file"] in files:
            lines += _table(f"{row['file']}: source {row['name']} | now", row["rows"], colour)
    return "\n".join(lines) + "\n" if lines else ""


def _table(title: str, rows: Iterable[Sequence[str]], colour: bool) -> list[str]:
    half = (max(shutil.get_terminal_size((120, 24)).columns, _NARROWEST) - 4) // 2
    lines = ["", _in(_BOLD, title, colour)]
    for mark, left, right in rows:
        if mark == "…":
            lines.append(_in(_DIM, "  ...", colour))
            continue
        if mark == " ":
            lines.append(f"{_cut(left, half):{half}}   {_cut(right, half)}".rstrip())
            continue
        # What differs is shown as a whole, on several lines where it has to be.
        for old, new in zip_longest(_folded(left, half), _folded(right, half), fillvalue=""):
            lines.append(f"{_in(_RED, old.ljust(half), colour)} {mark} {_in(_GREEN, new, colour)}".rstrip())
    return lines


def _cut(text: str, width: int) -> str:
    text = text.expandtabs(4)
    return text if len(text) <= width else text[: width - 1] + "…"


def _folded(text: str, width: int) -> list[str]:
    text = text.expandtabs(4)
    return [text[at : at + width] for at in range(0, len(text), width)] or [""]


def _in(style: str, text: str, colour: bool) -> str:
    return f"{style}{text}{_PLAIN}" if colour else text
