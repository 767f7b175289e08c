"""An edit that brings functions which give memory out or take it back, where the program has others.

Code that runs goes on with those that it was bound to; only new code would call the edit's. What one has given the
other would then take back (C++17, [replacement.functions]; malloc(3), "Replacing malloc").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ipbp.errors import Refusal
from ipbp.graph.model import Binding, BlockKind, LinkGraph

# The replaceable operator new, new[], delete and delete[]: <operator-name> and the types that it takes. Those that get
# the place (`operator new(size_t, void *)`, inline in <new>) take nothing from anywhere ([new.delete.placement]).
_OPERATORS = re.compile(r"_Z(?:n[wa][mj]|d[la]Pv[mj]?)(?:St11align_val_t)?(?:RKSt9nothrow_t)?")
_FUNCTIONS = frozenset(
    ["malloc", "free", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign", "valloc"]
)


def new_allocators(new: LinkGraph, added: Iterable[int], file: str) -> Iterator[Refusal]:
    """`allocator-replaced` for each such function. `added`: blocks that the process did not have."""
    for block in added:
        name = new.block_name(block)
        shared = new.symbols.binding[new.blocks.anchor[block]] != Binding.LOCAL
        if new.blocks.kind[block] != BlockKind.CODE or not shared:
            continue
        if name in _FUNCTIONS or _OPERATORS.fullmatch(name):
            yield Refusal(
                "allocator-replaced",
                f"'{name}' is new, and the code that runs goes on with that of a library: what one of them has given "
                "the other would take back",
                "Restart the program; or make it a member of the classes that are to use it.",
                name,
                file,
            )
