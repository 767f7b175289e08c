"""Asking the user whether programs that the project names may be run; the answer is remembered, so it is asked once."""

from __future__ import annotations

import os
import select
from functools import partial
from typing import Any, Callable, Optional, TypeVar

from ipbp.errors import AgreementNeeded, IpbpError

T = TypeVar("T")

_TICK = 0.05  # seconds between two looks at the user's Ctrl-C


def consented(
    action: Callable[[], T], confirm: Callable[[str], Optional[bool]], agree: Callable[[str, str], None]
) -> T:
    """What `action` returns. For each `AgreementNeeded` of it the user is asked, `agree` is told of a yes, with the
    hash and what was shown, and it is tried again.

    `confirm`: None where nobody can be asked; the error then says what to type. `agreement-declined` for a no.
    """
    while True:
        try:
            return action()
        except AgreementNeeded as needed:
            answer = confirm(f"{needed.detail}Run them, now and from now on? (y or n) ")
            if answer is None:
                raise
            if not answer:
                raise IpbpError(
                    "agreement-declined",
                    "the project's programs are not run",
                    "Type `hotpatch` again to be asked once more.",
                ) from None
            agree(needed.hash, needed.detail)


def request_with_consent(
    request: Callable[[str, dict[str, Any]], T],
    verb: str,
    params: dict[str, Any],
    confirm: Callable[[str], Optional[bool]],
) -> T:
    """The engine's answer to a request, of which it remembers what the user says: see `consented`."""

    def agree(hash: str, text: str) -> None:
        request("agree", {"hash": hash, "text": text})

    return consented(partial(request, verb, params), confirm, agree)


def read_line(terminal: int, is_interrupted: Callable[[], bool]) -> str:
    """What is typed at the terminal of this descriptor, up to the end of the line; "" after Ctrl-D or Ctrl-C."""
    line = b""
    while not line.endswith(b"\n"):
        if is_interrupted():
            return ""
        if select.select([terminal], [], [], _TICK)[0]:
            read = os.read(terminal, 256)
            if not read:
                return ""
            line += read
    return line.decode(errors="replace")


def is_yes(typed: str) -> bool:
    """Whether a line that was typed says yes."""
    return typed.strip().lower() in ("y", "yes")
