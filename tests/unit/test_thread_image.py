"""New thread-local variables in a patch: their values, the fields that wait for their place, and the library for the
program's loader, which is tried with the loader of this very process."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import pytest
from patch_maker import Linked, compile_object, graph_of, make_arena, symbol, unit_of

from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_thread_library import write_thread_library
from ipbp.stages.layout import layout
from ipbp.stages.relocate import relocate
from ipbp.stages.thread_locals import Threads, bind_thread_locals

SOURCE = """
static char text[] = "here"; __thread char *pointer = text; static __thread long counter = 9;
__thread int zero[5]; __thread char wide __attribute__((aligned(64)));
long f(int i) { counter += i; zero[i] = i; wide = i; return counter + zero[1] + pointer[0]; }
"""
LIBRARY = "/somewhere/threads-1.so"


def linked(folder: Path, compiler: str, *options: str) -> Linked:
    graph = graph_of(compile_object(folder, SOURCE, compiler, *options))
    image = read_image("/proc/self/exe")
    threads = Threads(image, None, (), lambda _name: None, lambda _path: None)
    units, refusals = bind_thread_locals([unit_of(graph)], threads, {})
    assert refusals == ()
    placed = layout(units, make_arena(), LIBRARY)
    assert placed.refusals == ()
    return Linked(tuple(units), placed, relocate(units, placed))


@pytest.mark.parametrize("options", [("-O2", "-fPIC"), ("-O2", "-fPIE"), ("-O0", "-fPIC", "-mtls-dialect=gnu2")])
def test_each_field_waits_with_the_variable_s_place_in_the_block(
    options: tuple[str, ...], gcc: str, tmp_path: Path
) -> None:
    patch = linked(tmp_path, gcc, *options)
    thread = patch.layout.thread
    assert thread is not None
    assert thread.start % 64 == 0
    assert thread.alignment == 64
    assert thread.size < 2 * 64, "room in the threads is scarce"
    names = ("counter", "zero", "wide", "pointer")
    places = {patch.address(name) - thread.start for name in names}
    late = [row for row in patch.image.late if row.address != thread.offset_at]
    assert {row.width for row in late} == {4}
    assert {row.addend for row in late} <= places | {(place + 4) for place in places}
    for row in late:
        assert int.from_bytes(patch.read(row.address, 4), "little", signed=True) == row.addend
    assert patch.address("wide") % 64 == 0


def test_the_values_and_the_library_s_name_are_in_the_patch(gcc: str, tmp_path: Path) -> None:
    patch = linked(tmp_path, gcc, "-O2", "-fPIC")
    thread = patch.layout.thread
    assert thread is not None
    assert patch.read(patch.address("counter"), 8) == (9).to_bytes(8, "little")
    assert patch.read(patch.address("zero"), 20) == bytes(20)
    text = int(patch.layout.units[0].copy[symbol(patch.units[0].graph, "text")])
    assert patch.read(patch.address("pointer"), 8) == text.to_bytes(8, "little")
    assert patch.read(thread.library_at, len(LIBRARY) + 1) == LIBRARY.encode() + b"\0"


@pytest.mark.parametrize("alignment", [1, 8, 64])
def test_the_loader_gives_every_thread_the_values(alignment: int, tmp_path: Path) -> None:
    values = bytes(range(1, 100))
    path = tmp_path / "block.so"
    cell = write_thread_library(path, values, alignment)
    began, finish, seen = threading.Event(), threading.Event(), []

    def read_own() -> None:
        # This thread's block: the thread pointer is what pthread_self(3) returns.
        ctypes.CDLL(None).pthread_self.restype = ctypes.c_ulong
        began.set()
        finish.wait()
        pointer = ctypes.CDLL(None).pthread_self
        pointer.restype = ctypes.c_ulong
        seen.append(ctypes.string_at(pointer() + offset, len(values)))
        assert (pointer() + offset) % alignment == 0

    running = threading.Thread(target=read_own)
    running.start()
    began.wait()
    library = ctypes.CDLL(str(path))
    base = ctypes.c_ulong.from_address(library._handle).value
    offset = ctypes.c_long.from_address(base + cell).value
    assert offset < 0
    finish.set()
    later = threading.Thread(target=read_own)
    later.start()
    running.join()
    later.join()
    assert seen == [values, values]
