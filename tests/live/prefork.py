"""A running parent-and-workers server, `programs/prefork.c`, talked to over a socket of each process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory


@contextlib.contextmanager
def serving(program: Path, workers: int) -> Iterator[Prefork]:
    """The server with so many workers; all of it is killed in the end."""
    with TemporaryDirectory() as folder:
        server = Prefork(program, Path(folder), workers)
        yield server
        server.close()


class Prefork:
    """`folder`: where its sockets are; short, for a socket's path may have a hundred characters (unix(7))."""

    def __init__(self, program: Path, folder: Path, workers: int) -> None:
        self.folder = folder
        self._known: set[int] = set()
        self._process = subprocess.Popen([program, folder, str(workers)], start_new_session=True)
        self.wait_until(lambda: len(self.workers()) == workers and self._answers("master"))

    @property
    def master(self) -> int:
        return self._process.pid

    def workers(self) -> list[int]:
        """Those that listen, in the order of their numbers."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit() and _is_there(path))

    def ask(self, pid: int, line: str) -> tuple[int, int]:
        """What `answer` makes of a number, and how often this process has answered."""
        return self._ask("master" if pid == self.master else str(pid), line)

    def start_worker(self, how: str) -> int:
        """One more, by "fork" or by "exec"; its number."""
        before = self.workers()
        self.tell_master(how)
        self.wait_until(lambda: len(self.workers()) > len(before))
        (pid,) = set(self.workers()) - set(before)
        return pid

    def tell_master(self, how: str) -> None:
        """To start one more, which is not waited for."""
        self._ask("master", how)

    def children(self) -> set[int]:
        """Of the master, whatever they run."""
        text = Path(f"/proc/{self.master}/task/{self.master}/children").read_text()
        return {int(word) for word in text.split()}

    def end_worker(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        (self.folder / str(pid)).unlink()

    def end_master(self) -> None:
        """The workers go on."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        # A group of which the leader has ended is there as long as one of its processes.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not is_true():
            assert time.monotonic() < deadline
            assert self._process.poll() is None
            time.sleep(0.01)

    def _ask(self, name: str, line: str) -> tuple[int, int]:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(60)
            peer.connect(str(self.folder / name))
            peer.sendall(line.encode())
            said = b""
            while part := peer.recv(64):
                said += part
        answer, count = said.split()
        return int(answer), int(count)

    def _answers(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self._ask(name, "0")
            return True
        return False


def _is_there(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path)) == 0
