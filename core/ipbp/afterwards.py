"""What is left to be done when a request is answered: nobody waits for it then.

Who is asked with `answered_first` around it answers, and does the rest. Elsewhere nothing is put off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Job = Callable[[], object]

_jobs: list[Job] | None = None


@contextmanager
def answered_first() -> Iterator[list[Job]]:
    """What is put off inside the block is in this list, in the order of asking."""
    global _jobs
    jobs: list[Job] = []
    _jobs = jobs
    try:
        yield jobs
    finally:
        _jobs = None


def afterwards(job: Job) -> None:
    """Do this when the request is answered, or now."""
    if _jobs is None:
        job()
    else:
        _jobs.append(job)
