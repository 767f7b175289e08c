"""A real program that nobody here wrote: lighttpd is patched under load, and no connection notices.

In the program the function edited writes the header of every answer; it keeps a static cache of the date, which has to
survive. In a module that the server has opened with dlopen it is one that sees every answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lighttpd import Lighttpd
from load import CONNECTIONS, Load

pytestmark = pytest.mark.live

BODY = b"hello\n"
HEADER = b"\r\nX-Patched: yes\r\n"
PROGRAM_EDIT = (
    "response.c",
    '		buffer_append_str2(b, CONST_STR_LEN("\\r\\nServer: "),',
    '		buffer_append_str2(b, CONST_STR_LEN("\\r\\nX-Patched: yes\\r\\nServer: "),',
)
# The module never called this function of the program before.
MODULE_EDIT = (
    "mod_deflate.c",
    "	if (r->http_method == HTTP_METHOD_HEAD) return HANDLER_GO_ON;\n",
    '	http_header_response_set(r, HTTP_HEADER_OTHER, CONST_STR_LEN("X-Patched"), CONST_STR_LEN("yes"));\n',
)


@pytest.fixture(params=[PROGRAM_EDIT, MODULE_EDIT], ids=["program", "module"])
def edited(lighttpd: Lighttpd, request: pytest.FixtureRequest) -> Iterator[str]:
    """The source with the new header, for the length of a test; its name."""
    name, old, new = request.param
    source = lighttpd.folder / "src" / name
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    yield name
    source.write_text(text)


def ipbp(verb: str, debugger: str, pid: int, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ipbp.cli.main", verb, "--pid", str(pid), "--debugger", debugger, "--json", *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.stdout, run.stderr
    outcome: dict[str, Any] = json.loads(run.stdout)
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


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_server_is_patched_under_load_and_no_connection_is_dropped(
    lighttpd: Lighttpd, server: tuple[subprocess.Popen[bytes], int], edited: str, debugger: str
) -> None:
    process, port = server
    with Load(port, HEADER, BODY) as load:
        load.all_answers(with_header=False)
        outcome = ipbp("apply", debugger, process.pid, "--build-dir", str(lighttpd.folder))
        assert outcome["outcome"] == "patched"
        images = {Path(row["image"]).name for row in outcome["functions"]}
        assert images == ({"mod_deflate.so"} if edited == "mod_deflate.c" else {""})
        load.all_answers(with_header=True)
        ipbp("undo", debugger, process.pid)
        load.all_answers(with_header=False)
    assert not load.dropped
