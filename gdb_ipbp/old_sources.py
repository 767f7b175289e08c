"""Of code that was compiled from another text than its source has now, gdb shows that text.

gdb knows one file for each symbol table, and looks for it once. So for the moment in which it shows source, each table
of the frames that it may show is made to find the text that it was compiled from: a substitution rule leads to a
symbolic link of ours, which leads somewhere else each time that gdb is asked for a table's file. Afterwards gdb finds
the files as ever: breakpoints are set by the text that the user edits.

Those moments are hooks of gdb's (GDB manual, "Hooks"): `hook-stop` runs before a stop is shown, and the commands that
show source have one before and one after. A front end reads the files itself: in its console it is told when the line
that it shows has another number there.
"""

from __future__ import annotations

import os
import re
from typing import Iterator, Optional, Sequence

import gdb

from gdb_ipbp.background import is_under_way
from gdb_ipbp.prompt import is_front_end
from gdb_ipbp.settings import kept_selection, quoted, tell
from ipbp.host.inferior import OldCode, OldText
from ipbp.host.texts import is_shown, number_now

_COMMANDS = ("list", "frame", "up", "down", "thread", "disassemble")
_MOST_FRAMES = 100  # of the selected thread, from the innermost on
_MOST_THREADS = 32  # whose innermost frames count


class _Sources:
    """Of this gdb. `rules`: patterns of ours that are in force. `hooks`: name -> the user's own lines."""

    texts: Sequence[OldText] = ()
    code: Sequence[OldCode] = ()
    rules: dict[str, str] = {}  # noqa: RUF012 - of this gdb, not of an instance
    hooks: dict[str, str] = {}  # noqa: RUF012


_sources = _Sources()


def follow(texts: Sequence[OldText], code: Sequence[OldCode]) -> None:
    """From now on these texts are shown of the code that they name; () for none. `code`: which of it is old."""
    if is_front_end():
        if bool(texts) != bool(_sources.texts):
            (gdb.events.stop.connect if texts else gdb.events.stop.disconnect)(_tell_front_end)
        _sources.texts = texts
        return
    _sources.texts, _sources.code = texts, code
    if texts and not _sources.hooks:
        for name in ("stop", *_COMMANDS):
            _define(f"hook-{name}", f"before({name == 'thread'})")
        for name in _COMMANDS:
            _define(f"hookpost-{name}", "after()")
        gdb.events.stop.connect(_on_stop)
        gdb.events.before_prompt.connect(_forget)
    elif not texts and _sources.hooks:
        _forget()
        gdb.events.stop.disconnect(_on_stop)
        gdb.events.before_prompt.disconnect(_forget)
        for name, lines in _sources.hooks.items():
            tell(f"define {name}\n{lines}end")
        _sources.hooks.clear()


def before(other_threads: bool = False) -> None:
    """A hook: gdb is about to show source, perhaps of the innermost frame of another thread."""
    if is_under_way():
        return
    _forget()
    wanted: list[tuple[gdb.Symtab, str]] = []
    has_other = False
    for frame in [*_frames(), *(_innermost() if other_threads else ())]:
        table = _table(frame)
        if table is not None:
            text = _text(table.fullname(), _inside(frame))
            has_other |= text is not None and bool(text.copy)
            wanted.append((table, text.copy if text is not None and text.copy else table.fullname()))
    if has_other:
        _lead(wanted)


def after() -> None:
    """A hook: it has shown some."""
    _forget()
    _say()


def _on_stop(event: gdb.StopEvent) -> None:
    if _sources.rules or not is_under_way():
        points = event.breakpoints if isinstance(event, gdb.BreakpointEvent) else []
        is_silent = any(point.silent or (point.commands or "").lstrip().startswith("silent") for point in points)
        _forget()
        if not is_silent:
            _say()


def _tell_front_end(event: gdb.StopEvent) -> None:
    """The file that it opens has other text than this code was compiled from."""
    if is_under_way():
        return
    frame = gdb.selected_frame()
    table, line = _table(frame), frame.find_sal().line
    text = None if table is None else _text(table.fullname(), _inside(frame))
    if table is not None and text is not None and text.copy:
        number = number_now(text, line)
        now = f"is line {number} now" if number else "is not there any more"
        gdb.write(f"[{os.path.basename(table.filename)}, as it was {text.when}: line {line} of it {now}]\n")


