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
