"""A program of the user's build, run to its end."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipbp.build.compilers_time import compiling


def run_to_end(words: Sequence[str], directory: Path | str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Its status and what it printed, both streams in one. Errors: OSError when it cannot be started."""
    with (
        subprocess.Popen(
            words,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
        compiling(),
    ):
        output, _ = process.communicate()
    return process.returncode, output.decode("utf-8", "replace")
