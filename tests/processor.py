"""What the processor of this machine has that debuggers stumble over."""

from __future__ import annotations

from pathlib import Path


def has_amx() -> bool:
    """Whether threads have matrix registers, with which gdb 13 and its server cannot write vector registers."""
    return " amx_tile " in Path("/proc/cpuinfo").read_text()
