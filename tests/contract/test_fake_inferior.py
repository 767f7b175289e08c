"""The in-memory inferior keeps the contract, with and without orig_rax."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ipbp.host.fake import CODE, DATA, FakeInferior
from ipbp.host.inferior import Breakpoint


def _load_contract() -> ModuleType:
    path = Path(__file__).with_name("inferior_contract.py")
    spec = importlib.util.spec_from_file_location("inferior_contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


contract = _load_contract()
ADD = CODE + 0x400


def subject(shows_orig_rax: bool) -> object:
    inferior = FakeInferior(threads=3, shows_orig_rax=shows_orig_rax)
    inferior.write(DATA + 64, contract.COUNTER.to_bytes(8, "little"))
    inferior.functions[ADD] = lambda one, two: one + two
    inferior.instruction_lengths[CODE + 0x100] = 4

    def break_at(address: int) -> Callable[[], None]:
        location = f"user-{address:x}"
        inferior.armed[location] = Breakpoint(location, address, 1)
        return lambda: inferior.armed.pop(location) and None

    return contract.Subject(
        inferior=inferior,
        entry=CODE + 0x100,
        code=b"\x90" * 16,
        inner=4,
        counter=DATA + 64,
        add=ADD,
        threads=3,
        break_at=break_at,
    )


@pytest.mark.parametrize("shows_orig_rax", [True, False])
@pytest.mark.parametrize("check", contract.CHECKS)
def test_fake_inferior(check: str, shows_orig_rax: bool) -> None:
    contract.CHECKS[check](subject(shows_orig_rax))


def test_run_all_tells_of_the_check_that_failed() -> None:
    wrong = subject(True)
    wrong.inferior.functions[ADD] = lambda one, two: 7  # type: ignore[attr-defined]

    results = contract.run_all(wrong)

    assert [name for name, failure in results.items() if failure] == ["calls_a_function_and_leaves_no_trace"]
