"""lldb keeps the contract: launched and attached, by a server of its own and behind others."""

from __future__ import annotations

from pathlib import Path

import contract_runs
import pytest
from contract_runs import Ground
from lldb_servers import platform_server, process_server
from test_fake_inferior import contract

from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

OWN = (
    "announces_symbols",
    "return_addresses_are_those_of_frames",
    "what_lldb_shows_is_what_was_written",
    "leaves_the_users_things_alone",
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Ground:
    return contract_runs.prepare(tmp_path_factory.mktemp("lldb-contract"), gcc)


BEHIND_ONE_PROCESS = pytest.param("behind lldb-server gdbserver", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["launched", "attached", "behind lldb-server", BEHIND_ONE_PROCESS])
def results(
    request: pytest.FixtureRequest, ground: Ground, lldb: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("results")
    driver = f"command script import {Path(__file__).with_name('inside_lldb.py')}"
    lines = [load_line("lldb"), driver, "run_contract"]
    create = f"target create {ground.program}"

    def run(*first: str, **job: object) -> dict[str, str]:
        words = (word for line in [*first, *lines] for word in ("-o", line))
        return contract_runs.run_inside([lldb, "--no-lldbinit", "-b", *words], job, folder, ground)

    if request.param == "launched":
        return run(create, pid=0)
    with contract_runs.started(ground.program) as process:
        if request.param == "behind lldb-server":
            with platform_server(folder) as url:
                return run("platform select remote-linux", f"platform connect {url}", create, pid=process.pid)
        if request.param == "behind lldb-server gdbserver":
            with process_server("--attach", process.pid) as place:
                return run(create, f"gdb-remote {place}", pid=process.pid, remote=place)
        return run(create, pid=process.pid)


@pytest.mark.parametrize("check", [*contract.CHECKS, *OWN])
def test_lldb_inferior(results: dict[str, str], check: str) -> None:
    assert results[check] == ""
