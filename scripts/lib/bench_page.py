"""docs/performance.md and its pictures, from what `scripts/bench table --json` says.

Nothing on the page is typed in but the words around the figures, and what others publish of their tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench_plot import Series, exponent, plot

Row = dict[str, Any]
DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAD = """\
# Performance

This page is the output of one command; figures and pictures are written by it. On another machine:

    scripts/bench table --write      # all of this page, about a quarter of an hour
    scripts/bench live gdb --cases small,templates --rounds 3
    scripts/bench growth --of functions,threads

Measured on {processor}, {memory} of memory; {system}; {gdb}; {lldb}; {gcc}; {rustc}; {ld}; {lld}; {mold}. The load
average was {load} when it began. Each figure is the median of {rounds} rounds, with the least and the most where there
are three. `scripts/bench table --json` prints all of it.
"""
LIVE = """
## From an edit to the new code at work

Time begins when the source is saved and the command is given, and ends when the running program itself has run the new
function. *Compiler* is the time in which the user's own compiler ran, *beyond* all the rest. *Stopped* is from the
request to just before the program is resumed, with lldb's second stop for the symbols; *gap* is the longest time that
the program did not get to its own loop (which pauses for some 0.15 ms), whoever kept it from that. A debugger that is
attached already is meant: the first patch of a session also starts the engine, reads the program and maps memory, and
is under "Growth".
"""
PARTS = """
### Where that time goes

Medians of the rounds above, in milliseconds; what the compiler runs beside is not counted. *Process*: which images the
program has, and whether they are as they were. *Around the compiler*: which files were edited, keeping the new object
and reading it. *Compare*: pairing and comparing both sides, types included. *Rest*: the debugger's own part before and
after, the symbols, and the way between debugger and engine. Of the stop *ours* is what is done between the debugger's
own stopping and resuming of all threads; in lldb there is a second one for the symbols.
"""
WHY = """
What is above its aim is the engine's work after the compiler. It is done by Python and numpy in some thousand short
steps, none of which takes more than a few percent of the whole, so that no single one can be taken away: the object of
a small file costs about what its number of steps costs. Of a unit with many templates the names and the debug
information are read anew for each patch (a compiler numbers and places them anew): the old side is kept from the patch
before, and what can be read before the new object is there is read while the compiler runs.
"""
OTHERS = """
What others publish of their tools, on other machines and programs, with the compiler's time:

