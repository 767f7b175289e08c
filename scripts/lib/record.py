"""Runs the demonstration and draws what it showed: the picture in the README is always of a real run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from demo import demonstrate, say_on_terminal
from picture import Line, draw


def record(debugger: str, picture: Path) -> None:
    began = time.monotonic()
    lines: list[Line] = []

    def say(kind: str, text: str) -> None:
        lines.append(Line(time.monotonic() - began, kind, text))
        say_on_terminal(kind, text)

    demonstrate(debugger, say)
    picture.write_text(draw(lines))


if __name__ == "__main__":
    record("gdb", Path(sys.argv[1]))
