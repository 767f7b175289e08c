"""The way back for a thread that makes a system call of ours, should nobody be left to take it back.

A debugger that is killed lets its program go as it is at that moment, which may be in the middle of a call that it
never meant to make, with our arguments in its registers. So the call is made at a `syscall; ret`, with the stack
pointer at a signal frame of our making below what is in use of the stack: whatever happens to us, the thread makes the
call, returns into the C library's `rt_sigreturn`, and the kernel puts all of its registers and its signal mask back
(sigreturn(2); arch/x86/kernel/signal_64.c, `rt_sigreturn`). In the ordinary course nothing of that is used.

Behind a gdbserver it is the same when that goes along with its gdb, or when another one lets the program go on.

A system call that was interrupted is made once more from its beginning then: its deadline, if it has one, starts over.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from typing import Iterable, Iterator, Mapping, Optional, Sequence

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.abi import X86_64
from ipbp.host.inferior import Inferior
from ipbp.protocol import Region

CALL = bytes([0x0F, 0x05, 0xC3])  # syscall; ret
RESTORER = bytes([0x48, 0xC7, 0xC0, 0x0F, 0, 0, 0, 0x0F, 0x05])  # mov $15, %rax; syscall

GENERAL = X86_64.frame
"""The general registers, as a signal's frame has them."""
_STRICT_SS = 0x2 | 0x4  # UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS (asm/ucontext.h)
_NO_STACK = 0x8000  # flags of an alternate stack that the kernel rejects, so that it keeps the one that there is
_SEGMENTS = (0x33, 0, 0, 0x2B)  # cs gs fs ss of a 64-bit program
_FRAME_SIZE = 320  # return address, ucontext_t, and padding: the extended state behind it is 64-aligned
_RED_ZONE = 128  # psABI, 3.2.2

_XSAVE_MAGIC, _XSAVE_END = 0x46505853, 0x46505845  # FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2 (asm/sigcontext.h)
_SOFTWARE = 464  # offset of the part of an FXSAVE image that is the kernel's to use
_TO_AVX = 0x7  # the parts of an XSAVE image for x87, SSE and AVX
_PIECE = 1 << 18


@dataclass(frozen=True)
class Ways:
    """Addresses of `CALL` and of `RESTORER`."""

    calls: tuple[int, ...]
    restorer: int


@dataclass(frozen=True)
class Lifeline:
    """A frame that lies in the stack: `pointer` is the stack pointer that leads to it, `covered` what was there."""

    pointer: int
    covered: bytes


_ways: dict[tuple[str, int, int], Optional[Ways]] = {}
"""Process, start and inode of a mapping -> what was found in it."""


def find_ways(inferior: Inferior, code: Sequence[Region]) -> Optional[Ways]:
    """The first of these mappings that has both, None when none has. The program may run, unless it is another
    machine's: what is found is kept for its stop. A debugger's trap is not looked behind: no thread shall come there.
    """
    described = inferior.describe()
    for region in code:
        key = (described.remote or str(described.pid), region.start, region.inode)
        if key not in _ways:
            is_here = described.local
            _ways[key] = _ways_in(_memory(described.pid, region)) if is_here else _ways_there(inferior, region)
        if _ways[key] is not None:
            return _ways[key]
    return None


def lay(inferior: Inferior, thread: int, ways: Ways, registers: Mapping[str, int]) -> Optional[Lifeline]:
    """Put the frame into the thread's stack; `registers`: all of `GENERAL`, as it shall go on. None where that is not
    certain to be a stack with room."""
    mask = inferior.blocked_signals(thread)
    if mask is None or not _is_plain(registers):
        return None
    try:
        state = _signal_state(inferior.extended_state(thread)) or _legacy_state(inferior, thread)
    except IpbpError as error:
        if error.code == "inferior-register":
            return None
        raise
    at = (registers["rsp"] - _RED_ZONE - _FRAME_SIZE - len(state)) & -64
    if not _has_room(inferior, registers["rsp"], at):
        return None
    content = _frame(at, ways.restorer, registers, mask, state)
    line = Lifeline(at, inferior.read(at, len(content)))
    inferior.write(at, content)
    return line


def _ways_in(pieces: Iterable[tuple[int, bytes]]) -> Optional[Ways]:
    calls: list[int] = []
    restorer = 0
    for at, content in pieces:
        while len(calls) < 2 and (found := content.find(CALL)) >= 0:
            calls.append(at + found)
            content = content[:found] + bytes(len(CALL)) + content[found + len(CALL) :]
        found = content.find(RESTORER)
        restorer = restorer or (at + found if found >= 0 else 0)
        if len(calls) == 2 and restorer:
            break
    return Ways(tuple(calls), restorer) if calls and restorer else None


