"""Of code that was compiled from another text than its source has now, lldb shows that text.

lldb looks once for the source of a frame, when somebody asks for its line, and keeps the answer as long as the frame.
So before a stop is shown a hook of ours asks, with `target.source-map` leading to the text that is right for each
frame; the setting is the user's again before anybody else looks. The copy's name says what it is, and so do backtraces
and the tabs of an editor. One row stays: it leads back from the copies, so that a breakpoint that is set by what is
shown is one in the file.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import Iterator, Sequence

import lldb

from ipbp.host.inferior import OldCode, OldText
from ipbp.host.texts import is_shown
from lldb_ipbp import by_line, stop_hook
from lldb_ipbp.fresh import forget_frames
from lldb_ipbp.stop_hook import tell

_MOST_FRAMES = 64  # of a thread, from the innermost on
_MAP = "target.source-map"


class _Sources:
    """Of this lldb. `pid`: of the process that `texts` and `code` are of. `back`: rows of the setting that stay."""

    pid = 0
    texts: Sequence[OldText] = ()
    code: Sequence[OldCode] = ()
    back: list[tuple[str, str]] = []  # noqa: RUF012 - of this lldb, not of an instance


_sources = _Sources()


def follow(target: lldb.SBTarget, texts: Sequence[OldText], code: Sequence[OldCode]) -> None:
    """From now on these texts are shown of the code that they name; () for none. `code`: which of it is old."""
    _sources.pid, _sources.texts, _sources.code = int(target.GetProcess().GetProcessID()), texts, code
    by_line.follow(target, texts)
    interpreter = target.GetDebugger().GetCommandInterpreter()
    if not texts and _sources.back:
        _set_map(interpreter, [row for row in _map(interpreter) if row not in _sources.back])
        _sources.back.clear()
    if texts:
        stop_hook.listen(target, stop_hook.SOURCES, _stays_stopped)
    else:
        stop_hook.leave(target, stop_hook.SOURCES)


def settle(thread: lldb.SBThread) -> None:
    """The frames of this stopped thread are shown with the texts that they are from."""
    rows = [_rows(_inside(frame)) for frame in _frames(thread)]
    if not any(rows):
        return
    interpreter = thread.GetProcess().GetTarget().GetDebugger().GetCommandInterpreter()
    for index, found in enumerate(rows):
        with _led(interpreter, found):
            if index == 0:  # lldb forgets its frames, and which files it found for them
                forget_frames(thread)
            thread.GetFrameAtIndex(index).GetLineEntry()
    _lead_back(interpreter, [row for found in rows for row in found])


def _map(interpreter: lldb.SBCommandInterpreter) -> list[tuple[str, str]]:
    """The rows of the setting."""
    return re.findall(r'^\[\d+\] "(.*)" -> "(.*)"$', tell(interpreter, f"settings show {_MAP}") or "", re.M)


def _set_map(interpreter: lldb.SBCommandInterpreter, rows: Sequence[tuple[str, str]]) -> None:
    words = " ".join(f'"{path}" "{file}"' for path, file in rows)
    tell(interpreter, f"settings set {_MAP} {words}" if rows else f"settings clear {_MAP}")


@contextmanager
def _led(interpreter: lldb.SBCommandInterpreter, rows: Sequence[tuple[str, str]]) -> Iterator[None]:
    before = _map(interpreter)
    if rows:
        _set_map(interpreter, [*rows, *before])
    try:
        yield
    finally:
        if rows:
            _set_map(interpreter, before)


def _lead_back(interpreter: lldb.SBCommandInterpreter, rows: Sequence[tuple[str, str]]) -> None:
    """A breakpoint that is set in a copy is one in the file. lldb takes the first row that fits: a row from a file to
    itself keeps the next one from leading away from it. Where the user's rows lead, ours would not be found."""
    known = _map(interpreter)
    theirs = [path.rstrip("/") for path, file in known if (path, file) not in _sources.back]
    for path, name in rows:
        if (path, name) not in known and not any(f"{path}/".startswith(f"{other}/") for other in theirs):
            more = [(path, name)] if (path, path) in known else [(path, path), (path, name)]
            known += more
            _sources.back += more
    _set_map(interpreter, known)


def _stays_stopped(context: lldb.SBExecutionContext) -> bool:
    if int(context.GetProcess().GetProcessID()) == _sources.pid:
        if by_line.is_elsewhere(context.GetThread()):
            return False
        settle(context.GetThread())
    return True


def _frames(thread: lldb.SBThread) -> list[lldb.SBFrame]:
    frames = []
    for index in range(_MOST_FRAMES):
        frame = thread.GetFrameAtIndex(index)
        if not frame.IsValid():
            break
        frames.append(frame)
    return frames


def _inside(frame: lldb.SBFrame) -> int:
    # A frame that is to be returned to is in the call before that place, which may be of another function.
    return int(frame.GetPC()) - (1 if frame.GetFrameID() else 0)


def _rows(inside: int) -> list[tuple[str, str]]:
    """For code at that place: each source that is to be shown from another file, and that file."""
    old = next((row for row in _sources.code if row.start <= inside < row.end), None)
    found = []
    for row in _sources.texts:
        if not row.start <= inside < row.end:
            continue
        if row.copy and not is_shown(row):
            found.append((row.path, _named(row, f"{'old code, ' if old else ''}{row.when}", row.copy)))
        elif old is not None:
            kept = "" if row.copy else ", its source was not kept"
            found.append((row.path, _named(row, f"old code{kept}", row.path)))
    return found


def _named(row: OldText, words: str, file: str) -> str:
    """A name for the file that says what it is."""
    folder = os.path.join(row.folder, "shown", row.digest)
    name = os.path.join(folder, f"[{words}] {os.path.basename(row.path)}")
    if not os.path.lexists(name):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.symlink(file, name)
    return name
