"""Variables that the compiler keeps whole in one object and in parts in the other.

LLVM's GlobalOpt makes `pair.0` and `pair.1` of a static structure `pair`, and `flag.b`, one byte, of a variable that
is one of two values. An edit elsewhere (the address is taken, the name becomes global) undoes that. The state is
there, but under another name and in another form, so a new variable of the name would silently start from its first
value.
"""

from __future__ import annotations

import re

from ipbp.errors import Refusal
from ipbp.graph.model import I64, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of

_PIECE = re.compile(r"\.(\d+|b)$")
_WRITABLE = (BlockKind.DATA, BlockKind.BSS, BlockKind.TLS_DATA, BlockKind.TLS_BSS)


def split_variables(old: LinkGraph, removed: tuple[int, ...], new: LinkGraph, added: I64) -> list[Refusal]:
    """A refusal for each new variable that an old one without a counterpart was, in another form. `removed`: blocks
    of `old`; `added`: blocks of `new`."""
    gone = {_whole(name): name for name in (old.block_name(b) for b in removed if old.blocks.kind[b] in _WRITABLE)}
    variables = added[is_one_of(new.blocks.kind[added], _WRITABLE)].tolist()
    refusals = []
    for name in (new.block_name(block) for block in variables):
        before = gone.get(_whole(name))
        if before is not None and before != name and (_PIECE.search(before) is None) != (_PIECE.search(name) is None):
            refusals.append(_split(name, before, new.path))
    return refusals


def _whole(name: str) -> str:
    return _PIECE.sub("", name)


def _split(name: str, before: str, file: str) -> Refusal:
    return Refusal(
        "variable-split",
        f"the compiler kept the variable '{_whole(name)}' as '{before}' and now keeps it as '{name}', which has "
        "another form",
        "Use this variable as before (the same linkage, its address taken or not), or restart the program.",
        name,
        file,
    )
