"""A server with several threads: memcached is patched while all of them count, and no count is lost.

Every answer to `incr` is another number, because the item is locked meanwhile. Sorted, the answers of all connections
are one chain whose steps tell which code made each: the old adds 1, the new one 1000.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import pytest
from memcached import Memcached, build_memcached
from sessions import ipbp

pytestmark = [pytest.mark.live, pytest.mark.compiles]

CONNECTIONS = 8
OLD = "        value += delta;\n"
NEW = "        value += 1000 * delta;\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Memcached:
    return build_memcached(tmp_path_factory.mktemp("memcached"))


@pytest.fixture
def server(tree: Memcached) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    process, port = tree.start()
    yield process, port
    process.terminate()
    assert process.wait(timeout=20) == 0


@pytest.fixture
def edited(tree: Memcached) -> Iterator[Path]:
    """The source, in its new version for the length of a test."""
    source = tree.folder / "memcached.c"
    text = source.read_text()
    assert text.count(OLD) == 1
    source.write_text(text.replace(OLD, NEW))
    yield source
    source.write_text(text)


class Counting:
    """`with Counting(port) as counting:` each connection counts one shared item up, until the block ends."""

    def __init__(self, port: int) -> None:
        self.answers: list[list[int]] = [[] for _ in range(CONNECTIONS)]
        self.dropped: list[str] = []
        self._port = port
        self._is_over = False
        self._threads = [threading.Thread(target=self._count, args=(number,)) for number in range(CONNECTIONS)]

    def __enter__(self) -> Counting:
        with socket.create_connection(("127.0.0.1", self._port)) as first:
            first.sendall(b"set shared 0 0 20\r\n" + b"0".ljust(20) + b"\r\n")
            assert first.recv(100) == b"STORED\r\n"
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def wait_for_all(self, more: int = 20) -> None:
        """Returns when every connection has had this many more answers."""
        before = [len(row) for row in self.answers]
        deadline = time.monotonic() + 60
        while any(len(row) < had + more for row, had in zip(self.answers, before, strict=True)):
            assert not self.dropped, self.dropped
            assert time.monotonic() < deadline, before
            time.sleep(0.01)

    def _count(self, number: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
                lines = connection.makefile("rb")
                while not self._is_over:
                    connection.sendall(b"incr shared 1\r\n")
                    self.answers[number].append(int(lines.readline()))
                    time.sleep(0.001)
        except (OSError, ValueError) as error:
            self.dropped.append(f"connection {number} after {len(self.answers[number])} answers: {error!r}")


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_server_of_several_threads_is_patched_under_load_and_no_count_is_lost(
    tree: Memcached, server: tuple[subprocess.Popen[bytes], int], edited: Path, debugger: str
) -> None:
    process, port = server
    with Counting(port) as counting:
        counting.wait_for_all()
        outcome = ipbp("apply", process.pid, debugger, "--build-dir", str(tree.folder))
        assert outcome["outcome"] == "patched", outcome["text"]
        assert "do_add_delta" in {row["name"] for row in outcome["functions"]}
        counting.wait_for_all()
        assert ipbp("undo", process.pid, debugger)["outcome"] == "undone"
        counting.wait_for_all()
    assert not counting.dropped
    chain = sorted(answer for row in counting.answers for answer in row)
    steps = [after - before for before, after in pairwise([0, *chain])]
    assert set(steps) == {1, 1000}
    assert steps[0] == steps[-1] == 1
