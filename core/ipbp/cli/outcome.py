"""Outcomes: what a `hotpatch --json` printed, one JSON object on a line of its own, among whatever the debugger prints;
and what becomes of an error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ipbp.errors import IpbpError
from ipbp.host.commands import bug, failed

Outcome = dict[str, Any]

MARK = '{"outcome":'
"""How the line begins."""

_INTERRUPTED = IpbpError(
    "interrupted", "interrupted", "The program goes on running; `ipbp status` says what is applied."
)


def told(action: Callable[[], Outcome | None]) -> Outcome | None:
    """What this returns, or the outcome that says what went wrong, whatever it was."""
    try:
        return action()
    except IpbpError as error:
        return failed(error)
    except KeyboardInterrupt:
        return failed(_INTERRUPTED)
    except Exception as error:  # the border to the shell: a bug of ours is an outcome like any other
        return failed(bug(error))


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
