"""Which calls of a function an exception may leave, by its exception table (Itanium C++ ABI, Exception Handling, level
II; DW_EH_PE_* of the LSB, 10.5.1).

The table is the compiler's. A call in none of its rows is one that throws nothing as far as the compiler knew: the
personality ends the program when it does.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.graph.leb import uleb

_OMITTED, _ULEB128, _UDATA4 = 0xFF, 0x01, 0x03


@dataclass(frozen=True, slots=True)
class CallSite:
    """Code from `start` to `end`, counted from the function's start. `has_pad`: an exception that comes out of it leads
    to code of the function. `catches`: it may end there, and is not only passed on."""

    start: int
    end: int
    has_pad: bool
    catches: bool


def call_sites(table: bytes) -> tuple[CallSite, ...] | None:
    """The rows of a table; None for one that is not written as gcc and clang write theirs on Linux."""
    try:
        if table[0] != _OMITTED:
            return None  # its places are counted from elsewhere
        at = 2 if table[1] == _OMITTED else uleb(table, 2)[1]
        encoding = table[at]
        length, at = uleb(table, at + 1)
        end, found = at + length, []
        while at < end:
            numbers = []
            for _column in range(3):
                if encoding == _ULEB128:
                    number, at = uleb(table, at)
                elif encoding == _UDATA4:
                    number, at = int.from_bytes(table[at : at + 4], "little"), at + 4
                else:
                    return None
                numbers.append(number)
            action, at = uleb(table, at)
            start, size, pad = numbers
            found.append(CallSite(start, start + size, bool(pad), bool(pad and action)))
    except IndexError:
        return None
    return tuple(found)
