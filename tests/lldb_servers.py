"""lldb-server of its own, to which an lldb on the same machine is connected as to one of another machine: as to a
platform, or to the process alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep


def server_path() -> str:
    path = shutil.which("lldb-server-19") or shutil.which("lldb-server")
    assert path is not None
    # It starts another one, which it looks for by this name beside itself.
    return str(Path(path).resolve().with_name("lldb-server"))


@contextmanager
def platform_server(folder: Path) -> Iterator[str]:
    """Its URL. It works in `folder`."""
    port = folder / "port"
    words = [server_path(), "platform", "--server", "--listen", "127.0.0.1:0", "--socket-file", str(port)]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = monotonic() + 20
            while not (port.exists() and port.read_text().strip("\0\n")):
                assert monotonic() < deadline, "lldb-server does not listen"
                sleep(0.01)
            yield f"connect://127.0.0.1:{port.read_text().strip(chr(0)).strip()}"
        finally:
            server.kill()


@contextmanager
def process_server(*process: object, wraps: Sequence[str] = ()) -> Iterator[str]:
    """Host and port of one for `process` alone: "--attach" and a number, or "--" and a program. `wraps`: words before
    the command."""
    ours, its = os.pipe()
    words = [*wraps, server_path(), "gdbserver", "--pipe", str(its), "127.0.0.1:0", *map(str, process)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, pass_fds=[its], **quiet) as server:
        try:
            os.close(its)
            yield f"127.0.0.1:{os.read(ours, 16).rstrip(bytes(1)).decode()}"
        finally:
            os.close(ours)
            server.kill()
