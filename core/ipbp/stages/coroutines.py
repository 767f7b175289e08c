"""Coroutines of C++ that an edit changed: those that wait would go on in new code.

A coroutine's frame holds the address of the function that goes on with it, a number that says where, and its
variables, at places that the compiler chose for the old body. The function's old entry leads to its new code, which
would read another frame. gcc calls the functions `f.Frame.actor` and `.destroy`, LLVM `f.resume`, `.destroy` and
`.cleanup`.
"""

from __future__ import annotations

import re

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.compare import Comparison, Status

_PARTS = (b".actor", b".resume", b".destroy", b".cleanup")
_PART = re.compile(r"(_Z.*?)(?:P[^.]*\.Frame)?\.(?:actor|resume|destroy|cleanup)(?:\.cold)?\Z", re.DOTALL)


def changed_coroutines(new: LinkGraph, comparison: Comparison, file: str) -> list[Refusal]:
    """`coroutine-changed` for each coroutine whose functions are not what they were."""
    anchors = new.blocks.anchor
    changed = (new.blocks.kind == BlockKind.CODE) & (comparison.status == Status.CHANGED)
    names = new.symbols.name
    rows = {row for part in _PARTS for row in names.containing(part).tolist()}
    blocks = [block for block in np.flatnonzero(changed).tolist() if int(anchors[block]) in rows]
    matches = (_PART.match(new.block_name(block)) for block in blocks)
    return [_changed(owner, file) for owner in dict.fromkeys(match[1] for match in matches if match)]


def _changed(name: str, file: str) -> Refusal:
    return Refusal(
        "coroutine-changed",
        f"the coroutine '{name}' changed, and one that waits would go on in its new code with the frame of the old",
        "Restart the program; or, when none waits, `hotpatch --allow-layout all`.",
        name,
        file,
    )
