"""Which Python the engine runs in. The debugger's own cannot be used: it is whatever the debugger was built with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, Optional

from ipbp.errors import IpbpError

_NAMES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3", "python")
_PROBE = "import sys; assert sys.version_info >= (3, 11); import ipbp.engine"


def find_python(package: Optional[Path] = None) -> str:
    """Path of the interpreter that ipbp is installed in. `package`: the folder of this package, for tests.

    In this order: IPBP_PYTHON; the one whose site-packages hold these files, or the `.venv` of the checkout that
    does; the one that `ipbp` wrote down for us; one on PATH that can import ipbp. Errors: `engine-python`.
    """
    named = os.environ.get("IPBP_PYTHON")
    if named:
        if not _is_executable(Path(named)):
            raise _missing(f"IPBP_PYTHON is {named}, which is not a program")
        return named
    for path in (*_beside(package or Path(__file__).absolute().parents[1]), *_recorded()):
        if _is_executable(path):
            return str(path)
    for name in _on_search_path():
        if _can_import(name):
            return name
    raise _missing("no Python 3.11 or newer with ipbp in it was found")


def _beside(package: Path) -> Iterator[Path]:
    site = package.parent
    if re.fullmatch(r"(site|dist)-packages", site.name):
        yield site.parents[2] / "bin" / "python"  # <prefix>/lib/pythonX.Y/site-packages
    if site.name == "core":
        yield site.parent / ".venv" / "bin" / "python"


def _recorded() -> Iterator[Path]:
    configuration = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    try:
        text = Path(configuration, "ipbp", "engine").read_text(encoding="utf-8").strip()
    except OSError:  # never written, or not for us
        return
    if text:
        yield Path(text)


def _on_search_path() -> Iterator[str]:
    for name in _NAMES:
        path = shutil.which(name)
        if path:
            yield path


def _can_import(python: str) -> bool:
    try:
        # Its output is looked at and not its status: gdb collects that of every child.
        answer = subprocess.run(
            [python, "-I", "-c", f"{_PROBE}; print('yes')"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == b"yes"


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _missing(fact: str) -> IpbpError:
    return IpbpError(
        "engine-python",
        fact,
        "Install ipbp (`pip install ipbp`), or set IPBP_PYTHON to the Python that it is installed in.",
    )
