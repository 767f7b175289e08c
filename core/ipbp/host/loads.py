"""Libraries that the program's own dynamic loader opens for a patch.

The call is dlopen's, in one of the program's threads; its errno is put back. The handle that it returns points to the
library's entry in the loader's list, whose first word is where the library was loaded (struct link_map in <link.h>;
musl's struct dso begins in the same way).
"""

from __future__ import annotations

from functools import partial
from typing import Sequence

from ipbp.errors import IpbpError
from ipbp.host.inferior import Inferior
from ipbp.host.rollback import Steps, write_surely
from ipbp.protocol import Load

_LONGEST_TEXT = 1024  # of dlerror's


def load_libraries(steps: Steps, loads: Sequence[Load]) -> None:
    """Open each of them and fill in the fields that wait for it; the way back closes them.

    Errors: `library-not-loaded`, with what dlerror(3) says.
    """
    for load in loads:
        handle = _open(steps, load)
        steps.will(partial(_close, steps, load, handle))
        if load.cell:
            _fill(steps.inferior, load, handle)


def _open(steps: Steps, load: Load) -> int:
    inferior = steps.inferior
    errno_at = inferior.call(load.errno, ())
    errno = inferior.read(errno_at, 4)
    try:
        # A call that does not come back may still be reading the name.
        steps.memory_kept = True
        handle = inferior.call(load.open, (load.name, load.flags))
        text = "" if handle else _text(inferior, inferior.call(load.error, ()))
        steps.memory_kept = False
    finally:
        write_surely(inferior, errno_at, errno)
    if handle == 0:
        raise IpbpError(
            "library-not-loaded",
            f"the program could not load {load.file}",
            "See what its loader says.",
            text,
        )
    return handle


def _fill(inferior: Inferior, load: Load, handle: int) -> None:
    base = int.from_bytes(inferior.read(handle, 8), "little")
    number = int.from_bytes(inferior.read(base + load.cell, 8), "little", signed=True)
    if not -load.limit <= number < load.limit:
        raise IpbpError(
            "library-not-loaded",
            f"the program's loader gave {load.file} a place in its threads ({number:#x}) that code does not reach",
            "Restart the program.",
        )
    for address, width, addend, bits, at, shift in load.fields:
        content = (number + addend).to_bytes(width, "little", signed=True)
        if bits:
            content = _with_part(inferior.read(address, width), number + addend >> shift, bits, at)
        write_surely(inferior, address, content)
    if load.shown:
        with open(load.patch, "r+b") as file:
            for place, width, addend in load.shown:
                file.seek(place)
                file.write((number + addend).to_bytes(width, "little", signed=True))


def _with_part(content: bytes, number: int, bits: int, at: int) -> bytes:
    """The field with the lowest `bits` of the number from its bit `at`."""
    mask = (1 << bits) - 1
    whole = int.from_bytes(content, "little") & ~(mask << at) | (number & mask) << at
    return whole.to_bytes(len(content), "little")


def _close(steps: Steps, load: Load, handle: int) -> None:
    if not steps.memory_kept:
        steps.inferior.call(load.close, (handle,))


def _text(inferior: Inferior, address: int) -> str:
    # A C string; it may end anywhere before the end of its page.
    content = b""
    while address and len(content) < _LONGEST_TEXT and b"\0" not in content:
        content += inferior.read(address + len(content), 16)
    return content.partition(b"\0")[0].decode("utf-8", "replace")
