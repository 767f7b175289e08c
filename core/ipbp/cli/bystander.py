"""A process seen from outside, with no debugger: enough to make a plan while the program runs undisturbed.

Attaching stops a program for a tenth of a second and more, so everything that needs no debugger is done before:
compile, diff and link read memory through /proc/PID/mem, which asks for the same permission as attaching does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.memory import read_or_none
from ipbp.protocol import Description, Region


class Bystander:
    """The part of `ipbp.host.inferior.Inferior` that reads."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def describe(self) -> Description:
        try:
            executable = os.readlink(f"/proc/{self._pid}/exe").removesuffix(" (deleted)")
        except (FileNotFoundError, ProcessLookupError) as error:  # also of one that was not waited for yet
            raise IpbpError("inferior-gone", f"process {self._pid} has ended", "Start it again.") from error
        except OSError as error:
            raise IpbpError(
                "process-permission", f"you may not look at process {self._pid}", "Run ipbp as the program's user."
            ) from error
        return Description(self._pid, f"{os.uname().machine}-linux", "none", executable, False, True)

    def regions(self) -> list[Region]:
        return procfs.regions(self._pid)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """As `ipbp.graph.image.MemoryReader`."""
        return [read_or_none(self, address, size) for address, size in ranges]

    def read(self, address: int, size: int) -> bytes:
        return procfs.read_memory(self._pid, address, size)
