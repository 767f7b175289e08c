"""lldb-server as a platform of its own, to which an lldb on the same machine is connected as to another one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
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
