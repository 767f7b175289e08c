"""Functions of the program that are told of a patch (docs/ipbp.h).

Whatever becomes of such a call, the patch goes on.
"""

from __future__ import annotations

from typing import Iterable

from ipbp.errors import IpbpError
from ipbp.host.inferior import Inferior
from ipbp.protocol import Hook


def tell(inferior: Inferior, hooks: Iterable[Hook], is_undo: bool = False) -> list[str]:
    """Call each of them; a sentence for each that did not come back."""
    notes = []
    for hook in hooks:
        try:
            inferior.call(hook.address, (hook.undone if is_undo else hook.applied,))
        except IpbpError as error:
            notes.append(f"{hook.name} did not come back, and was given up: {error.fact}")
        except KeyboardInterrupt:
            notes.append(f"{hook.name} was interrupted")
    return notes
