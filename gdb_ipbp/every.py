"""All processes of this gdb, its inferiors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator

import gdb

from gdb_ipbp.inferior import GdbInferior
from gdb_ipbp.settings import kept_selection
from ipbp.errors import IpbpError
from ipbp.host.every import Member


def members(report: Callable[[IpbpError], None]) -> list[Member]:
    """Those that have a process, in the order of their numbers. `report`: see `GdbInferior`."""
    return [_member(row, report) for row in sorted(gdb.inferiors(), key=lambda row: row.num) if row.pid]


def _member(inferior: gdb.Inferior, report: Callable[[IpbpError], None]) -> Member:
    @contextmanager
    def selected() -> Iterator[GdbInferior]:
        with kept_selection():
            inferior.threads()[-1].switch()  # gdb lists the newest first
            yield GdbInferior(report)

    is_stopped = not any(thread.is_running() for thread in inferior.threads())
    is_local = inferior.connection is not None and inferior.connection.type == "native"
    return Member(f"inferior {inferior.num}", inferior.pid, is_stopped, is_local, selected)
