"""Who has the terminal: the user at gdb's prompt, or the program that a command of theirs waits for.

gdb does not say. But it tells of every prompt that it shows and of every time that the program goes on: a command that
lets the program go on and waits shows its prompt only when that is over. Under the machine interface and the debug
adapter there is no such thing: a front end is told of everything, and waits for nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import gdb

from gdb_ipbp.settings import changed
from ipbp.host.render import shown


class Prompt:
    """`follow` it from a command that the user has typed. `is_shown`: the user may type; else a command waits."""

    is_shown = True
    _is_followed = False
    _is_ours = False

    @classmethod
    def follow(cls) -> None:
        """From now on `is_shown` is kept true."""
        if not cls._is_followed:
            gdb.events.before_prompt.connect(cls._on_prompt)
            gdb.events.cont.connect(cls._on_cont)
            cls._is_followed = True

    @classmethod
    @contextmanager
    def unchanged(cls) -> Iterator[None]:
        """What lets the program go on in here is no command of the user's."""
        cls._is_ours = True
        try:
            yield
        finally:
            cls._is_ours = False

    @classmethod
    def is_waiting(cls) -> bool:
        """Whether a command of the user's waits for the program, which has the terminal."""
        return cls._is_followed and not cls.is_shown and not is_front_end()

    @classmethod
    def _on_prompt(cls) -> None:
        cls.is_shown = True

    @classmethod
    def _on_cont(cls, event: gdb.ContinueEvent) -> None:
        if not cls._is_ours:
            cls.is_shown = False


def show(text: str) -> None:
    """Text that no command asked for, whatever is on the screen. gdb does not stop it for a full page."""
    text = shown(text)
    with changed(pagination="off"):
        if is_front_end() or not Prompt.is_shown:
            gdb.write(text)
        else:
            gdb.write(f"\n{text}{gdb.parameter('prompt')}")
        gdb.flush()


def is_front_end() -> bool:
    """Whether gdb talks to a program and not to a person."""
    return bool(_interpreter())


def is_machine_interface() -> bool:
    """Whether that program is told by records of the machine interface (GDB manual, "GDB/MI")."""
    return _interpreter().startswith("mi")


def _interpreter() -> str:
    """What its option `--interpreter`, or short `-i`, says; "" for none."""
    with open("/proc/self/cmdline", encoding="utf-8", errors="replace") as file:
        words = file.read().split("\0")
    end = words.index("--args") if "--args" in words else len(words)
    for word, following in zip(words[1:end], [*words[2:end], ""]):
        name, _, value = word.partition("=")
        if word.startswith("-") and name.strip("-") and "interpreter".startswith(name.lstrip("-")):
            return value or following
    return ""
