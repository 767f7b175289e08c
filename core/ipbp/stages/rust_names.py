"""Names that rustc made: the same name is the same function or variable, in whichever codegen unit it is.

A mangled name of Rust says everything that tells one instance of a function from another: the path, the generic
arguments, the crate (rustc book, "Symbol Mangling"). The legacy form is that of Itanium C++ with a hash of 16 digits as
its last part; v0 begins with `_R`. When rustc optimises, the codegen units of a crate have copies under one name.
"""

from __future__ import annotations

import re

import numpy as np

from ipbp.graph.columns import Flags
from ipbp.graph.names import Names
from ipbp.graph.rows import words_at
from ipbp.stages.name_numbers import are_numbered, base_name

_LEGACY = re.compile(r"_ZN.*17h[0-9a-f]{16}E\Z", re.DOTALL)
_HASHED = re.compile(r"\[[0-9a-f]{16}\]|::h[0-9a-f]{16}\Z")  # a crate's in v0, a legacy name's last part
_PART = re.compile(r"(?:<(?:[^<>]|<[^<>]*>)*>|[^:<]|(?<!:):(?!:))+")  # between two `::`
_OF_THREAD_LOCAL = (("VAL",), ("__RUST_STD_INTERNAL_VAL",), ("__KEY",))
_HASH = len("17h0123456789abcdefE")


def is_rust(name: str) -> bool:
    """Whether rustc made this name, which may have a compiler's number at its end."""
    plain = base_name(name)
    return plain.startswith("_R") or _LEGACY.match(plain) is not None


def source_path(name: str) -> tuple[str, ...]:
    """Where the source has what rustc calls so: crate, modules and functions, and the name itself. Closures and what
    macros make are not in it: the variable behind `thread_local! { static MODE ... }` is MODE."""
    import demangle  # only here: it takes a tenth of a second to load

    parts = _PART.findall(_HASHED.sub("", demangle.demangle(base_name(name))))
    path = tuple(part for part in parts if not part.startswith("{"))
    return path[:-1] if path[-1:] in _OF_THREAD_LOCAL and len(path) > 2 else path


def are_rust(names: Names) -> Flags:
    """The same for each name."""
    rows = names.rows
    found, mangled = names.start_with(b"_R"), names.start_with(b"_ZN")
    if not (found.any() or mangled.any()):
        return found
    legacy = np.flatnonzero(mangled & (rows.length > _HASH))
    end = rows.start[legacy] + rows.length[legacy]
    hashed = (words_at(rows.octets, end - _HASH) & np.uint64(0xFFFFFF)) == np.uint64(int.from_bytes(b"17h", "little"))
    hashed &= rows.octets[end - 1] == ord("E")
    found[legacy[hashed]] = True
    for row in np.flatnonzero(are_numbered(names)).tolist():
        found[row] = is_rust(names[row])
    return found
