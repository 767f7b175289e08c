"""Another way to write an access of a thread-local variable, in the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.graph.edges import EdgeKind

NONE = -1
"""In `Rewriting`: there is no such field."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """`code` stands at `start` in place of as many bytes. Its `field` holds the offset from the thread pointer, as an
    edge of `kind`, or, `through_cell`, the distance to a cell that does. `call`: field of the call of __tls_get_addr
    that is gone. `more`: what the addend grows by, because an offset does not count from the instruction's end.
    """

    start: int
    code: bytes
    field: int
    call: int = NONE
    through_cell: bool = False
    kind: EdgeKind = EdgeKind.TPOFF32
    more: int = 4

    @property
    def end(self) -> int:
        return self.start + len(self.code)

    def stands_in(self, code: bytes) -> bool:
        """Whether `code` has these bytes here, whatever its field holds."""
        found = code[self.start : self.end]
        if self.field != NONE:
            at = self.field - self.start
            found = found[:at] + bytes(4) + found[at + 4 :]
        return found == self.code
