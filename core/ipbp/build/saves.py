"""Saves of files, as the user means them: several in a burst are one, and so is an editor's rename over the old file.

Editors save in many ways (write in place, write beside and rename, remove and write anew), so folders are watched and
not files, and what counts is that a name has got something new and that nothing has moved for a moment since. Reading
is no save: compilers read the same files.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from ipbp.errors import IpbpError

_QUIET = 0.04  # seconds without an event after which a save is over
_OPEN = 1.0  # the same while a file was written to and not closed
_GLANCE = 0.25  # seconds between two looks whether somebody still waits
_MOST_FOLDERS = 40  # above this, folders within others are watched through these: each costs two threads
_SAVES = frozenset(("modified", "created", "moved", "closed"))


class Saves:
    """Of a set of files that may change. `close` it."""

    def __init__(self) -> None:
        self._observer: Any = Observer()
        self._observer.start()
        self._watched: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._lock = threading.Condition()
        self._saved: dict[str, float] = {}  # path -> when it is over if nothing else comes

    def follow(self, files: Iterable[str]) -> int:
        """From now on saves of these count, and of no others; how many there are. Those that are not there yet count
        when they come. Errors: `watch-limit` when the kernel watches no more folders (inotify(7))."""
        names = {path: path for path in files}
        names |= {os.path.realpath(path): path for path in names}
        wanted = _roots({os.path.dirname(path) for path in names})
        with self._lock:
            self._names = names
        for folder in [folder for folder, watch in self._watched.items() if wanted.get(folder) != watch.is_recursive]:
            self._observer.unschedule(self._watched.pop(folder))
        for folder, is_recursive in wanted.items():
            if folder not in self._watched and os.path.isdir(folder):
                self._watched[folder] = self._schedule(folder, is_recursive)
        return len(set(names.values()))

    def wait(self, is_over: Callable[[], bool]) -> list[str]:
        """What was saved since the last call, as soon as there is something and it is whole. [] once `is_over`."""
        with self._lock:
            while not is_over():
                now = time.monotonic()
                last = max(self._saved.values(), default=0.0)
                if self._saved and last <= now:
                    return self._taken()
                self._lock.wait(min(last - now, _GLANCE) if self._saved else _GLANCE)
        return []

    def close(self) -> None:
        self._observer.stop()
        self._observer.join()

    def _taken(self) -> list[str]:
        saved = sorted(self._saved)
        self._saved = {}
        return saved

    def _schedule(self, folder: str, is_recursive: bool) -> Any:
        try:
            return self._observer.schedule(_Handler(self._take), folder, recursive=is_recursive)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EMFILE):
                raise
            raise IpbpError(
                "watch-limit",
                f"the kernel watches no more folders for you: {error.strerror}",
                "`sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024`.",
            ) from error

    def _take(self, event: FileSystemEvent) -> None:
        if event.event_type not in _SAVES:
            return
        with self._lock:
            path = self._names.get(os.fsdecode(event.dest_path if event.event_type == "moved" else event.src_path))
            if path is not None:
                quiet = _OPEN if event.event_type == "modified" else _QUIET
                self._saved[path] = time.monotonic() + quiet
                self._lock.notify_all()


class _Handler(FileSystemEventHandler):  # type: ignore[misc]
    def __init__(self, take: Callable[[FileSystemEvent], None]) -> None:
        self._take = take

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not event.is_directory:
            self._take(event)


def _roots(folders: set[str]) -> dict[str, bool]:
    """Folders to watch, and whether with all that is below them."""
    if len(folders) <= _MOST_FOLDERS:
        return dict.fromkeys(folders, False)
    found: dict[str, bool] = {}
    for folder in sorted(folders):
        above = next((root for root in found if os.path.commonpath([root, folder]) == root), None)
        if above is not None:
            found[above] = True
        else:
            found[folder] = False
    return found
