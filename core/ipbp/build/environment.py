"""The environment that a compiler is started with: the user's, minus what makes it write files on the side."""

from __future__ import annotations

import os

from ipbp.build.command import Command
from ipbp.build.options import words

# Each makes the compiler write into a file of the user's (GCC manual, "Environment Variables"; clang's driver).
_LEFT_OUT = words(
    """DEPENDENCIES_OUTPUT SUNPRO_DEPENDENCIES CC_PRINT_OPTIONS CC_PRINT_OPTIONS_FILE CC_PRINT_HEADERS
    CC_PRINT_HEADERS_FILE CC_LOG_DIAGNOSTICS CC_LOG_DIAGNOSTICS_FILE CC_PRINT_PROC_STAT CC_PRINT_PROC_STAT_FILE
    CC_PRINT_INTERNAL_STAT CC_PRINT_INTERNAL_STAT_FILE"""
)


def forget_relative_path() -> None:
    """Take folders out of PATH that would be others for each program that is started: a command of the project's is
    run in the project, whose files would then be taken for compilers. What is empty means such a folder, too."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(folder for folder in folders if os.path.isabs(folder)) or os.defpath


def environment_of(command: Command | None) -> dict[str, str]:
    """For one compile, or for a build command of the project's own when there is none."""
    inherited = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    return {**inherited, **dict(command.environment if command else ())}
