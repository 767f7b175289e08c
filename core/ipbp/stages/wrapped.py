"""Names that the linker exchanged: `--wrap=f` (ld(1)).

An undefined `f` means `__wrap_f` then, and an undefined `__real_f` means `f`. Nothing in the linked image says that the
option was given, but names that begin so have no other purpose.
"""

from __future__ import annotations

_WRAP, _REAL = "__wrap_", "__real_"


def wrapper_of(name: str) -> str:
    """What an undefined `name` would mean under --wrap."""
    return _WRAP + name


def real_name(name: str) -> str:
    """`f` for `__real_f`, "" for any other name."""
    return name.removeprefix(_REAL) if name.startswith(_REAL) else ""


def possible_names(name: str) -> tuple[str, ...]:
    """All that an undefined `name` may mean in the linked image."""
    return tuple(filter(None, (name, wrapper_of(name), real_name(name))))
