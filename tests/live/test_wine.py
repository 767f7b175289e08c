"""Programs for Windows, in gdbserver.exe under Wine: `hotpatch` in gdb changes their code, again, and back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from debuggers import Gdb

ROOT = Path(__file__).parents[2]
COMPILER, DEBUGGER = "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-gdb"
SERVER = Path("/usr/share/win64/gdbserver.exe")  # Debian's gdb-mingw-w64-target
pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not all(map(shutil.which, ("wine", COMPILER, DEBUGGER))) or not SERVER.exists(),
        reason="needs Wine, MinGW's gcc, its gdb and its gdbserver.exe: IPBP_SETUP_WINE=yes scripts/setup",
    ),
]

TEXT = """
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>
struct pair { int a; long long b; };
static struct pair kept = {1, 2};
static jmp_buf back;
static int asked, deep;
static __thread int mine;
static const int limits[4] = {1, 2, 3, 4};
static volatile long steps, last;

/* Through how many functions the system's own unwinder comes from here. */
__attribute__((noinline)) static int depth(void) {
    CONTEXT at;
    int count = 0;
    RtlCaptureContext(&at);
    while (at.Rip && count < 50) {
        DWORD64 base, frame;
        void *data;
        PRUNTIME_FUNCTION row = RtlLookupFunctionEntry(at.Rip, &base, NULL);
        if (row)
            RtlVirtualUnwind(UNW_FLAG_NHANDLER, base, at.Rip, row, &at, &data, &frame, NULL);
        else {
            at.Rip = *(DWORD64 *)at.Rsp;
            at.Rsp += 8;
        }
        count++;
    }
    return count;
}
__attribute__((noinline)) static int twice(int x) { static int inner; inner++; return 2 * x + inner; }
__attribute__((noinline)) static void leave(int x) { if (x % 2) longjmp(back, x + 1); }
__attribute__((noinline)) int answer(int x) {
    volatile int room[20];
    room[x % 20] = x;
    asked++;
    mine++;
    kept.a++;
    deep = depth();
    leave(x);
    return twice(x) + limits[1];
}
__attribute__((noinline)) int step(int x) { InterlockedIncrement(&steps); return x + 100; }
static DWORD WINAPI work(void *unused) {
    for (int x = 0;; x++) {
        char *room = malloc(100 + x % 50);
        room[0] = (char)(x & 15);
        InterlockedExchange(&last, step(room[0]) - room[0]);
        free(room);
        if (x % 7 == 0) Sleep(1);
    }
    return 0;
}
__attribute__((noinline)) void turn(void) { __asm__ volatile(""); }
__attribute__((noinline)) void wide(int now) { if (now > 1000) __asm__ volatile("vaddps %ymm0, %ymm1, %ymm2"); }
int main(int count, char **words) {
    FILE *told = fopen(words[1], "w");
    for (int n = atoi(words[2]); n > 0; n--) CreateThread(NULL, 0, work, NULL, 0, NULL);
    for (volatile int x = 0; x < 1000; x++) {
        int left = setjmp(back);
        int value = left ? -left : answer(x);
        fprintf(told, "%d %d %ld %ld\\n", value, deep, steps, last);
        fflush(told);
        Sleep(atoi(words[2]) ? 20 : 0);
        free(malloc(10));
        wide(x);
        turn();
    }
    return 0;
}
"""
FLAGS = ("-g", "-O1")
SEPARATE = ("-ffunction-sections", "-fdata-sections")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wine's folder, which it fills at the first start."""
    return tmp_path_factory.mktemp("wine") / "prefix"


