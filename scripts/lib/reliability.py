"""docs/reliability.md: each tool writes a section of its own, from what it measured, and leaves the others alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_HEAD = """# Reliability

How often a patch is wrong, and what was tried to make it wrong. Each section is written by the tool that it is about,
from its own output; the commands are there to be run again.
"""


def write_section(name: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Put the section there, or in the place of the one that it is the next version of."""
    text = page.read_text() if page.exists() else _HEAD
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = "\n".join([begin, *lines, end])
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text, found = pattern.subn(lambda match: section, text)
    page.write_text(text if found else f"{text.rstrip()}\n\n{section}\n")
