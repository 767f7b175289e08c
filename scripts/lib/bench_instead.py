"""What a user would do without ipbp, on the same program and edit: measured, with no time for typing.

Building, linking and starting again works for every program and loses its state. The other ways keep it: a shared
library that a warm gdb has the program open, and a function pointer that the program has for this; code that gdb or
lldb compile and run at a stop; and frida, which replaces a function by one that was compiled before. These are only
tried on programs that were written for it (`current`, `forced`): none of them finds out what was edited.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench_programs import Program, SmallC, Units, linker_flags
from bench_warm import Warm, warm

_DLOPEN = '((void *(*)(const char *, int))dlopen)("{library}", 2)'
_DLSYM = '((void *(*)(void *, const char *))dlsym)($library, "value")'


class NotHere(Exception):
    """A way that does not work on this machine, with what the debugger said."""


@dataclass
class Found:
    """Milliseconds by round, none where the way does not work here, which `note` says. `compilers` is empty where the
    compiler's time is not known apart."""

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
            lambda session, generation: _at_stop(session, f"compile code forced = {generation};"),
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
        for generation in range(1, rounds + 2):
            program.edit(generation)
            program.forget_gap()
            began = time.perf_counter()
            compiler = 0.0
            if act is _dlopen:
                compiler = _library(program, generation)
            try:
                act(session, generation)
            except NotHere as reason:
                return Found(way, note=f"not on this machine: {reason}")
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
    _at_stop(
        session,
        f"set $library = {_DLOPEN.format(library=library)}",
        f"set var current = (long (*)(void)){_DLSYM}",
    )


def _at_stop(session: Warm, *lines: str) -> None:
    """As a user would, but for the time of typing. gdb 13 cannot call functions on processors whose extended state it
    does not know."""
    session.type("interrupt")
    session.wait_for("SIGINT")
    said = [session.tell(f"python gdb.execute({line!r}); print('it is ' 'done')") for line in lines]
    session.type("continue &")
    for text in said:
        if "it is done" not in text:
            found = re.search(r"^gdb\.\w*[Ee]rror: (.*)$", text, re.MULTILINE)
            raise NotHere(found[1] if found else text)


def _expression(session: Warm, generation: int) -> None:
    session.type("process interrupt")
    session.wait_for("stopped")
    session.tell(f"expression --top-level -- long edited_{generation}(void) {{ return {generation}; }}")
    session.tell(f"expression current = (long (*)())&edited_{generation}")
    session.type("continue")
    session.wait_for("resuming")
