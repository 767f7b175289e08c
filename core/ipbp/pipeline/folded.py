"""Functions of other files that gold folded into one that is about to change.

gold leaves the symbol of a folded static function out; only the debug information still has both units at one
address. A definition that several units share by right (an inline function of C++) is weak.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ipbp.build.producer import units_at
from ipbp.errors import IpbpError, Refusal
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import Binding
from ipbp.stages.select import Replaced


def folded_elsewhere(image: LoadedImage, replaced: Sequence[Replaced]) -> list[Refusal]:
    """`entry-shared` for each of these functions that is a function of another file, too; none where the image's symbol
    table tells such things itself."""
    table = image.symbols
    weak = set(table.address[np.flatnonzero(table.binding == Binding.WEAK)].tolist())
    rows = [row for row in replaced if row.entry not in weak and image.start <= row.entry < image.end]
    if not image.leaves_out_folded or not rows:
        return []
    try:
        units = units_at(Path(image.debug_file), {row.entry - image.bias for row in rows})
    except IpbpError:  # debug information that cannot be read tells nothing; whoever needs it says so
        return []
    found = []
    for row in rows:
        sources = [str(unit.source) for unit in units[row.entry - image.bias]]
        if len(sources) > 1:
            found.append(_shared(row.name, sources))
    return found


def _shared(name: str, sources: Sequence[str]) -> Refusal:
    return Refusal(
        "entry-shared",
        f"'{name}' is one function with others of {', '.join(sources[:4])} in the running program (identical code "
        "folding)",
        "Link without --icf and start the program once more.",
        name,
    )
