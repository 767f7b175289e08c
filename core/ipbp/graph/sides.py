"""Two texts side by side, line by line, as `diff` pairs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

Row = tuple[str, str, str]
"""Mark, left, right. The mark is " " for lines that are alike, "|" changed, "<" left only, ">" right only."""


def beside(left: Sequence[str], right: Sequence[str]) -> list[Row]:
    """All lines of both."""
    return list(_rows(left, right))


def near_changes(rows: Sequence[Row], context: int) -> list[Row]:
    """Without what is alike further than `context` lines from a change; ("…", "", "") stands for what is left out."""
    wanted = {
        at for number, row in enumerate(rows) if row[0] != " " for at in range(number - context, number + context + 1)
    }
    found: list[Row] = []
    for number, row in enumerate(rows):
        if number in wanted:
            found.append(row)
        elif not found or found[-1][0] != "…":
            found.append(("…", "", ""))
    return found


def _rows(left: Sequence[str], right: Sequence[str]) -> Iterator[Row]:
    for kind, low, high, start, end in SequenceMatcher(None, left, right, autojunk=len(left) > 500).get_opcodes():
        olds, news = left[low:high], right[start:end]
        for number in range(max(len(olds), len(news))):
            old = olds[number] if number < len(olds) else None
            new = news[number] if number < len(news) else None
            mark = " " if kind == "equal" else "|" if None not in (old, new) else "<" if new is None else ">"
            yield mark, old or "", new or ""