def _say() -> None:
    # What is to be said of the selected frame's source.
    try:
        frame = gdb.selected_frame()
    except gdb.error:
        return
    table, inside = _table(frame), _inside(frame)
    old = next((row for row in _sources.code if row.start <= inside < row.end), None)
    text = None if table is None else _text(table.fullname(), inside)
    if table is None or (text is None and old is None):
        return
    name = os.path.basename(table.filename)
    if text is None or not text.copy:
        if old is not None:
            what = "its source was not kept: this is the file as it is now" if text else "its source is as it was"
            gdb.write(f"[{old.text} of {name}; {what}]\n")
    else:
        what = "old code of " if old is not None else ""
        gdb.write(f"[{what}{name}, as it was {text.when}]\n")


def _frames() -> Iterator[gdb.Frame]:
    """Those that the next command may show."""
    thread = gdb.selected_thread()
    if thread is None or not thread.is_valid() or thread.is_running():
        return
    try:
        frame: Optional[gdb.Frame] = gdb.newest_frame()
        for _ in range(_MOST_FRAMES):
            if frame is None:
                return
            yield frame
            frame = frame.older()
    except gdb.error:  # no way to unwind from here
        return


def _innermost() -> Iterator[gdb.Frame]:
    with kept_selection():
        for thread in gdb.selected_inferior().threads()[:_MOST_THREADS]:
            if not thread.is_running():
                thread.switch()
                yield gdb.newest_frame()


def _table(frame: gdb.Frame) -> Optional[gdb.Symtab]:
    table = frame.find_sal().symtab
    return table if table is not None and table.is_valid() else None


def _inside(frame: gdb.Frame) -> int:
    # A frame that is to be returned to is in the call before that place, which may be of another function.
    newer = frame.newer()
    is_called = newer is not None and newer.type() == gdb.NORMAL_FRAME
    return int(frame.pc()) - (1 if is_called else 0)


def _text(file: str, inside: int) -> Optional[OldText]:
    """The text of this file that the code there was compiled from, when that is another one than it has."""
    real = os.path.realpath(file)
    for row in _sources.texts:
        if row.start <= inside < row.end and os.path.realpath(row.path) == real:
            return None if is_shown(row) else row
    return None


def _lead(wanted: Sequence[tuple[gdb.Symtab, str]]) -> None:
    """Each of these tables finds this file, until `_forget`."""
    theirs = re.findall(r"^  `(.*)' -> `(.*)'\.$", tell("show substitute-path"), re.M)
    other = {table.filename for table, file in wanted if file != table.fullname()}
    # The first rule that fits counts, so ours come before the user's.
    for pattern, _ in theirs:
        tell(f"unset substitute-path {quoted(pattern)}")
    for name in other:
        folder = os.path.join(_folder(), str(len(_sources.rules)))
        os.makedirs(folder, exist_ok=True)
        _sources.rules[name] = os.path.join(folder, os.path.basename(name))
        tell(f"set substitute-path {quoted(name)} {quoted(_sources.rules[name])}")
    for pattern, target in theirs:
        tell(f"set substitute-path {quoted(pattern)} {quoted(target)}")
    for table, file in wanted:
        link = _sources.rules.get(table.filename)
        if link is not None:
            os.symlink(file, link)
            table.fullname()  # gdb looks for it now, and once
            os.unlink(link)


def _forget() -> None:
    """gdb finds all files as ever."""
    for name in list(_sources.rules):
        tell(f"unset substitute-path {quoted(name)}")
        del _sources.rules[name]


def _folder() -> str:
    """Where the links are: beside the copies, and gone with them."""
    return os.path.join(_sources.texts[0].folder, f"links-{os.getpid()}")


def _define(name: str, call: str) -> None:
    # A hook of the user's goes on to do what it does. All are asked for: to ask for one that is not there is an error,
    # with which gdb takes the terminal from the program (async_enable_stdin in execute_gdb_command, gdb 13).
    found = re.search(rf'^User command "{name}":\n((?:  .*\n)*)', tell("show user"), re.M)
    lines = found[1].rstrip("\n") if found else ""
    _sources.hooks[name] = f"{lines}\n" if lines else ""
    ours = f"python import sys; sys.modules[{__name__!r}].{call}\n"
    tell(f"define {name}\n{ours}{_sources.hooks[name]}end")