* subsecond (Rust, Dioxus): "130ms compile-patch times" on an Apple M4, says its author
  ([Hacker News, item 44376002](https://news.ycombinator.com/item?id=44376002)); "about 500-600ms" on an M1 half a year
  before ([r/rust](https://www.reddit.com/r/rust/comments/1j8z3yb/)).
* jet-live (C++): its [README](https://github.com/ddovod/jet-live) gives no times.
"""
GROWTH = """
## Growth

*Bare ptrace* is a small program in C ([bare_patch.c](../scripts/lib/bare_patch.c)) on the same kind of process a moment
later: it interrupts all threads, reads their registers, writes as many entries and resumes; any patch of a running
program takes that. The exponent is that of the power of the size by which the time grows (least squares over the
logarithms): 1 is linear, 0 is no growth.
"""

SYMBOLS = """
## Telling the debugger about new code

A file of this size, with types that nobody needs, comes as the symbols of a patch while the program runs. *Blocked* is
the time in which the debugger does not answer, *stopped* the longest in which the program did not run meanwhile. With a
breakpoint on its function a debugger reads all of it at once.
"""

TYPES = """
## Knowing the types of a unit

What is read of the new object of each patch, in milliseconds; the old side is known from the patch before.
"""

_GROWTHS = {"functions": "changed functions", "threads": "threads", "executable": "executable, MB"}


def write(found: Row, docs: Path = DOCS) -> None:
    """The page, and its pictures beside it in `performance/`. Parts that were not measured are left out."""
    (docs / "performance").mkdir(exist_ok=True)
    parts = [HEAD.format(**found["machine"], rounds=found["rounds"])]
    if "live" in found:
        parts += [LIVE, *_live(found["live"]["rows"]), *_parts(found["live"]["rows"]), OTHERS]
    if "growth" in found:
        rows = found["growth"]["rows"]
        parts.append(GROWTH)
        for what, shown in (
            ("functions", "changed functions"),
            ("threads", "threads"),
            ("executable", "executable, MB"),
        ):
            chosen = [row for row in rows if row["what"] == what]
            if chosen:
                parts += _growth(what, shown, chosen, docs)
    for part, shown in (("diff", "Comparing two objects"), ("index", "Knowing the symbols of an executable")):
        if part in found:
            parts += _sizes(part, shown, found[part]["rows"], docs)
    if "symbols" in found:
        parts += [SYMBOLS, _symbols(found["symbols"]["rows"])]
    if "types" in found:
        parts += [TYPES, *_types(found["types"]["rows"])]
    (docs / "performance.md").write_text("\n".join(part.strip("\n") + "\n" for part in parts))


def _live(rows: Sequence[Row]) -> Iterable[str]:
    for case in dict.fromkeys(row["case"] for row in rows):
        chosen = [row for row in rows if row["case"] == case]
        yield f"### {case[0].upper()}{case[1:]}\n"
        target = max(row["target"] for row in chosen)
        yield _table(
            ["way", "edit to live", "compiler", "beyond", "stopped", "gap", "engine", "state"],
            [
                (
                    row["way"] + (f" ({row['note']})" if row["note"] else ""),
                    f"{row['live']['median']:.0f}" if row["live"] else "",
                    f"{row['compiler']:.0f}" if row["compiler"] else "",
                    _three(row["beyond"]),
                    _three(row["stopped"]),
                    _three(row["gap"]),
                    f"{row['engine']:.0f} MB" if row["engine"] else "",
                    "kept" if row["keeps_state"] else "lost",
                )
                for row in chosen
            ],
        )
        if target:
            ours = [row for row in chosen if row["target"]]
            yield _against(target, "beyond the compiler", [(row["way"], row["beyond"]["median"]) for row in ours])


def _parts(rows: Sequence[Row]) -> Iterable[str]:
    ours = [row for row in rows if row["parts"]]
    names = list(ours[0]["parts"]) if ours else []
    if names:
        yield PARTS
        yield _table(
            ["", *names], [(f"{row['case']}, {row['way']}", *(f"{row['parts'][n]:.1f}" for n in names)) for row in ours]
        )
    if any(row["target"] and row["beyond"]["median"] > row["target"] for row in ours):
        yield WHY


def _growth(what: str, shown: str, rows: Sequence[Row], docs: Path) -> Iterable[str]:
    series = []
    for debugger in dict.fromkeys(row["debugger"] for row in rows):
        own = [row for row in rows if row["debugger"] == debugger]
        counts = [row["count"] for row in own]
        series.append(Series(f"stopped, {debugger}", counts, [row["stopped"]["median"] for row in own]))
        series.append(
            Series(f"edit to live without the compiler, {debugger}", counts, [row["beyond"]["median"] for row in own])
        )
        if own[0]["floor"]:
            series.append(Series(f"bare ptrace beside {debugger}", counts, [row["floor"]["median"] for row in own]))
        else:
            series.append(Series(f"first patch, nothing kept, {debugger}", counts, [row["cold"] for row in own]))
            series.append(Series(f"first patch, index kept, {debugger}", counts, [row["kept"] for row in own]))
    plot(docs / "performance" / f"{what}.svg", f"time by {shown}", shown, series)
    yield f"### By {shown}\n"
    has_floor = bool(rows[0]["floor"])
    head = ["", "debugger", "stopped", *(("bare ptrace", "times that") if has_floor else ()), "beyond the compiler"]
    head += ["engine"] if has_floor else ["first patch, nothing kept", "with the kept index", "engine"]
    yield _table(
        head,
        [
            (
                f"{row['count']:,.0f}",
                row["debugger"],
                _three(row["stopped"]),
                *(
                    (_three(row["floor"]), f"{row['stopped']['median'] / row['floor']['median']:.1f}")
                    if has_floor
                    else ()
                ),
                _three(row["beyond"]),
                *(() if has_floor else (f"{row['cold']:.0f}", f"{row['kept']:.0f}")),
                f"{row['engine']:.0f} MB",
            )
            for row in rows
        ],
    )
    for row in rows:
        if row["stop_target"]:
            yield _against(
                row["stop_target"], f"stopped in {row['debugger']}", [("measured", row["stopped"]["median"])]
            )
        if row["memory_target"]:
            yield _against(row["memory_target"], f"engine in {row['debugger']}", [("measured", row["engine"])], "MB")
    yield _exponents(series)
    yield f"![time by {shown}](performance/{what}.svg)"


def _sizes(part: str, shown: str, rows: Sequence[Row], docs: Path) -> Iterable[str]:
    series = []
    for what in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        if len(own) > 1:
            series.append(Series(what, [row["megabytes"] for row in own], [row["median"] for row in own]))
    plot(docs / "performance" / f"{part}.svg", shown, "megabytes", series)
    yield f"## {shown}\n"
    yield _table(
        ["", "MB", "ms", "processor ms", "times the sha256 of the same bytes", "compiler"],
        [
            (
                row["what"],
                f"{row['megabytes']:.1f}",
                f"{row['median']:.1f}",
                f"{row['cpu']:.1f}",
                f"{row['x_hash']:.2f}",
                f"{row['compile']:.0f}" if row["compile"] else "",
            )
            for row in rows
        ],
    )
    yield _exponents(series)
    yield f"![{shown.lower()}](performance/{part}.svg)"


def _symbols(rows: Sequence[Row]) -> str:
    return _table(
        ["debugger", "MB", "a breakpoint on the function", "blocked", "stopped"],
        [
            (
                row["debugger"],
                f"{row['megabytes']:.1f}",
                "yes" if row["has_breakpoint"] else "no",
                f"{row['median']:.1f}",
                f"{row['stopped']:.1f}",
            )
            for row in rows
        ],
    )


def _types(rows: Sequence[Row]) -> Iterable[str]:
    yield _table(
        ["unit", "MB", "types", "read", "processor ms", "known before", "compared", "compiler"],
        [
            (
                row["what"],
                f"{row['megabytes']:.2f}",
                f"{row['types']:,}",
                f"{row['new']:.1f}",
                f"{row['cpu']:.1f}",
                f"{row['known']:.1f}",
                f"{row['compare']:.1f}",
                f"{row['compile']:.0f}",
            )
            for row in rows
        ],
    )
    for row in rows:
        if row["target"]:
            yield _against(row["target"], f"for {row['what']}", [("read and compared", row["new"] + row["compare"])])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _three(found: Row | None) -> str:
    if found is None:
        return ""
    digits = 0 if found["median"] >= 100 else 1 if found["median"] >= 10 else 2
    return f"{found['least']:.{digits}f} / **{found['median']:.{digits}f}** / {found['most']:.{digits}f}"


def _times(one: Row, other: Row) -> str:
    return f"{one['median'] / other['median']:.1f}"


def _against(target: float, what: str, found: Iterable[tuple[str, float]], unit: str = "ms") -> str:
    said = ", ".join(f"{name} {value:.1f} ({'met' if value <= target else 'missed'})" for name, value in found)
    return f"\nAimed at: {target:.0f} {unit} {what}. {said}.\n"


def _exponents(series: Sequence[Series]) -> str:
    return "\nExponents: " + "; ".join(f"{row.name} {exponent(row):.2f}" for row in series if len(row.x) > 1) + ".\n"
