"""What a `hotpatch --json` printed: one JSON object on a line of its own, among whatever the debugger prints."""

from __future__ import annotations

import json
from typing import Any

Outcome = dict[str, Any]

MARK = '{"outcome":'
"""How the line begins."""


def find_outcome(text: str) -> Outcome | None:
    """The newest complete outcome in a debugger's output, or None."""
    for line in reversed(text.splitlines()):
        at = line.find(MARK)
        if at < 0:
            continue
        try:
            row = json.loads(line[at:])
        except ValueError:  # cut off: the rest is still on its way
            continue
        return row if isinstance(row, dict) else None
    return None


_STATUS = {"patched": 0, "undone": 0, "ok": 0, "unchanged": 4, "refused": 3, "usage": 2, "error": 1}


def status_of(outcome: Outcome) -> int:
    """Exit status: 0 done, 4 nothing changed, 3 refused, 2 usage, 1 anything else."""
    return _STATUS.get(outcome["outcome"], 1)


def text_of(outcome: Outcome) -> str:
    """The outcome for people."""
    kind = outcome["outcome"]
    if kind == "error":
        return _one_reason(outcome["error"])
    if kind == "refused":
        return "\n".join(["not patched; the process is untouched.", *map(_one_reason, outcome["refusals"])])
    return str(outcome.get("text", kind))


def _one_reason(row: dict[str, Any]) -> str:
    detail = row.get("detail") or ""
    place = f"{row['file']}: " if row.get("file") else ""
    text = f"{place}{row['fact']} [{row['code']}]\n  {row['advice']}"
    return f"{detail.rstrip()}\n{text}" if detail else text
