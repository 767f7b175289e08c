"""What a user would do without ipbp, on the same program and edit: measured, with no time for typing.

Building, linking and starting again works for every program and loses its state. The other ways keep it: a shared
library that a warm gdb has the program open, and a function pointer that the program has for this; code that gdb or
lldb compile and run at a stop; and frida, which replaces a function by one that was compiled before. These are only
tried on programs that were written for it (`current`, `forced`): none of them finds out what was edited.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench_programs import Program, SmallC, Units, linker_flags
from bench_warm import Warm, warm

IN_GDB = """\
import gdb
def at_stop(*lines):
    # Interrupts the program, does these things, and lets it go on, from gdb's event loop.
    def act():
        for line in lines:
            gdb.execute(line, to_string=True)
        gdb.execute("continue &", to_string=True)
    def stopped(event):
        gdb.events.stop.disconnect(stopped)
        gdb.post_event(act)
    gdb.events.stop.connect(stopped)
    gdb.execute("interrupt")
"""
_DLOPEN = '((void *(*)(const char *, int))dlopen)("{library}", 2)'
_DLSYM = '((void *(*)(void *, const char *))dlsym)($library, "value")'


@dataclass
class Found:
    """Milliseconds by round. `compilers` is empty where the compiler's time is not known apart."""

    way: str
    live: list[float] = field(default_factory=list)
    compilers: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    note: str = ""


def restarts(program: Program, linkers: Sequence[str], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """For each linker, from the edit until a new process runs the new code, and of it the compiler's time (0: not
    known apart). What is compiled once in a round is linked by each."""
    found: dict[str, tuple[list[float], list[float]]] = {linker: ([], []) for linker in linkers}
    for linker in linkers:
        program.prepare(linker)
    process = program.start()
    try:
        for generation in range(1, rounds + 1):
            program.edit(generation)
            took = program.compile()
            for linker in linkers:
                began = time.perf_counter()
                program.link(linker)
                process.kill()
                process.wait()
                process = program.start()
                program.wait_for(generation)
                found[linker][0].append(took + 1000 * (program.since() - began))
                found[linker][1].append(took)
    finally:
        process.kill()
        process.wait()
    return found


def in_place(program: Units, debuggers: Sequence[str], rounds: int) -> Iterator[Found]:
    """Each way that keeps the program's state."""
    if "gdb" in debuggers:
        yield _in_session(program, "gdb", "shared library, dlopen by gdb", rounds, _dlopen)
    if not isinstance(program, SmallC):  # the others do not even take the edited unit
        return
    if "gdb" in debuggers:
        yield _in_session(
            program,
            "gdb",
            "gdb's compile code",
            rounds,
            lambda session, generation: session.type(f"python at_stop('compile code forced = {generation};')"),
            "one statement, run once",
        )
    if "lldb" in debuggers:
        yield _in_session(program, "lldb", "lldb's expression", rounds, _expression, "a function of one line")
    try:
        import frida  # noqa: F401
    except ImportError:
        return
    from bench_frida import replaced

    live, gaps, attach = replaced(program, rounds)
    note = f"injection only, compiled before; the first attach takes {attach[0]:.0f} ms, gap {attach[1]:.1f}"
    yield Found("frida's Interceptor.replace", live, [], gaps, note)


_Act = Callable[[Warm, int], object]


def _in_session(program: Units, debugger: str, way: str, rounds: int, act: _Act, note: str = "") -> Found:
    found = Found(way, note=note)
    program.edit(0)
    program.rebuild()
    with program.running() as process, warm(debugger, process.pid, program.folder, is_plain=True) as session:
        if debugger == "gdb":
            helper = program.folder / "at_stop.py"
            helper.write_text(IN_GDB)
            session.tell(f"source {helper}")
        for generation in range(1, rounds + 2):
            program.edit(generation)
            program.forget_gap()
            began = time.perf_counter()
            compiler = 0.0
            if act is _dlopen:
                compiler = _library(program, generation)
            act(session, generation)
            program.wait_for(generation)
            if generation == 1:
                continue
            found.live.append(1000 * (program.since() - began))
            found.gaps.append(program.gap_ms() or 0.0)
            if compiler:
                found.compilers.append(compiler)
    return found


def _library(program: Units, generation: int) -> float:
    """The unit as a library, by the fastest linker; milliseconds of its compiler. Its own functions are what it calls,
    not those of the program."""
    words = program.command(program.unit)
    began = time.perf_counter()
    subprocess.run([*words[:-1], "pic.o", "-fPIC"], cwd=program.folder, check=True)
    took = 1000 * (time.perf_counter() - began)
    link = [program.compiler, "-shared", "pic.o", "-o", f"unit{generation}.so", *linker_flags("mold")]
    subprocess.run([*link, "-Wl,-Bsymbolic"], cwd=program.folder, check=True)
    return took


def _dlopen(session: Warm, generation: int) -> None:
    library = session.folder / f"unit{generation}.so"
    lines = (
        f"set $library = {_DLOPEN.format(library=library)}",
        f"set var current = (long (*)(void)){_DLSYM}",
    )
    session.type(f"python at_stop({', '.join(map(repr, lines))})")


def _expression(session: Warm, generation: int) -> None:
    session.type("process interrupt")
    session.wait_for("stopped")
    session.tell(f"expression --top-level -- long edited_{generation}(void) {{ return {generation}; }}")
    session.tell(f"expression current = (long (*)())&edited_{generation}")
    session.type("continue")
    session.wait_for("resuming")
