"""A machine of its own for a test: a Linux kernel for AArch64 in qemu-system-aarch64, with threads, ptrace and all.

Debian's kernel, and a file system in memory with our own first process (`programs/guest_init.c`), gdbserver, the C and
C++ libraries of the cross compiler, and the programs of the test, which lie at the same path there as here. What runs
there is started over a forwarded port, and talks through it; gdbserver listens at a second one.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

from scenario import PROGRAMS
from sessions import GdbserverSession

ROOT = Path(__file__).parents[2]
PARTS = ROOT / "build/aarch64"  # what scripts/setup unpacks there
SYSROOT = Path("/usr/aarch64-linux-gnu")
_LIBRARIES = ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libthread_db.so.1")
_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "failover", "net_failover", "virtio_net")  # in order of need
_PATIENCE = 300.0
_BOOT_SECONDS = 600.0  # measured: 7 where nothing else runs, and more than 120 where twenty others do


def missing() -> str:
    """What is not here of all that a guest needs, "" when nothing is."""
    if not shutil.which("qemu-system-aarch64") or not _kernels() or not (PARTS / "usr/bin/gdbserver").exists():
        return "needs qemu-system-aarch64, and a kernel and gdbserver for it: IPBP_SETUP_AARCH64=yes scripts/setup"
    return ""


def _kernels() -> list[Path]:
    return sorted(PARTS.glob("boot/vmlinuz-*"))


class GuestTalk:
    """A program there that answers line by line. `pid`: its number there."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(_PATIENCE)
        self._line = line
        self._text = line.makefile("rw", encoding="utf-8", newline="\n")
        try:
            self.pid = int(self.hear())
        except (OSError, ValueError):  # nobody is there yet
            self.close()
            raise

    def hear(self) -> str:
        return self._text.readline().rstrip("\n")

    def ask(self, line: str) -> str:
        self._text.write(line + "\n")
        self._text.flush()
        return self.hear()

    def leave(self) -> list[str]:
        """The program comes to the end of its input; what it says there."""
        self._line.shutdown(socket.SHUT_WR)
        try:
            return self._text.read().splitlines()
        finally:
            self.close()

    def close(self) -> None:
        self._text.close()
        self._line.close()


@dataclass(frozen=True)
class Guest:
    """`command`, `stub`, `processors`: ports here, of its first process, of what listens at port 2 there, and of the
    emulator's own stub."""

    command: int
    stub: int
    processors: int

    def start(self, *words: str) -> GuestTalk:
        line = socket.create_connection(("127.0.0.1", self.command))
        line.sendall(" ".join(words).encode() + b"\n")
        return GuestTalk(line)  # which closes it

    def signal(self, number: int, pid: int) -> None:
        talk = self.start("signal", str(number), str(pid))
        talk.close()
        assert talk.pid == 0  # what kill(2) said

    @contextlib.contextmanager
    def running(self, program: Path) -> Iterator[GuestTalk]:
        """The program, which is killed in the end."""
        talk = self.start(str(program))
        try:
            yield talk
        finally:
            with contextlib.suppress(AssertionError):
                self.signal(9, talk.pid)
            talk.close()


@contextlib.contextmanager
def booted(folder: Path, programs: Sequence[Path], compiler: str, cpu: str = "cortex-a57") -> Iterator[Guest]:
    """A guest with these programs, which is switched off in the end. `folder`: for its files."""
    init = folder / "init"
    subprocess.run([compiler, "-O2", "-static", PROGRAMS / "guest_init.c", "-o", init], check=True)
    (folder / "initrd").write_bytes(_archive({**_system(init), **{str(path): path for path in programs}}))
    command, stub, processors = _free_ports()
    forward = f"hostfwd=tcp:127.0.0.1:{command}-:1,hostfwd=tcp:127.0.0.1:{stub}-:2"
    qemu = ["nice", "qemu-system-aarch64", "-machine", "virt", "-cpu", cpu, "-smp", "2", "-m", "512"]
    qemu += ["-display", "none", "-nodefaults", "-serial", f"file:{folder}/console", "-no-reboot"]
    qemu += ["-kernel", str(_kernels()[-1]), "-initrd", str(folder / "initrd")]
    qemu += ["-netdev", f"user,id=net,restrict=on,{forward}", "-device", "virtio-net-device,netdev=net"]
    qemu += ["-gdb", f"tcp:127.0.0.1:{processors}"]
    words = ["console=ttyAMA0", "quiet", "panic=-1", "--", *(f"/{name}.ko" for name in _MODULES)]
    with subprocess.Popen([*qemu, "-append", " ".join(words)]) as process:
        try:
            guest = Guest(command, stub, processors)
            _wait_for(guest, process, folder / "console")
            yield guest
        finally:
            process.kill()


def _wait_for(guest: Guest, process: subprocess.Popen[bytes], console: Path) -> None:
    deadline = monotonic() + _BOOT_SECONDS
    while True:
        with contextlib.suppress(OSError, ValueError):  # qemu takes connections before anybody there does
            guest.signal(0, 1)
            return
        if process.poll() is not None or monotonic() > deadline:
            raise AssertionError(console.read_text(errors="replace")[-3000:])
        sleep(0.2)


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in free]


def _system(init: Path) -> dict[str, Path]:
    files = {"/init": init, "/bin/gdbserver": PARTS / "usr/bin/gdbserver"}
    files.update({f"/lib/{name}": SYSROOT / "lib" / name for name in _LIBRARIES})
    files.update({f"/{name}.ko": next(PARTS.glob(f"lib/modules/*/kernel/**/{name}.ko")) for name in _MODULES})
    return files


def _archive(files: dict[str, Path]) -> bytes:
    """The files and their folders as a cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"/"}
    rows = [(name, 0o040755, b"") for name in sorted(folders)]
    rows += [(name, 0o100755, path.read_bytes()) for name, path in files.items()]
    return b"".join(_member(number, *row) for number, row in enumerate([*rows, ("/TRAILER!!!", 0, b"")], 1))


def _member(number: int, name: str, mode: int, content: bytes) -> bytes:
    text = name[1:].encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(text), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + text
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


class GuestSession(GdbserverSession):
    """gdb here, gdbserver there."""

    sysroot = str(SYSROOT)
    guest: Guest
    program: Path

    def stop(self) -> None:
        self.guest.signal(2, self.pid)
        self.wait_until_stopped()

    def connect(self, server: str) -> None:
        # The server's own words come last, where a pipe would be: it listens instead.
        talk = self.guest.start("/bin/gdbserver", *("0.0.0.0:2" if word == "-" else word for word in server.split()))
        for line in (f"file {self.program}", f"set sysroot {self.sysroot}"):
            said = self.tell(line)
            assert "rror" not in said, said
        while "Listening" not in (line := talk.hear()):
            assert line, "gdbserver has ended"
        Thread(target=_drain, args=(talk,), daemon=True).start()
        said = self.tell(f"target {self.kind} 127.0.0.1:{self.guest.stub}")
        assert "rror" not in said, said


def _drain(talk: GuestTalk) -> None:
    with contextlib.closing(talk), contextlib.suppress(OSError):
        while talk.hear():
            pass
