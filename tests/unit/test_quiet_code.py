"""In which code no thread may be when functions of the program are called."""

from __future__ import annotations

from pathlib import Path

from running_program import WAIT, build, running

from ipbp.pipeline.loader import find_loader, quiet_for
from ipbp.protocol import Call, Quiet


def test_only_what_may_be_locked_must_be_left(gcc: str, tmp_path: Path) -> None:
    main = WAIT.replace("puts", "(void)!printf") + (
        'int main(void) { printf("ready\\n"); fflush(stdout); char c; return (int)read(0, &c, 1); }'
    )
    program, _objects = build(tmp_path, {"main": main}, "-O1", cc=gcc)
    with running(program) as started:
        process = started.process()
        places = {name: process.lookup(name) for name in ("malloc", "read", "__tls_get_addr", "strcasestr")}
        address = {name: found.address for name, found in places.items() if found is not None}
        assert len(address) == len(places)
        # What chooses an indirect function takes no lock, wherever threads are.
        chooses = Call(address["strcasestr"], (), "choose", result_at=4096)
        assert quiet_for(process, [chooses], ()) == Quiet()
        loader = find_loader(process)
        assert loader is not None
        quiet = quiet_for(process, [chooses], [loader.load("library.so", 4096)])
    assert inside(address["malloc"], quiet.held)
    assert inside(address["__tls_get_addr"], quiet.held)
    assert inside(address["read"], quiet.moving)
    assert not inside(address["read"], quiet.held)


def inside(address: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(start <= address < end for start, end in ranges)
