"""A program for Windows, under Wine: what the engine makes of an edit, written by gdb through its gdbserver there.

Done by hand here is what a plugin for Windows would do: it asks for memory and writes; ipbp has none so far.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from debuggers import Gdb
from foreign_formats import ARENA, Program, graph_of

from ipbp.formats import coff_image

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = """
#include <stdio.h>
static int asked;
static const int limits[4] = {1, 2, 3, 4};
__attribute__((noinline)) static int twice(int x) { static int inner; inner++; return 2 * x + inner; }
__attribute__((noinline)) int answer(int x) { asked++; return WORK; }
__attribute__((noinline)) void turn(void) { __asm__ volatile(""); }
int main(int count, char **words) {
    FILE *told = fopen(words[1], "w");
    for (int x = 0; x < 1000; x++) { fprintf(told, "%d\\n", answer(x)); fflush(told); turn(); }
    return 0;
}
"""
COMPILER, DEBUGGER = "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-gdb"
SERVER = Path("/usr/share/win64/gdbserver.exe")  # Debian's gdb-mingw-w64-target
MEM_COMMIT_RESERVE, PAGE_EXECUTE_READWRITE, GRANULE = 0x3000, 0x40, 1 << 16  # VirtualAlloc


class Debugged(Program):
    """The program that gdb has stopped."""

    def __init__(self, path: Path, gdb: Gdb) -> None:
        self._gdb = gdb
        content = path.read_bytes()
        linked = coff_image.read_image(content, str(path))
        (row,) = linked.symbols.by_name["answer"]
        base = linked.start + self.number_of("(unsigned long long)&answer") - int(linked.symbols.address[row])
        image = coff_image.read_image(content, str(path), base)
        near = -(-image.end // GRANULE) * GRANULE + (1 << 24)
        kind = "(void *(*)(void *, unsigned long long, unsigned, unsigned))"
        words = f"{near:#x}, {ARENA:#x}, {MEM_COMMIT_RESERVE:#x}, {PAGE_EXECUTE_READWRITE:#x}"
        assert self.number_of(f"(unsigned long long)({kind}VirtualAlloc)({words})") == near
        super().__init__(image, near)

    def number_of(self, expression: str) -> int:
        said = self._gdb.tell(f"output/x {expression}")
        assert re.fullmatch(r"0x[0-9a-f]+\s*", said), said
        return int(said, 16)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        line = f"python for a, n in {list(ranges)}: print(bytes(gdb.selected_inferior().read_memory(a, n)).hex())"
        return [bytes.fromhex(row) for row in self._gdb.tell(line).splitlines()]

    def write(self, address: int, content: bytes) -> None:
        self._gdb.tell(f"python gdb.selected_inferior().write_memory({address}, bytes.fromhex('{content.hex()}'))")


@contextmanager
def server_of(program: Path, told: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Wine's gdbserver with the program that it has started; where it listens."""
    monkeypatch.setenv("WINEPREFIX", str(told.with_name("prefix")))
    monkeypatch.setenv("WINEDEBUG", "-all")
    monkeypatch.delenv("DISPLAY", raising=False)
    command = ["wine", str(SERVER), "127.0.0.1:0", program.name, told.name]
    server = subprocess.Popen(command, cwd=program.parent, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        port = next(found[1] for line in server.stderr if (found := re.match(r"Listening on port (\d+)", line)))
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run(["wineserver", "-k"], check=False)
        server.kill()
        server.communicate()


@pytest.mark.skipif(
    not all(map(shutil.which, ("wine", COMPILER, DEBUGGER))) or not SERVER.exists(),
    reason="needs Wine, MinGW's gcc, its gdb and its gdbserver.exe: IPBP_SETUP_WINE=yes scripts/setup",
)
def test_a_function_of_a_program_for_windows_changes_and_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told.c").write_text(TEXT)
    for name, work in (("old", "twice(x) + limits[1]"), ("new", "twice(x) * 1000 + limits[x & 3] + asked")):
        # Without -ffunction-sections gcc has the unwind rows of all functions in one piece, which changes as a whole.
        command = [COMPILER, "-g", "-O1", "-ffunction-sections", f"-DWORK={work}", "-c", "told.c", "-o", f"{name}.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
    program, told = tmp_path / "told.exe", tmp_path / "told.txt"
    subprocess.run([COMPILER, "old.o", "-o", program.name], cwd=tmp_path, check=True)
    old = [3 * x + 3 for x in range(9)]
    new = [(3 * x + 1) * 1000 + (x & 3) + 1 + x + 1 for x in range(9)]

    with server_of(program, told, monkeypatch) as place, Gdb(DEBUGGER) as gdb:

        def turn() -> None:
            gdb.stopped = False
            gdb.tell("continue")
            gdb.wait_until(lambda: gdb.stopped)

        for line in ("set architecture i386:x86-64", f"file {program}", f"target remote {place}", "break turn"):
            gdb.tell(line)
        for _ in range(3):
            turn()
        debugged = Debugged(program, gdb)
        patch = debugged.patch(graph_of(tmp_path / "old.o"), graph_of(tmp_path / "new.o"))
        assert patch.refusals == ()
        assert {row.name for row in patch.replacements} == {"answer"}
        debugged.apply(patch)
        for _ in range(3):
            turn()
        debugged.undo()
        for _ in range(3):
            turn()
        assert [int(line) for line in told.read_text().split()] == [*old[:3], *new[3:6], *old[6:]]
        gdb.tell("kill")