def _ways_there(inferior: Inferior, region: Region) -> Optional[Ways]:
    """Found in the file that is mapped, and looked up in memory: all of that would take long over a link."""
    ways = _ways_in(_file(region))
    if ways is None:
        return None
    try:
        places = [*((at, CALL) for at in ways.calls), (ways.restorer, RESTORER)]
        is_there = all(inferior.read(at, len(wanted)) == wanted for at, wanted in places)
    except IpbpError as error:
        if error.code != "inferior-memory":
            raise
        return None
    return ways if is_there else None


def _memory(pid: int, region: Region) -> Iterator[tuple[int, bytes]]:
    for at in range(region.start, region.end, _PIECE):
        try:
            yield at, procfs.read_memory(pid, at, min(_PIECE + len(RESTORER), region.end - at))
        except IpbpError as error:
            if error.code != "inferior-memory":
                raise


def _file(region: Region) -> Iterator[tuple[int, bytes]]:
    with contextlib.suppress(OSError), open(region.path, "rb") as file:  # not here: there is no other way to look
        file.seek(region.offset)
        yield region.start, file.read(region.end - region.start)


def _is_plain(registers: Mapping[str, int]) -> bool:
    return all(name in registers for name in GENERAL)


def _has_room(inferior: Inferior, pointer: int, lowest: int) -> bool:
    """Whether the stack pointer is in the main thread's stack or in one with a guard page below, and it alone: below
    others, as coroutines have, may be anything."""
    regions = inferior.regions()
    for before, region in zip([None, *regions], regions):
        if region.start <= pointer < region.end:
            guarded = before is not None and before.end == region.start and not before.protection
            if region.start > lowest or not (region.path == "[stack]" or guarded):
                return False
            pointers = [row.stack_pointer for row in inferior.threads()]
            return sum(other is None or region.start <= other < region.end for other in pointers) == 1
    return False


def _frame(at: int, restorer: int, registers: Mapping[str, int], mask: int, state: bytes) -> bytes:
    general = b"".join(struct.pack("<Q", registers[name]) for name in GENERAL)
    context = struct.pack("<QQ", _STRICT_SS, 0) + struct.pack("<QiiQ", 0, _NO_STACK, 0, 0) + general
    # Segments, error code, trap number, old mask, fault address, where the extended state is, reserved.
    context += struct.pack("<4H4QQ64x", *_SEGMENTS, 0, 0, 0, 0, at + _FRAME_SIZE) + struct.pack("<Q", mask)
    return (struct.pack("<Q", restorer) + context).ljust(_FRAME_SIZE, b"\0") + state


def xsave_image(legacy: bytes, upper: bytes) -> bytes:
    """What `Inferior.extended_state` gives, of an FXSAVE image and the upper halves of ymm0..15 (Intel SDM vol. 1,
    10.5.1, 13.4)."""
    features = _TO_AVX.to_bytes(8, "little")
    return legacy[:_SOFTWARE] + features.ljust(512 - _SOFTWARE, b"\0") + features.ljust(64, b"\0") + upper


def _signal_state(xsave: bytes) -> bytes:
    """An XSAVE image as ptrace(2) has it (NT_X86_XSTATE) in the form of a signal frame; b"" for none."""
    if len(xsave) <= 512 + 64:
        return b""
    (features,) = struct.unpack_from("<Q", xsave, _SOFTWARE)
    software = struct.pack("<IIQI28x", _XSAVE_MAGIC, len(xsave) + 4, features, len(xsave))
    return xsave[:_SOFTWARE] + software + xsave[_SOFTWARE + len(software) :] + struct.pack("<I", _XSAVE_END)


def _legacy_state(inferior: Inferior, thread: int) -> bytes:
    """An FXSAVE image (Intel SDM vol. 1, 10.5.1) of what is known: xmm0..15, and control words as a program starts."""
    names = [f"xmm{number}" for number in range(16)]
    vectors = inferior.vectors(thread, names)
    head = struct.pack("<H22xII", 0x37F, 0x1F80, 0xFFFF).ljust(160, b"\0")
    return (head + b"".join(vectors[name].to_bytes(16, "little") for name in names)).ljust(512, b"\0")
