"""A C++ program with variables that have constructors and destructors, and edits that bring new ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from parlour import write_database
from scenario import PROGRAMS, Project

_MARK = "// new variables\n"
AT_EXIT = ["-first 10", "-one 40", "-second 20", "-shared 30"]
"""What the destructors of the variables that the program begins with say."""


def build_nursery(folder: Path, *flags: str, compiler: str = "g++", link: Sequence[str] = ()) -> Project:
    shutil.copytree(PROGRAMS / "nursery", folder)
    write_database(folder, *flags, compiler=compiler)
    for row in json.loads((folder / "compile_commands.json").read_text()):
        subprocess.run(row["arguments"], cwd=folder, check=True)
    objects = sorted(path.name for path in folder.glob("*.o"))
    subprocess.run([compiler, *link, *objects, "-o", "nursery", "-pthread"], cwd=folder, check=True)
    return Project(folder, folder / "nursery")


def put_back(folder: Path) -> None:
    """All sources as they were at first, also for whoever looks at their times."""
    for source in (PROGRAMS / "nursery").iterdir():
        shutil.copy2(source, folder)


def with_variables(folder: Path, name: str, variables: str, *replace: tuple[str, str]) -> None:
    """The file as it was at first, with these variables and these changes."""
    text = (PROGRAMS / "nursery" / name).read_text()
    assert text.count(_MARK) == 1
    text = text.replace(_MARK, _MARK + variables)
    for old, new in replace:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / name).write_text(text)


def said_at_exit(lines: Sequence[str]) -> list[str]:
    """What the destructors say besides those of the program's own variables."""
    left = list(lines)
    for line in AT_EXIT:
        left.remove(line)
    return left
