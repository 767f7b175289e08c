"""When Python looks for garbage in cycles."""

from __future__ import annotations

import atexit
import gc


def look_seldom() -> None:
    """Debug information becomes hundreds of thousands of small objects, none of them garbage in a cycle: by default,
    looking for such takes as long as reading."""
    gc.set_threshold(100_000, 20, 50)


def keep_modules() -> None:
    """What is there now stays for good, and is never looked at again. To be called when all modules are loaded: most of
    what a look through everything takes is theirs."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # lief counts what is left of it, and would list all of it
