"""The numbers that tell local functions of one name apart, when several objects are one graph (`graph.merge`)."""

from __future__ import annotations

import re

from ipbp.graph.names import Names

PROMOTED = b".llvm."
"""Between a name that ThinLTO made global and the hash of the module that it was local to."""
_NUMBER = re.compile(r"(?<!\.llvm)\.\d{1,6}\Z")


def with_copy_number(name: str, number: int) -> str:
    return f"{name}.{number}"


def without_copy_number(names: Names) -> Names:
    """The names as the objects have them."""
    rows, _dot, _is_single = names.dotted_numbers()
    return names.with_names(rows, [_NUMBER.sub("", names[row]) for row in rows.tolist()])
