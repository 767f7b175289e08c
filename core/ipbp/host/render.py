"""What the user sees of an outcome: lines for people, or one JSON object on one line for programs.

An outcome is a dictionary; `outcome` says which kind it is: patched, undone, planned (a preview), ok, unchanged,
refused, usage or error. Success is one line. Everything that needs a decision says what was found and what to do.
Nothing here looks at the inferior or decides anything.
"""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Mapping, Sequence

from ipbp.errors import IpbpError, Refusal, Refused

Row = Mapping[str, Any]

_NAMES_SHOWN = 8  # functions named in the line of success; all are in the JSON and in `hotpatch status`
_TIMES_SHOWN = (("compile", "compile"), ("diff", "diff"), ("link", "link"), ("stopped", "stopped"))


def shown(text: str) -> str:
    """Text that can be written anywhere: what is no text, as parts of paths may be, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_json(outcome: Row) -> str:
    """One line that begins with `{"outcome":`, with all keys that a reader may rely on; times in milliseconds."""
    row: dict[str, Any] = {
        "outcome": outcome["outcome"],
        "patch": None,
        "functions": [],
        "notes": [],
        "times": {},
        "refusals": [],
        "error": None,
    }
    row.update(outcome)
    row["times"] = {name: round(value, 3) for name, value in row["times"].items()}
    row["text"] = as_text(outcome).rstrip("\n")
    return compact(row)


def as_text(outcome: Row) -> str:
    """Lines for people, each ended."""
    lines = [_TEXTS[outcome["outcome"]](outcome)]
    if outcome.get("frame"):
        lines.append(f"  {_frame(outcome['frame'])}")
    return "\n".join([*lines, *(f"  note: {note}" for note in outcome.get("notes", ()))]) + "\n"


def compact(row: Row) -> str:
    """One line of JSON."""
    return json.dumps(row, separators=(",", ":")) + "\n"


def of_process(outcome: Row) -> str:
    """The same for one of several processes, told by its `pid`."""
    lines = as_text(outcome).rstrip("\n").splitlines()
    return "\n".join([f"process {outcome['pid']}: {lines[0]}", *(f"  {line}" for line in lines[1:])]) + "\n"


def _frame(row: Row) -> str:
    what = "begins again" if row["mode"] == "restart" else "goes on"
    when = " when the call inside of it returns" if row["when_it_returns"] else ""
    said = f"frame: '{row['function']}' {what} in the new code{when}, at {row['file']}:{row['line']}"
    if row["dropped"]:
        said += f"; dropped: {', '.join(row['dropped'])}"
    return said + (f"; {row['signal']} is not delivered" if row["signal"] else "")


def _patched(outcome: Row) -> str:
    functions = outcome["functions"]
    what = f"{_count(functions)}{_files(functions)}: {_names(functions)}" if functions else "data only"
    return f"patched {what}{_times(outcome)}"


def _planned(outcome: Row) -> str:
    functions = outcome["functions"]
    lines = [f"would patch {_count(functions)}{_files(functions)}{_times(outcome)}"]
    width = max((len(row["name"]) for row in functions), default=0)
    for row in functions:
        size = f"  ({row['size']} bytes)" if row["size"] else ""
        lines.append(f"  {row['status']:8} {row['name']:{width}}  {row['reason']}{size}")
    lines += [f"  data     {name}" for name in outcome.get("data", ())]
    return "\n".join(lines) + ("\n" + outcome["shown"].rstrip("\n") if outcome.get("shown") else "")


def _undone(outcome: Row) -> str:
    patches = outcome["patches"]
    numbers = ", ".join(str(patch["patch"]) for patch in patches)
    functions = [row for patch in patches for row in patch["functions"]]
    noun = "patch" if len(patches) == 1 else "patches"
    return f"undone {noun} {numbers}: {_names(functions)}{_times(outcome)}"


def _ok(outcome: Row) -> str:
    if "lines" in outcome:
        return _lines(outcome)
    if "patches" in outcome:
        return _status(outcome)
    if "identity" in outcome:
        return _patch_file(outcome)
    return str(outcome.get("text", "ok")).rstrip("\n")


def _patch_file(outcome: Row) -> str:
    # What is in one; its texts are whoever's that made it, so that they may not speak to the terminal.
    functions = outcome["functions"]
    lines = [f"{outcome['file']}: {_count(functions)}{_files(functions)}, {outcome['bytes'] >> 10} KiB of objects"]
    lines.append(f"  identity {outcome['identity']}")
    for image in outcome["images"]:
        lines.append(f"  fits {image['name']} ({image['machine']}) with build id {image['build_id']}")
    width = max((len(row["name"]) for row in functions), default=0)
    lines += [f"  {row['status']:8} {row['name']:{width}}  {row['reason']}" for row in functions]
    lines += [f"  data     {name} (new)" for name in outcome["data"]]
    return "\n".join(_plain(line) for line in lines)


def _plain(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _status(outcome: Row) -> str:
    patches = outcome["patches"]
    lines = [] if patches else ["no patch is applied"]
    versions: dict[tuple[str, int], int] = {}
    for patch in patches:
        origin = f", inherited from process {patch['inherited']}" if patch.get("inherited") else ""
        lines.append(f"patch {patch['patch']}{origin}: {_count(patch['functions'])}{_files(patch['functions'])}")
        width = max((len(row["name"]) for row in patch["functions"]), default=0)
        for row in patch["functions"]:
            key = (row["name"], row["entry"])
            versions[key] = versions.get(key, row["status"] != "new") + 1
            lines.append(f"  {row['name']:{width}}  {_place(row, versions[key])}")
    for row in outcome.get("old", ()):
        newest = f"version {row['version']} of '{row['function']}', of which {row['newest']} is the newest"
        lines.append(f"thread {row['thread']} may still be in {newest}")
    if outcome.get("memory"):
        lines.append(f"memory: {outcome['memory']} bytes used, {outcome.get('mapped', 0) >> 10} KiB reserved")
    return "\n".join(lines)


def _place(row: Row, version: int) -> str:
    if row["status"] == "removed":
        return f"removed; callers of {row['entry']:#x} still find it"
    entry = f"{row['entry']:#x} -> " if row["status"] == "changed" else ""
    return f"version {version}  {entry}{row['address']:#x}  {row['size']} bytes"


def _lines(outcome: Row) -> str:
    # Of the doctor: what was looked at, and whether it is all right; the text of what is not says what to do.
    rows = outcome["lines"]
    width = max((len(row["name"]) for row in rows), default=0)
    indented = "\n" + " " * (width + 6)
    lines = []
    for row in rows:
        text = row["text"].replace("\n", indented)
        lines.append(f"{'ok ' if row['ok'] else 'NOT'}  {row['name']:{width}} {text}")
    return "\n".join(lines)


def _unchanged(outcome: Row) -> str:
    return f"nothing changed: the program already runs the code of its sources{_times(outcome)}"


def _refused(outcome: Row) -> str:
    return str(Refused(Refusal.from_json(row) for row in outcome["refusals"]))


def _failed(outcome: Row) -> str:
    if "lines" in outcome:
        return _lines(outcome)
    row = outcome["error"]
    return str(IpbpError(row["code"], row["fact"], row["advice"], row.get("detail", "")))


_TEXTS: dict[str, Callable[[Row], str]] = {
    "patched": _patched,
    "planned": _planned,
    "undone": _undone,
    "ok": _ok,
    "unchanged": _unchanged,
    "refused": _refused,
    "usage": _failed,
    "error": _failed,
}


def _count(functions: Sequence[Row]) -> str:
    # Changed functions are what is expected and go without saying.
    others = [(sum(row["status"] == word for row in functions), word) for word in ("new", "removed")]
    noun = "function" if len(functions) == 1 else "functions"
    said = ", ".join(f"{count} {word}" for count, word in others if count)
    return f"{len(functions)} {noun}" + (f" ({said})" if said else "")


def _files(functions: Sequence[Row]) -> str:
    files = sorted({_file(row) for row in functions if row["file"]})
    if not files:
        return ""
    return f" in {', '.join(files)}" if len(files) <= 3 else f" in {len(files)} files"


def _file(row: Row) -> str:
    file, image = os.path.basename(row["file"]), os.path.basename(row.get("image", ""))
    return f"{file} ({image})" if image else file


def _names(functions: Sequence[Row]) -> str:
    # Copies of a function, and instances of a generic one, have one name.
    counts: dict[str, int] = {}
    for row in functions:
        counts[row["name"]] = counts.get(row["name"], 0) + 1
    names = [name if count == 1 else f"{name} (x{count})" for name, count in counts.items()]
    left = sum(list(counts.values())[_NAMES_SHOWN:])
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {left} more" if left else "")


def _times(outcome: Row) -> str:
    times = outcome.get("times", {})
    shown = ", ".join(f"{word} {_milliseconds(times[name])}" for name, word in _TIMES_SHOWN if name in times)
    return f"   ({shown})" if shown else ""


def _milliseconds(value: float) -> str:
    # Two significant digits below 10, whole milliseconds above: "1.8 ms", "212 ms".
    return f"{value:.1f} ms" if value < 9.95 and value != round(value) else f"{value:.0f} ms"
