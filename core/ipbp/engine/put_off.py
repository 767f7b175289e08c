"""What a request leaves to be done when it is answered, and whether that went well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ipbp.afterwards import Job
from ipbp.errors import IpbpError
from ipbp.kept import Kept

_finished: Kept[tuple[str, ...], tuple[IpbpError, ...]] = Kept(16)
"""Of the last 16 plans: their patch files, and what went wrong with these."""
_unfinished: list[tuple[str, ...]] = []
"""The patch files of a plan that is just being handed over."""


def will_be_finished(files: Sequence[str]) -> None:
    """The debug information of these patch files is put off."""
    _unfinished[:] = [tuple(files)]


def finish(jobs: Iterable[Job], shown: Callable[[Exception], IpbpError]) -> None:
    """Do what was put off. `shown`: what is said of a failure."""
    failed = []
    for job in jobs:
        try:
            job()
        except Exception as error:  # the request is answered; who depends on this asks for it
            failed.append(shown(error))
    while _unfinished:
        _finished.replace(_unfinished.pop(), tuple(failed), 1)


def require_finished(files: Sequence[str]) -> None:
    """Errors: why these patch files have no debug information; `symbols-lost`."""
    failed = _finished.get(tuple(files))
    if failed is None:
        raise IpbpError(
            "symbols-lost",
            "the engine ended before it had written them",
            "Edit and type `hotpatch` again: the next patch has them.",
        )
    if failed:
        raise failed[0]
