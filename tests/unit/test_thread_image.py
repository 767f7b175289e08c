"""New thread-local variables in a patch: their values, the fields that wait for their place, and the library for the
program's loader, which is tried with the loader of this very process."""

from __future__ import annotations

import ctypes
import re
import subprocess
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
    cell = write_thread_library(path, values, alignment, "x86_64")
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


def test_on_aarch64_parts_of_instructions_wait(aarch64: str, tmp_path: Path) -> None:
    patch = linked(tmp_path, aarch64, "-O2", "-fPIE")
    thread = patch.layout.thread
    assert thread is not None
    late = [row for row in patch.image.late if row.address != thread.offset_at]
    assert {(row.width, row.bits, row.at) for row in late} == {(4, 12, 10)}
    assert {row.shift for row in late} >= {12, 0}
    code = patch.address("f"), patch.address("f") + 4 * 40
    assert all(code[0] <= row.address < code[1] for row in late)
    general = linked(tmp_path, aarch64, "-O2", "-fPIC")  # asked by descriptors, rewritten to movz and movk
    parts = {(row.bits, row.at, row.shift) for row in general.image.late if row.bits}
    assert parts == {(16, 5, 16), (16, 5, 0)}


def test_an_offset_in_twelve_bits_is_refused_for_a_new_variable(aarch64: str, tmp_path: Path) -> None:
    graph = graph_of(compile_object(tmp_path, SOURCE, aarch64, "-O2", "-fPIE", "-mtls-size=12"))
    threads = Threads(read_image("/proc/self/exe"), None, (), lambda _name: None, lambda _path: None)
    _units, refusals = bind_thread_locals([unit_of(graph)], threads, {})
    assert {row.code for row in refusals} == {"thread-local"}


def test_the_library_is_of_the_machine(aarch64: str, tmp_path: Path) -> None:
    path = tmp_path / "block.so"
    cell = write_thread_library(path, bytes(range(1, 100)), 64, "aarch64")
    command = [aarch64.replace("gcc", "readelf"), "--wide", "-h", "-r", "-l", "-d", "--use-dynamic", path]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stderr == ""
    assert re.search(rf"{cell:016x} .*R_AARCH64_TLS_TPREL", said.stdout), said.stdout
    assert "STATIC_TLS" in said.stdout
    assert [row.split()[-1] for row in said.stdout.splitlines() if row.split()[:1] == ["LOAD"]] == ["0x10000"] * 2
