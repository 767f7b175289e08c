"""Runs in gdb or lldb: makes the contract's subject of the debugged program, runs all checks, writes the results.

What both debuggers share is here; `inside_gdb` and `inside_lldb` say how each finds a symbol, sets a breakpoint and
looks at its symbols. Standard library only, Python 3.9. The job comes in the environment as JSON, the results go to
the file that it names: check -> "" or the traceback of its failure.
"""

# ruff: noqa: UP035

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from contextlib import contextmanager
from typing import Any, Callable, Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
JOB: dict[str, Any] = json.loads(os.environ.get("IPBP_CONTRACT_JOB", "{}"))


def load(name: str) -> Any:
    """A module of this folder, which is not on the debugger's path."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(HERE, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(inferior: Any, address_of: Callable[[str], int], break_at: Callable[..., Any], more: dict[str, Any]) -> None:
    """All of the contract's checks, and `more` of this debugger's own, which take the subject as well."""
    contract = load("inferior_contract")
    subject = contract.Subject(
        inferior=inferior,
        entry=address_of("entry_of_contract"),
        code=bytes.fromhex(JOB["code"]),
        inner=JOB["inner"],
        counter=address_of("counter_of_contract"),
        add=address_of("add_for_contract"),
        threads=4,
        break_at=break_at,
    )
    results = contract.run_all(subject)
    for name, check in more.items():
        try:
            check(subject)
            results[name] = ""
        except Exception:  # the point is to tell of every one
            results[name] = traceback.format_exc()
    with open(JOB["results"], "w", encoding="utf-8") as stream:
        json.dump(results, stream)


@contextmanager
def mapped_image(subject: Any) -> Iterator[None]:
    """The image to announce is in memory, where it was linked to."""
    from ipbp.host import inject

    with open(JOB["image"], "rb") as stream:
        content = stream.read(4096)
    start = JOB["image_symbol"] & ~4095
    inject.allocate(subject.inferior, start, 4096, "rx")
    try:
        subject.inferior.write(start, content)
        yield
    finally:
        inject.release(subject.inferior, start, 4096)


def do_a_bit_of_everything(subject: Any) -> None:
    """What a patch does to an inferior."""
    contract = sys.modules["inferior_contract"]

    def act() -> None:
        contract.maps_memory_at_the_address_asked_for(subject)
        contract.calls_a_function_and_leaves_no_trace(subject)
        contract.writes_where_a_breakpoint_was_disarmed(subject)

    subject.inferior.while_stopped(act, lambda _: None)
