"""What became of each command, beside the journal: for `hotpatch report`. Nothing depends on it."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Mapping

from ipbp.host.private import append_private

_KEPT = ("outcome", "patch", "notes", "times", "refusals", "error", "patches")


def write(folder: Path, outcome: Mapping[str, Any]) -> None:
    """Append an outcome, with the time of day."""
    row = {key: outcome[key] for key in _KEPT if outcome.get(key)}
    row["functions"] = [function["name"] for function in outcome.get("functions", ())]
    row["patches"] = [patch["patch"] for patch in outcome.get("patches", ())]
    # A full disk costs a line of the report, and nothing else.
    with contextlib.suppress(OSError), append_private(folder / "session") as file:
        file.write(json.dumps({"time": time.time(), **row}, separators=(",", ":")).encode() + b"\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The outcomes so far, oldest first."""
    try:
        lines = (folder / "session").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]
