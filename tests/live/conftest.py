"""What several files of live tests share: a real server is built once for all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lighttpd import Lighttpd, build_lighttpd

BODY = b"hello\n"


@pytest.fixture(scope="session")
def lighttpd(tmp_path_factory: pytest.TempPathFactory) -> Lighttpd:
    """lighttpd, built from its source package."""
    return build_lighttpd(tmp_path_factory.mktemp("lighttpd"))


@pytest.fixture
def server(lighttpd: Lighttpd, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The running server and its port; /hello.txt is `BODY`."""
    (tmp_path / "hello.txt").write_bytes(BODY)
    process, port = lighttpd.start(tmp_path)
    yield process, port
    process.terminate()
    # 1 is its status when connections were still open; a crash would be a negative one.
    assert process.wait(timeout=20) in (0, 1), (tmp_path / "error.log").read_text()
