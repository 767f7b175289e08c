"""What was measured on, in words that mean something elsewhere."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def machine() -> dict[str, str]:
    """Processor, memory, kernel, distribution and the versions of the tools; the load when it began."""
    model = _after(Path("/proc/cpuinfo").read_text(), "model name", ":")
    memory = int(_after(Path("/proc/meminfo").read_text(), "MemTotal", ":").split()[0]) / 1e6
    return {
        "processor": f"{model}, {os.cpu_count()} threads of it",
        "memory": f"{memory:.0f} GB",
        "system": f"{_after(Path('/etc/os-release').read_text(), 'PRETTY_NAME', '=')}, Linux {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: _version(words) for name, words in _TOOLS.items()},
    }


_TOOLS = {
    "gdb": ("gdb", "--version"),
    "lldb": ("lldb", "--version"),
    "gcc": ("gcc", "--version"),
    "rustc": ("rustc", "--version"),
    "ld": ("ld.bfd", "--version"),
    "lld": ("ld.lld", "--version"),
    "mold": ("mold", "--version"),
}


def _version(words: tuple[str, ...]) -> str:
    names = [words[0], *(f"{words[0]}-{version}" for version in range(30, 13, -1))]
    for name in names:
        try:
            said = subprocess.run([name, *words[1:]], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        return said.splitlines()[0]
    return "not there"


def _after(text: str, name: str, mark: str) -> str:
    return next((row.split(mark, 1)[1].strip(' "') for row in text.splitlines() if row.startswith(name)), "unknown")
