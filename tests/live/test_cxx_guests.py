"""Template libraries that nobody here wrote are patched in a program that uses them all the time."""

from __future__ import annotations

from pathlib import Path

import pytest
from guests import FMT, JSON, Guest, build_guest
from sessions import debugged
from source_packages import SourceTree, unpack

pytestmark = pytest.mark.live
_SLOW = pytest.mark.slow


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceTree]:
    """The source packages that were asked for so far."""
    return {}


@pytest.mark.parametrize(
    ("guest", "debugger", "compiler", "level"),
    [
        pytest.param(FMT, "gdb", "g++", "-O2", id="fmt gdb g++"),
        pytest.param(FMT, "lldb", "clang++-19", "-O2", id="fmt lldb clang", marks=_SLOW),
        pytest.param(JSON, "lldb", "g++", "-O2", id="json lldb g++", marks=_SLOW),
        pytest.param(JSON, "gdb", "clang++-19", "-O0", id="json gdb clang", marks=_SLOW),
    ],
)
def test_a_library_of_templates_is_edited_while_it_is_used(
    guest: Guest,
    debugger: str,
    compiler: str,
    level: str,
    library: dict[str, SourceTree],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if guest.package not in library:
        library[guest.package] = unpack(guest.package, tmp_path_factory.mktemp(guest.package))
    project = build_guest(guest, library[guest.package].folder, tmp_path / "host", compiler, level)
    with debugged(project.program, debugger) as (session, talk):
        assert [(line, talk.ask(line)) for line, _ in guest.before] == list(guest.before)
        for change in guest.changes:
            path = project.folder / change.file
            text = path.read_text()
            assert text.count(change.old) == 1, change.name
            path.write_text(text.replace(change.old, change.new))
            outcome = session.call("apply")
            assert outcome["outcome"] == ("refused" if change.code else "patched"), (change.name, outcome)
            assert {row["code"] for row in outcome["refusals"]} == ({change.code} if change.code else set())
            names = [row["linkage"] for row in outcome["functions"]]
            assert all(any(part in name for name in names) for part in change.functions), (change.name, names)
            assert [(line, talk.ask(line)) for line, _ in change.ask] == list(change.ask), change.name
            if change.code:
                path.write_text(text)
        assert session.call("undo 0")["outcome"] == "undone"
        assert [(line, talk.ask(line)) for line, _ in guest.before] == list(guest.before)
        assert talk.close() == 0
