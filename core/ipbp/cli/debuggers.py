"""Which gdb and which lldb to use: the first on PATH that has Python inside, since the plugin is Python.

Distributions ship debuggers without Python (gdb-minimal) and lldb under a versioned name only, so the name alone says
nothing: each candidate is asked to compute something.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ipbp.errors import IpbpError

DEBUGGERS = ("gdb", "lldb")
_ASK = {
    "gdb": ("-nx", "-batch", "-ex", "python print(6 * 7)"),
    "lldb": ("--no-lldbinit", "-b", "-o", "script print(6 * 7)"),
}
_PATIENCE = 60  # seconds for a debugger to start, on a machine that is busy
_known: set[tuple[str, str]] = set()
"""Name and path of those that have Python: a command that patches many processes asks each once."""


def find_debugger(name: str) -> str:
    """The path of a `gdb` or `lldb` that has Python.

    IPBP_GDB or IPBP_LLDB names one outright; otherwise the plain name, and for lldb the versioned names before it,
    19 first and then the newest. Errors: `debugger-missing`, `debugger-without-python`.
    """
    candidates = list(_candidates(name))
    for candidate in candidates:
        if _has_python(name, candidate):
            return candidate
    if candidates:
        raise IpbpError(
            "debugger-without-python",
            f"no {name} here can run Python: {', '.join(candidates)}",
            f"Install a {name} that is built with Python (Debian and Ubuntu: gdb; lldb with python3-lldb).",
        )
    raise IpbpError(
        "debugger-missing",
        f"there is no {name} on PATH",
        f"Install {name}, or name one in IPBP_{name.upper()}.",
    )


def _candidates(name: str) -> Iterable[str]:
    chosen = os.environ.get(f"IPBP_{name.upper()}")
    names = [chosen] if chosen else ([*_versioned_lldb(), name] if name == "lldb" else [name])
    return dict.fromkeys(path for path in map(shutil.which, names) if path)


def _versioned_lldb() -> list[str]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found = {path.name for folder in folders if folder.is_dir() for path in folder.glob("lldb-[0-9]*")}
    versions = sorted((int(name[5:]) for name in found if re.fullmatch(r"lldb-\d+", name)), reverse=True)
    return [f"lldb-{version}" for version in sorted(versions, key=lambda v: v != 19)]


def _has_python(name: str, path: str) -> bool:
    if (name, path) in _known:
        return True
    try:
        run = subprocess.run(
            [path, *_ASK[name]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    if "42" not in run.stdout.split():
        return False
    _known.add((name, path))
    return True
