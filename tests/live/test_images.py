"""Every loaded image can be patched: libraries, plugins that come and go, and several of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_host import Host, build_host
from scenario import Talk
from sessions import ipbp

pytestmark = pytest.mark.live


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    settings = dict(getattr(request, "param", {}))
    return build_host(tmp_path / "host", *settings.pop("flags", ("-O2",)), **settings)


@pytest.fixture
def talk(host: Host) -> Iterator[Talk]:
    program = Talk(host.program)
    yield program
    program.kill()


def patched(talk: Talk, debugger: str) -> set[str]:
    """Names of the functions that one `ipbp apply` patched."""
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "patched", outcome
    return {row["name"] for row in outcome["functions"]}


@pytest.mark.parametrize("host", [{"flags": ("-O0",)}, {"flags": ("-O2",)}], indirect=True, ids=["O0", "O2"])
def test_a_library_function_is_patched_for_the_program_and_for_the_library(
    host: Host, talk: Talk, debugger: str
) -> None:
    assert (talk.ask("twice 4"), talk.ask("outer 4"), talk.ask("total 1")) == ("8", "9", "8 8")
    host.edit("library.c", "return x * 2;", "return x * 200;")
    host.edit("library.c", "total += x;", "total += x * 100;")
    host.edit("library.c", "return twice(x) + calls;", "return twice(x) + interposed(0) + calls;")
    assert {"twice", "outer", "add_to_total"} <= patched(talk, debugger)
    # The program's own `interposed` counts, the library's state is kept, and the variable is the program's copy.
    assert (talk.ask("twice 4"), talk.ask("outer 4"), talk.ask("total 1")) == ("800", "5802", "108 108")
    assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
    assert (talk.ask("twice 4"), talk.ask("outer 4"), talk.ask("total 1")) == ("8", "11", "109 109")
    assert talk.close() == 0
