"""rustc, started for one crate: in the place of the user's folder where that can be, else apart from it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.in_place import in_place, is_possible, lay_out, reads_made
from ipbp.build.run import run_to_end
from ipbp.build.rustc_replay import printed, replay_environment, replay_words, words_in_place
from ipbp.build.workshop import Workshop, profile_folder
from ipbp.errors import IpbpError


def run_rustc(row: CrateCommand, workshop: Workshop, replaced: Mapping[str, Path], colour: bool, keeps: bool) -> str:
    """What the compiler says. `keeps`: see `rustc_replay.replay_environment`. Errors: `compile-failed`,
    `compiler-missing`."""
    user = profile_folder(row)
    if shutil.which(row.arguments[0]) and is_possible() and lay_out(row, workshop, replaced):
        inside = in_place(workshop.folder, user, words_in_place(row, workshop, colour), reads_made(row))
        status, output = _started(row, inside, replay_environment(row, workshop, keeps, user))
        # What it names may be there for the user, and not for this compiler.
        if status == 0 or str(user) not in output:
            return _messages(row, status, output)
    words = replay_words(row, workshop, replaced, colour)
    return _messages(row, *_started(row, words, replay_environment(row, workshop, keeps)))


def _started(row: CrateCommand, words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Status and output of a compiler."""
    try:
        return run_to_end(words, row.directory, environment)
    except OSError as error:
        raise IpbpError(
            "compiler-missing",
            f"{row.arguments[0]}, which compiles {row.name}, cannot be started: {error.strerror}",
            "Install this toolchain, or build and start the program once more.",
        ) from error


def _messages(row: CrateCommand, status: int, output: str) -> str:
    messages = printed(output)
    if status != 0:
        raise IpbpError(
            "compile-failed",
            f"the crate {row.name} does not compile; nothing was changed",
            "Correct the source and try again.",
            messages or f"rustc ended with status {status}\n",
        )
    return messages
