"""Memory of a process of Windows: functions of its kernelbase.dll, called in the program.

They take no lock of the program's (each is one system call with its arguments put in order), so it does no harm that
all other threads are held meanwhile. Addresses are multiples of `GRAIN`, and what was allocated in one call is freed as
a whole ("VirtualAlloc function", Microsoft).
"""

from __future__ import annotations

from ipbp.errors import IpbpError
from ipbp.host.inferior import Inferior
from ipbp.host.pe_memory import Module, base_name, exports

GRAIN = 1 << 16
_LIBRARY = "kernelbase.dll"
_COMMIT_RESERVE, _RELEASE = 0x3000, 0x8000  # MEM_COMMIT | MEM_RESERVE, MEM_RELEASE
_PROTECTION = {"r": 0x02, "rw": 0x04, "rx": 0x20}  # PAGE_READONLY, PAGE_READWRITE, PAGE_EXECUTE_READ


def allocate(inferior: Inferior, address: int, size: int, protection: str) -> bool:
    """Map `size` zero bytes at exactly `address`; False when Windows does not, because something is there.

    Errors: `inject-no-site` where the process has not loaded what does it; those of `Inferior.call`.
    """
    function = _function(inferior, "VirtualAlloc")
    return inferior.call(function, (address, size, _COMMIT_RESERVE, _PROTECTION[protection])) == address


def release(inferior: Inferior, address: int) -> None:
    """Unmap what was allocated at `address`."""
    if not inferior.call(_function(inferior, "VirtualFree"), (address, 0, _RELEASE)) & 0xFFFFFFFF:
        raise IpbpError(
            "inject-failed", f"Windows did not free the memory at {address:#x}", "Look at the process's memory map."
        )


def _function(inferior: Inferior, name: str) -> int:
    start = next((row.start for row in inferior.regions() if base_name(row.path) == _LIBRARY), None)
    found = None if start is None else exports(inferior, Module(start, 0, _LIBRARY)).get(name)
    if found is None:
        raise IpbpError(
            "inject-no-site",
            f"the process has not loaded {_LIBRARY}, or that has no {name}",
            "Let the program run up to `main`, then patch.",
        )
    return found
