"""Which Python the engine runs in, written down for the plugin.

The debugger's Python is not ours and cannot import the engine. The plugin mostly finds the right interpreter from
where its own files are; what is recorded here helps where it cannot (an installation with linked or zipped packages).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def record_path() -> Path:
    """`engine` in ipbp's configuration folder (XDG Base Directory Specification)."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(configuration) / "ipbp" / "engine"


def remember_engine_python() -> None:
    """Record this interpreter, which has the engine's packages. Written only when it differs, and all at once."""
    path = record_path()
    text = sys.executable + "\n"
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"engine.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


def session_environment() -> dict[str, str]:
    """The environment for a debugger that attaches: the program never sees it, so the engine is named there."""
    return {**os.environ, "IPBP_PYTHON": sys.executable}
