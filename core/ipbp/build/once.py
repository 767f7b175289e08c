"""One build for several processes: inside `one_build()` each command of the project's runs once.

Processes that are patched together are planned one after the other, and each plan finds the same sources edited. All of
them get the objects of the first time, also when a file is saved meanwhile: they are to run the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

T = TypeVar("T")

_made: dict[Hashable, object] | None = None


@contextmanager
def one_build(made: dict[Hashable, object] | None = None) -> Iterator[None]:
    """What is made inside the block by `once` is kept until its end, or in `made`, for a block that goes on with it.
    Blocks inside of it are part of it."""
    global _made
    before = _made
    if before is None:
        _made = {} if made is None else made
    try:
        yield
    finally:
        _made = before


def is_one_build() -> bool:
    """Whether this is inside such a block."""
    return _made is not None


def once(key: Hashable, make: Callable[[], T]) -> T:
    """What `make` returns; within `one_build` what it returned the first time for this key. `key`: says all that it
    depends on, but for the content of files. Errors of `make` are not kept."""
    if _made is None:
        return make()
    if key not in _made:
        _made[key] = make()
    return cast(T, _made[key])
