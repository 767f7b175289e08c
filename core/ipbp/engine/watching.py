"""Watch mode, the engine's part: which files the program was built from, and when one of them is saved.

An engine that watches waits inside a request. It must not outlive its plugin there, so it looks now and then whether
the plugin still waits.
"""

from __future__ import annotations

from typing import Any

from ipbp.build.saves import Saves
from ipbp.engine.channel import Channel
from ipbp.pipeline.request import Request
from ipbp.pipeline.watching import files_of_program, next_saves

Answer = dict[str, Any]

_saves: list[Saves] = []


def follow(channel: Channel, params: Answer) -> Answer:
    """From now on saves of the program's files count. `files`: how many these are."""
    files = files_of_program(Request.from_json(params), channel.read_memory)
    if not _saves:
        _saves.append(Saves())
    return {"files": _saves[0].follow(files)}


def saves(channel: Channel, params: Answer) -> Answer:
    """Wait: `pipeline.watching.next_saves`, as long as the plugin waits."""
    return next_saves(_saves[0], params["pid"], channel.is_wanted)
