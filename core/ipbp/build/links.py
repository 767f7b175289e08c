"""Hard links in the place of copies, which on one file system cost nothing for files of any size."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path


def put_link(source: Path | str, target: Path) -> None:
    """A hard link in the place of what is there; a copy where there are no hard links."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    link_or_copy(source, temporary)
    with _freed_later(target):
        os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename(2) leaves it when both are one file


def put_empty(folder: Path) -> None:
    """An empty folder in the place of what is there. A thread takes the files away: that takes 0.1 ms for each."""
    last = folder.with_name(f"{folder.name}.old")
    with contextlib.suppress(OSError):  # there is no such folder, or the last one is still being taken away
        os.rename(folder, last)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in os.scandir(folder):
        os.unlink(left)
    threading.Thread(target=shutil.rmtree, args=(last, True), daemon=True).start()


@contextlib.contextmanager
def _freed_later(file: Path) -> Iterator[None]:
    """What is replaced meanwhile keeps a name until a thread takes it away: the kernel needs 20 ms to free the blocks
    of a library of 50 MB, and nobody has to wait for that."""
    last = file.with_name(f"{file.name}.old")
    with contextlib.suppress(OSError):  # there is no such file, or one is left of a process that was ended
        os.link(file, last)
    yield
    threading.Thread(target=last.unlink, args=(True,), daemon=True).start()


def copy_by_links(source: Path, target: Path) -> None:
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        shutil.copytree(source, temporary, copy_function=link_or_copy)
        os.replace(temporary, target)
    except (OSError, shutil.Error):
        # The user's build is at work there, or the disk is full: a cold start is slower and nothing else.
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """One file; copied on a file system without links. Errors: OSError."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
