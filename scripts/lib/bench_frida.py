"""frida's Interceptor.replace on a running program: from the call until the program runs the replacement."""

from __future__ import annotations

import time

import frida
from bench_programs import Units

SCRIPT = """
const modules = [];  // they must outlive their use
rpc.exports = {
    prepare(generation) { modules.push(new CModule('long edited(void) { return ' + generation + '; }')); },
    replace(address) {
        Interceptor.revert(ptr(address));
        Interceptor.replace(ptr(address), modules[modules.length - 1].edited);
        Interceptor.flush();
    },
};
"""


def replaced(program: Units, rounds: int) -> tuple[list[float], list[float], tuple[float, float]]:
    """Milliseconds by round: until the new code runs, and the program's longest gap; and both of the first attach."""
    program.edit(0)
    program.rebuild()
    live, gaps = [], []
    with program.running() as process:
        address = hex(program.address_of(process.pid, "value"))
        program.forget_gap()
        began = time.perf_counter()
        session = frida.attach(process.pid)
        script = session.create_script(SCRIPT)
        script.load()
        attach = 1000 * (time.perf_counter() - began)
        time.sleep(0.05)
        first = attach, program.gap_ms() or 0.0
        for generation in range(1, rounds + 2):
            script.exports_sync.prepare(generation)
            program.forget_gap()
            began = time.perf_counter()
            script.exports_sync.replace(address)
            program.wait_for(generation)
            live.append(1000 * (program.since() - began))
            gaps.append(program.gap_ms() or 0.0)
        session.detach()
    return live[1:], gaps[1:], first
