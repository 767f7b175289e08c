"""gdb keeps the contract: launched, attached, and with its traps left in memory while the program is stopped."""

from __future__ import annotations

from pathlib import Path

import contract_runs
import pytest
from contract_runs import Ground
from processor import has_amx
from test_fake_inferior import contract

from ipbp.cli.path import plugin_path

pytestmark = pytest.mark.live

OWN = (
    "announces_symbols",
    "return_addresses_are_those_of_frames",
    "steps_silently",
    "leaves_the_users_things_alone",
)
SETS_VECTORS = ("vector_registers_can_be_set", "register_bytes_hold_every_register")
SETTINGS = {
    "launched": [],
    "attached": [],
    "always inserted": ["set breakpoint always-inserted on"],
    "behind gdbserver": ["set sysroot /"],
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Ground:
    return contract_runs.prepare(tmp_path_factory.mktemp("gdb-contract"), gcc)


@pytest.fixture(scope="module", params=SETTINGS)
def results(
    request: pytest.FixtureRequest, ground: Ground, gdb: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("results")
    driver = Path(__file__).with_name("inside_gdb.py")
    command = [gdb, "-nx", "-batch", "-x", str(driver), str(ground.program)]
    job = {"plugin": str(plugin_path("gdb")), "settings": SETTINGS[request.param], "pid": 0}
    if request.param == "behind gdbserver":
        server = f"| gdbserver --once - {ground.program}"
        return contract_runs.run_inside(command, {**job, "remote": server}, folder, ground)
    if request.param != "attached":
        return contract_runs.run_inside(command, job, folder, ground)
    with contract_runs.started(ground.program) as process:
        return contract_runs.run_inside(command, {**job, "pid": process.pid}, folder, ground)


@pytest.mark.parametrize("check", [*contract.CHECKS, *OWN])
def test_gdb_inferior(results: dict[str, str], check: str, request: pytest.FixtureRequest) -> None:
    is_behind = request.node.callspec.params["results"] == "behind gdbserver"
    if is_behind and has_amx() and (check.startswith("calls_") or check in SETS_VECTORS):
        # Its thread is in no system call.
        assert "gdbserver cannot" in results[check]
        assert "the processor has AMX [inferior-register]" in results[check]
    elif is_behind and has_amx() and check == "leaves_the_users_things_alone":
        # It also calls, in a thread that may be in one.
        assert "Traceback" not in results[check] or "the processor has AMX [inferior-register]" in results[check]
    else:
        assert results[check] == ""
