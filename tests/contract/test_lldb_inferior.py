"""lldb keeps the contract: launched and attached."""

from __future__ import annotations

from pathlib import Path

import contract_runs
import pytest
from contract_runs import Ground
from lldb_servers import platform_server
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


@pytest.fixture(scope="module", params=["launched", "attached", "behind lldb-server"])
def results(
    request: pytest.FixtureRequest, ground: Ground, lldb: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("results")
    driver = f"command script import {Path(__file__).with_name('inside_lldb.py')}"
    lines = [load_line("lldb"), driver, "run_contract"]
    command = [lldb, "--no-lldbinit", "-b", *(word for line in lines for word in ("-o", line)), str(ground.program)]
    if request.param == "behind lldb-server":
        with platform_server(folder) as url, contract_runs.started(ground.program) as process:
            lines[:0] = ["platform select remote-linux", f"platform connect {url}", f"target create {ground.program}"]
            command = [lldb, "--no-lldbinit", "-b", *(word for line in lines for word in ("-o", line))]
            return contract_runs.run_inside(command, {"pid": process.pid}, folder, ground)
    if request.param == "launched":
        return contract_runs.run_inside(command, {"pid": 0}, folder, ground)
    with contract_runs.started(ground.program) as process:
        return contract_runs.run_inside(command, {"pid": process.pid}, folder, ground)


@pytest.mark.parametrize("check", [*contract.CHECKS, *OWN])
def test_lldb_inferior(results: dict[str, str], check: str) -> None:
    assert results[check] == ""
