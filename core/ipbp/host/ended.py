"""A program that ends while somebody looks at it: its files in /proc go at any moment, which is nobody's bug."""

from __future__ import annotations

import os
import re
from typing import Optional

from ipbp.errors import IpbpError


def ended(error: BaseException) -> Optional[IpbpError]:
    """The error to show when this failure means that the program has ended, else None."""
    name = error.filename if isinstance(error, (FileNotFoundError, ProcessLookupError)) else None
    process = re.match(r"/proc/\d+/", os.fsdecode(name)) if isinstance(name, (str, bytes)) else None
    # One that ended and was not waited for has a folder there, but no program (proc_pid_exe(5)).
    if process is None or os.path.exists(f"{process[0]}exe"):
        return None
    return IpbpError("inferior-gone", "the program ended while ipbp looked at it", "Start it again.")
