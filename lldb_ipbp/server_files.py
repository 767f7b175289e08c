"""Files of the machine that an lldb-server runs on, by the connection of the process that it traces (lldb's
docs/resources/lldbplatformpackets, "vFile").

lldb lets a plugin send packets of its own (`process plugin packet send`) and shows the answers as C strings, up to the
first NUL byte. So text is read whole, and a binary file not at all; but the server also tells a file's MD5, which shows
that something which is had otherwise is what the file holds.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import Iterator, Optional

import lldb

from lldb_ipbp.packets import CommandsOf

_CHUNK = 1 << 16  # bytes; the kernel gives at most a page of /proc/PID/maps at a time
_NUMBER = re.compile(rb"F([0-9a-f]+)")


class ServerFiles:
    """The program is stopped: for a packet lldb would interrupt it. Of a server that is gone, or is another one, no
    file is there."""

    def __init__(self, commands: CommandsOf) -> None:
        self._commands = commands

    def text(self, path: str) -> Optional[bytes]:
        """All of a file; None when there is none, or it has a NUL byte."""
        content = b""
        with self._opened(path) as number:
            while number is not None:
                said = self._tell(b"vFile:pread:%s,%x,%x" % (number, _CHUNK, len(content)))
                head, _, part = said.partition(b";")
                size = _NUMBER.fullmatch(head)
                if size is None or int(size[1], 16) != len(part):
                    return None
                if not part:
                    return content
                content += part
        return None

    def digests(self, path: str) -> tuple[bytes, ...]:
        """The MD5 of the file is one of these; none where there is no such file, or the server does not tell."""
        said = re.fullmatch(rb"F,([0-9a-f]{32})", self._tell(b"vFile:MD5:" + _hex(path)))
        if said is None:
            return ()
        found = bytes.fromhex(said[1].decode())
        # lldb-server (19) shows both halves as little-endian numbers, their last byte first.
        return (found, found[7::-1] + found[:7:-1])

    @contextmanager
    def _opened(self, path: str) -> Iterator[Optional[bytes]]:
        # Its number, in hex; None for no file. To be read (flags 0), no mode.
        number = _NUMBER.fullmatch(self._tell(b"vFile:open:%s,0,0" % _hex(path)))
        try:
            yield number[1] if number else None
        finally:
            if number:
                self._tell(b"vFile:close:" + number[1])

    def _tell(self, packet: bytes) -> bytes:
        result = lldb.SBCommandReturnObject()
        self._commands.HandleCommand(f"process plugin packet send {packet.decode('ascii')}", result)
        shown = os.fsencode(result.GetOutput() or "")
        # "  packet: PACKET\nresponse: ANSWER\n"
        return shown.partition(b"\nresponse: ")[2][:-1]


def _hex(path: str) -> bytes:
    return os.fsencode(path).hex().encode()
