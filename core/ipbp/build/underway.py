"""A compiler that has made what is asked of it, and has not ended yet.

rustc calls the linker of a program when its objects are final and its incremental directory is finished, and needs ten
milliseconds more to end. What is made of the objects can begin then. It counts when the compiler has ended well.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ipbp.build.inotify import CLOSED, Inotify


class Underway:
    """`run`, which returns what the compiler says or raises, at work in a thread. `folders`: into which it writes."""

    def __init__(self, run: Callable[[], str], folders: Sequence[Path] = ()) -> None:
        self._run = run
        self._said = ""
        self._error: BaseException | None = None
        self._open = contextlib.ExitStack()
        self._written: Inotify | None = None
        self._folders: dict[int, Path] = {}
        with contextlib.suppress(OSError):  # without it whoever waits for files waits for the end
            self._written = self._open.enter_context(Inotify())
            self._folders = {self._written.watch(folder, CLOSED): folder for folder in folders}
        self._over, self._at_work = os.pipe()
        self._open.callback(os.close, self._over)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def written(self) -> Iterator[list[Path]]:
        """Files in the folders that somebody has written and closed, as they come, until it has ended."""
        watched = [self._written] if self._written is not None else []
        is_over = False
        while not is_over:
            ready, _, _ = select.select([self._over, *(row.fileno() for row in watched)], [], [])
            is_over = self._over in ready
            for row in watched:
                if paths := [self._folders[number] / name for number, name in row.events() if number in self._folders]:
                    yield paths

    def ended(self) -> str:
        """What it said, when it has ended. Raises what it raised."""
        self._thread.join()
        # The kernel takes 20 ms to let go of what it watched, and nobody has to wait for that.
        threading.Thread(target=self._open.pop_all().close, daemon=True).start()
        if self._error is not None:
            raise self._error
        return self._said

    def _work(self) -> None:
        try:
            self._said = self._run()
        except BaseException as error:  # it is raised where the end is waited for
            self._error = error
        finally:
            os.close(self._at_work)
