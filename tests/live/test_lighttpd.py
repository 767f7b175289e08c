"""A real program that nobody here wrote: lighttpd is patched under load, and no connection notices.

The function edited writes the header of every answer; it keeps a static cache of the date, which has to survive.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lighttpd import Lighttpd, build_lighttpd
from load import CONNECTIONS, Load

pytestmark = pytest.mark.live

BODY = b"hello\n"
HEADER = b"\r\nX-Patched: yes\r\n"
OLD = '		buffer_append_str2(b, CONST_STR_LEN("\\r\\nServer: "),'
NEW = OLD.replace("\\r\\nServer: ", "\\r\\nX-Patched: yes\\r\\nServer: ")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Lighttpd:
    return build_lighttpd(tmp_path_factory.mktemp("lighttpd"))


@pytest.fixture
def server(tree: Lighttpd, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    (tmp_path / "hello.txt").write_bytes(BODY)
    process, port = tree.start(tmp_path)
    yield process, port
    process.terminate()
    assert process.wait(timeout=20) == 0, (tmp_path / "error.log").read_text()


@pytest.fixture
def edited(tree: Lighttpd) -> Iterator[None]:
    """The source with the new header, for the length of a test."""
    source = tree.folder / "src" / "response.c"
    text = source.read_text()
    assert text.count(OLD) == 1
    source.write_text(text.replace(OLD, NEW))
    yield
    source.write_text(text)


def ipbp(verb: str, debugger: str, pid: int, *words: str) -> dict[str, object]:
    command = [sys.executable, "-m", "ipbp.cli.main", verb, "--pid", str(pid), "--debugger", debugger, "--json", *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    outcome: dict[str, object] = json.loads(run.stdout)
    assert run.returncode == 0, outcome
    return outcome


def test_the_load_tells_the_old_server_from_a_new_one(server: tuple[subprocess.Popen[bytes], int]) -> None:
    with Load(server[1], HEADER, BODY) as load:
        load.all_answers(with_header=False)
    assert not load.dropped


def test_the_load_notices_a_dropped_connection(server: tuple[subprocess.Popen[bytes], int]) -> None:
    with Load(server[1], HEADER, b"other\n") as load:
        while len(load.dropped) < CONNECTIONS:
            time.sleep(0.01)


@pytest.mark.usefixtures("edited")
@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_server_is_patched_under_load_and_no_connection_is_dropped(
    tree: Lighttpd, server: tuple[subprocess.Popen[bytes], int], debugger: str
) -> None:
    process, port = server
    with Load(port, HEADER, BODY) as load:
        load.all_answers(with_header=False)
        outcome = ipbp("apply", debugger, process.pid, "--build-dir", str(tree.folder))
        assert outcome["outcome"] == "patched"
        load.all_answers(with_header=True)
        ipbp("undo", debugger, process.pid)
        load.all_answers(with_header=False)
    assert not load.dropped