@dataclass
class Windows:
    """A program that gdb holds at `turn`. `threads` more run beside its main one."""

    gdb: Gdb
    folder: Path

    def turn(self) -> list[int]:
        """Lets it go round once: what it has told then (`answer` or the way past it, the unwinder's depth, the count of
        steps, the last step)."""
        self.go_on()
        return [int(word) for word in (self.folder / "told.txt").read_text().splitlines()[-1].split()]

    def go_on(self) -> None:
        """To the next breakpoint."""
        self.gdb.stopped = False
        self.gdb.tell("continue")
        self.gdb.wait_until(lambda: self.gdb.stopped)

    def edit(self, old: str, new: str) -> None:
        source = self.folder / "told.c"
        text = source.read_text()
        assert old in text
        source.write_text(text.replace(old, new))

    def object(self, name: str, work: str, *flags: str) -> Path:
        """The object of the source with another `answer`."""
        text = (self.folder / "told.c").read_text().replace("twice(x) + limits[1]", work)
        (self.folder / f"{name}.c").write_text(text)
        command = [COMPILER, *(flags or FLAGS), *SEPARATE, "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(command, cwd=self.folder, check=True)
        return self.folder / f"{name}.o"


@contextmanager
def started(
    folder: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch, threads: int = 0, *flags: str
) -> Iterator[Windows]:
    """The program, built as its compile_commands.json says, that has gone three rounds."""
    command = [COMPILER, *FLAGS, *flags, "-c", "told.c", "-o", "told.o"]
    (folder / "told.c").write_text(TEXT)
    row = {"directory": str(folder), "file": "told.c", "output": "told.o", "arguments": command}
    (folder / "compile_commands.json").write_text(json.dumps([row]))
    subprocess.run(command, cwd=folder, check=True)
    subprocess.run([COMPILER, "told.o", "-o", "told.exe"], cwd=folder, check=True)
    with server_of(folder, prefix, monkeypatch, threads) as place, Gdb(DEBUGGER) as gdb:
        for line in (f"file {folder}/told.exe", f"target remote {place}", f"source {ROOT}/gdb_ipbp/gdb_ipbp.py"):
            gdb.tell(line)
        gdb.tell("break turn")
        windows = Windows(gdb, folder)
        for _ in range(3):
            windows.turn()
        yield windows
        gdb.tell("kill")


@contextmanager
def server_of(folder: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> Iterator[str]:
    """Wine's gdbserver with the program that it has started; where it listens."""
    monkeypatch.setenv("WINEPREFIX", str(prefix))
    monkeypatch.setenv("WINEDEBUG", "-all")
    monkeypatch.delenv("DISPLAY", raising=False)
    command = ["wine", str(SERVER), "127.0.0.1:0", "told.exe", "told.txt", str(threads)]
    server = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        port = next(found[1] for line in server.stderr if (found := re.match(r"Listening on port (\d+)", line)))
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run(["wineserver", "-k"], check=False)
        server.kill()
        server.communicate()


def test_named_objects_become_the_code_and_state_stays(
    tmp_path: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path, prefix, monkeypatch, 0, *SEPARATE) as windows:
        old = tmp_path / "told.o"
        new, newer = windows.object("new", "twice(x) * 1000 + limits[x & 3] + mine"), windows.object("newer", "kept.a")
        value, depth, *_ = windows.turn()
        assert value == -4  # by longjmp
        # 4 = x, the third call of `twice`, the fifth of `answer`
        said = windows.gdb.tell(f"hotpatch object {old} {new}")
        assert said.startswith("patched 1 function in "), said
        assert windows.turn()[:2] == [(2 * 4 + 3) * 1000 + limits(4) + 5, depth]
        assert windows.turn()[:2] == [-6, depth]

        said = windows.gdb.tell(f"hotpatch object {new} {newer}")
        assert said.startswith("patched "), said
        assert windows.turn()[:2] == [1 + 7, depth]
        said = windows.gdb.tell("hotpatch status")
        assert re.search(r"patch 1: .*\n  answer  version 2 .*\npatch 2: .*\n  answer  version 3 ", said), said
        assert windows.gdb.tell("hotpatch undo").startswith("undone patch 2: answer")
        assert windows.turn()[:2] == [-8, depth]
        assert windows.turn()[0] == (2 * 8 + 4) * 1000 + limits(8) + 9
        assert windows.gdb.tell("hotpatch undo").startswith("undone patch 1: answer")
        assert windows.turn()[:2] == [-10, depth]
        assert windows.turn()[:2] == [2 * 10 + 5 + 2, depth]
        assert "no patch is applied" in windows.gdb.tell("hotpatch status")


MEMORY = """
python
from gdb_ipbp.inferior import GdbInferior
from ipbp.errors import IpbpError
from ipbp.host import inject
def tried(act):
    try: return act() or "done"
    except IpbpError as error: return error.code
def last_error(): return int(gdb.parse_and_eval("$_tlb->last_error_number"))
inferior, place = GdbInferior(print), {place:#x}
gdb.execute("set var $_tlb->last_error_number = 4711")
told = [tried(lambda: inject.allocate(inferior, place, 1 << 17, "rw"))]
inferior.write(place + 5, b"new")
told.append(inferior.read(place + 4, 5))
told.append(tried(lambda: inject.allocate(inferior, place + (1 << 16), 1 << 16, "r")))
told.append(tried(lambda: inject.release(inferior, place, 1 << 17)))
told.append(tried(lambda: inferior.read(place, 1)))
told.append(tried(lambda: inject.allocate(inferior, int(gdb.parse_and_eval("$_tlb")) & -65536, 1 << 16, "r")))
told.append(last_error())
print(told)
end
"""


@pytest.mark.slow
def test_memory_is_asked_for_and_given_back(tmp_path: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(tmp_path, prefix, monkeypatch) as windows:
        script = tmp_path / "memory.gdb"
        script.write_text(MEMORY.replace("{place:#x}", "0x160000000"))
        said = windows.gdb.tell(f"source {script}").strip()
        taken = "inject-address-taken"
        assert said == str(["done", b"\0new\0", taken, "done", "inferior-memory", taken, 4711])
        assert windows.turn()[0] == -4


def limits(x: int) -> int:
    return (1, 2, 3, 4)[x & 3]


def test_edits_are_compiled_and_patched_while_threads_run(
    tmp_path: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path, prefix, monkeypatch, 4) as windows:
        assert windows.turn()[3] == 100
        assert "nothing changed" in windows.gdb.tell("hotpatch")
        before = "x + 100"
        for number in range(200, 208):
            windows.edit(before, before := f"x + {number}")
            said = windows.gdb.tell("hotpatch")
            while "[program-busy]" in said:
                windows.turn()
                said = windows.gdb.tell("hotpatch")
            assert said.startswith("patched 1 function in told.c: step"), said
            steps = windows.turn()[2]
            # What was under way is over when there was another one.
            told = windows.turn()
            while told[2] < steps + 50:
                told = windows.turn()
            assert told[3] == number
        while "[program-busy]" in (said := windows.gdb.tell("hotpatch undo 0")):
            windows.turn()
        assert said.startswith("undone patches 8, 7, 6, 5, 4, 3, 2, 1: step"), said
        steps = windows.turn()[2]
        while (told := windows.turn())[2] < steps + 50:
            pass
        assert told[3] == 100

        # Where a thread stands whose breakpoint gdb is still to be told of.
        windows.edit("twice(x) + limits[1]", "twice(x) + limits[2]")
        windows.gdb.tell("disable 1")
        windows.gdb.tell("break *answer")
        said = "[program-busy]"
        while "[program-busy]" in said:
            windows.go_on()
            windows.gdb.tell("stepi")  # push %rdi
            said = windows.gdb.tell("hotpatch")
        assert "[safepoint-stuck]" in said


@pytest.mark.slow
def test_what_is_not_sure_is_refused(tmp_path: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(tmp_path, prefix, monkeypatch) as windows:
        old, work = tmp_path / "told.o", "twice(x) + limits[2]"
        plain = windows.object("plain", work, "-O1")
        assert "[no-type-information]" in windows.gdb.tell(f"hotpatch object {old} {plain}")
        windows.edit("twice(x) + limits[1]", work)
        windows.edit("struct pair { int a;", "struct pair { int a, more;")
        assert "[layout-changed]" in windows.gdb.tell("hotpatch")
        windows.edit("struct pair { int a, more;", "struct pair { int a;")
        windows.edit("static int asked,", "static long long asked; static int")
        assert "[variable-type-changed]" in windows.gdb.tell("hotpatch")
        windows.edit("static long long asked; static int", "static int asked,")
        assert "[frame-machine]" in windows.gdb.tell("hotpatch --frame restart")
        windows.gdb.tell("break RtlAllocateHeap")
        windows.edit("return twice(x)", "return 1 + twice(x)")
        windows.go_on()
        assert "[program-busy]" in windows.gdb.tell("hotpatch")  # inside of the heap
        windows.gdb.tell("delete 2")
        windows.gdb.tell("break wide")
        windows.go_on()
        assert "[inferior-register]" in windows.gdb.tell("hotpatch")  # AVX may be in use
        windows.gdb.tell("delete 3")
        windows.turn()
        assert "patched 1 function" in windows.gdb.tell("hotpatch")
        subprocess.run(["gcc", "-g", "-c", "-x", "c", "-", "-o", "elf.o"], input=b"int answer(int x) { return x; }",
                       cwd=tmp_path, check=True)  # fmt: skip
        assert "[object-wrong-architecture]" in windows.gdb.tell(f"hotpatch object {old} {tmp_path}/elf.o")
        # Another program than the one that runs.
        subprocess.run([COMPILER, "told.o", "-s", "-o", "other.exe"], cwd=tmp_path, check=True)
        windows.gdb.tell(f"file {tmp_path}/other.exe")
        new = windows.object("new", work)
        assert "[image-unreadable]" in windows.gdb.tell(f"hotpatch object {old} {new}")
