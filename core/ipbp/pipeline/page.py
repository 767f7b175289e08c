"""`hotpatch report`: one page of HTML with all that was done to a program. It needs nothing but itself to be shown."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ipbp.graph.image import MemoryReader
from ipbp.host import session_log
from ipbp.host.journal import Journal, Patch
from ipbp.pipeline.process import process_of
from ipbp.pipeline.request import Request
from ipbp.pipeline.side_by_side import Places, Sides, sides_of

Event = Mapping[str, Any]

_STAGES = (("index", "index"), ("compile", "compile"), ("diff", "diff"), ("link", "link"), ("stopped", "stopped"))
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # compilers' colours
_SHOWN = ("patched", "undone", "refused", "error", "unchanged")


def page(request: Request, read: MemoryReader) -> str:
    """The page for the program as it is now."""
    journal = Journal(request.folder)
    patches = journal.patches()
    events = [row for row in session_log.read(request.folder) if row["outcome"] in _SHOWN]
    places = Places(process_of(request, read), [patch.plan for patch in patches], read)
    described = request.description
    used = sum(end - start for start, end in journal.written_ranges())
    return "".join(
        (
            _HEAD.format(title=escape(described.executable.rpartition("/")[2])),
            f"<header><h1>{escape(described.executable)}</h1>",
            f"<p>process {described.pid}, {escape(described.debugger)}, {time.strftime('%Y-%m-%d %H:%M:%S')}</p>",
            "</header>",
            _figures(events, patches, used, journal.mapped_size()),
            "<h2>Timeline</h2>",
            _timeline(events),
            "<h2>Patches in force</h2>",
            "".join(_patch(patch, patches[:number], places, read) for number, patch in enumerate(patches))
            or "<p>none</p>",
            "<h2>Refusals and errors</h2>",
            "".join(_failures(events)) or "<p>none</p>",
            "</main></body></html>\n",
        )
    )


def _figures(events: Sequence[Event], patches: Sequence[Patch], used: int, mapped: int) -> str:
    stops = sorted(row["times"]["stopped"] for row in events if row["outcome"] == "patched" and "times" in row)
    longest, middle = (stops[-1], stops[len(stops) // 2]) if stops else (0.0, 0.0)
    figures = (
        (str(sum(row["outcome"] == "patched" for row in events)), "patches applied"),
        (str(len(patches)), "in force"),
        (str(sum(row["outcome"] == "refused" for row in events)), "refused"),
        (f"{middle:.1f} ms", "stopped, median"),
        (f"{longest:.1f} ms", "stopped, longest"),
        (f"{used} B", f"of {mapped >> 10} KiB reserved"),
    )
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in figures)
    return f'<section class="figures">{cells}</section>'


def _timeline(events: Sequence[Event]) -> str:
    longest = max((sum(_parts(row).values()) for row in events), default=0.0) or 1.0
    legend = "".join(f'<span><i class="{key}"></i>{name}</span>' for key, name in _STAGES)
    rows = []
    for row in events:
        parts = _parts(row)
        bar = "".join(
            f'<i class="{key}" style="width:{100 * parts[key] / longest:.2f}%" title="{name} {parts[key]:.1f} ms"></i>'
            for key, name in _STAGES
            if key in parts
        )
        figures = ", ".join(f"{name} {parts[key]:.1f}" for key, name in _STAGES if key in parts)
        rows.append(
            f'<tr class="{row["outcome"]}"><td>{time.strftime("%H:%M:%S", time.localtime(row["time"]))}</td>'
            f"<td>{row['outcome']}</td><td>{_what(row)}</td>"
            f'<td class="bar"><div>{bar}</div><small>{figures}{" ms" if figures else ""}</small></td></tr>'
        )
    return f'<p class="legend">{legend}</p><table class="timeline">{"".join(rows)}</table>'


def _parts(row: Event) -> dict[str, float]:
    return {key: row["times"][key] for key, _ in _STAGES if key in row.get("times", {})}


def _what(row: Event) -> str:
    if row["outcome"] == "undone":
        return "patch " + ", ".join(map(str, row["patches"]))
    if row["outcome"] == "refused":
        return escape(", ".join(sorted({refusal["code"] for refusal in row["refusals"]})))
    if row["outcome"] == "error":
        return escape(row["error"]["code"])
    names = row["functions"]
    number = f"patch {row['patch']}: " if row.get("patch") else ""
    return escape(number + ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else ""))


def _patch(patch: Patch, earlier: Sequence[Patch], places: Places, read: MemoryReader) -> str:
    plan = patch.plan
    sides = sides_of(plan, [row.plan for row in earlier], places, read)
    notes = "".join(f"<li>{escape(note)}</li>" for note in plan.notes)
    return (
        f"<article><h3>Patch {plan.number}</h3><ul>{notes}</ul>"
        + "".join(_function(row, open_it=len(plan.functions) == 1) for row in sides)
        + "</article>"
    )


def _function(sides: Sides, open_it: bool) -> str:
    rows = "".join(
        f'<tr class="{_CLASSES[mark]}"><td>{escape(left)}</td><td>{escape(right)}</td></tr>'
        for mark, left, right in sides.rows
    )
    changed = sum(mark != " " for mark, *_ in sides.rows)
    said = f"{escape(sides.name)} <small>{escape(sides.file)}, {changed} of {len(sides.rows)} lines differ</small>"
    table = f"<table class=code><tr><th>old</th><th>new</th></tr>{rows}</table>"
    return f"<details{' open' if open_it else ''}><summary>{said}</summary>{table}</details>"


_CLASSES = {" ": "same", "|": "changed", "<": "gone", ">": "added"}


def _failures(events: Iterable[Event]) -> Iterator[str]:
    for row in events:
        when = time.strftime("%H:%M:%S", time.localtime(row["time"]))
        for refusal in row.get("refusals", ()):
            yield _failure(when, refusal)
        if row.get("error"):
            yield _failure(when, row["error"])


def _failure(when: str, row: Event) -> str:
    place = f"<small>{escape(row['file'])}</small> " if row.get("file") else ""
    detail = f"<pre>{escape(_ESCAPES.sub('', row['detail'])[:4000])}</pre>" if row.get("detail") else ""
    return (
        f"<article class=failure><p>{when} {place}<code>{escape(row['code'])}</code></p><p>{escape(row['fact'])}</p>"
        f"<p><em>{escape(row['advice'])}</em></p>{detail}</article>"
    )


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: hot patches</title><style>
:root {{ color-scheme: light dark; --line: #8884; --soft: #8881; --red: #c0392b; --green: #1e8449; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 0; }}
main {{ max-width: 76rem; margin: 0 auto; padding: 1.5rem; }}
h1 {{ font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }} header p {{ margin: 0; opacity: .7; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }} h3 {{ margin: 0; font-size: 1rem; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1rem; }}
.figures div {{ background: var(--soft); border-radius: .5rem; padding: .6rem 1rem; min-width: 8rem; }}
.figures b {{ display: block; font-size: 1.3rem; }} .figures span {{ opacity: .7; font-size: .85rem; }}
table {{ border-collapse: collapse; width: 100%; }}
.timeline td {{ border-top: 1px solid var(--line); padding: .35rem .6rem .35rem 0; vertical-align: top; }}
.timeline td:nth-child(-n+2) {{ white-space: nowrap; width: 1%; }} .timeline .bar {{ width: 45%; }}
.timeline .refused td:nth-child(2), .timeline .error td:nth-child(2) {{ color: var(--red); }}
.bar div {{ display: flex; height: .8rem; border-radius: .2rem; overflow: hidden; }} .bar i {{ min-width: 1px; }}
.bar small, summary small, article small {{ opacity: .7; }}
.legend span {{ margin-right: 1rem; font-size: .85rem; }} .legend i {{ display: inline-block; width: .8rem;
  height: .8rem; margin-right: .3rem; border-radius: .15rem; vertical-align: -.1rem; }}
.index {{ background: #7f8c8d; }} .compile {{ background: #2e86c1; }} .diff {{ background: #17a589; }}
.link {{ background: #8e44ad; }} .stopped {{ background: #d35400; }}
article {{ border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: .6rem 0; }}
article ul:empty {{ display: none; }} .failure p {{ margin: .2rem 0; }} .failure code {{ color: var(--red); }}
summary {{ cursor: pointer; padding: .25rem 0; overflow-wrap: anywhere; }}
.code {{ font: 12px/1.45 ui-monospace, monospace; table-layout: fixed; }}
.code th {{ text-align: left; font-weight: 600; opacity: .7; }}
.code td {{ width: 50%; white-space: pre-wrap; overflow-wrap: anywhere; padding: 0 .5rem; vertical-align: top; }}
.changed td:first-child, .gone td:first-child {{ background: #c0392b2e; }}
.changed td:last-child, .added td:last-child {{ background: #1e84492e; }}
@media (max-width: 45rem) {{ .timeline tr, .timeline td {{ display: block; }} .timeline td {{ border: 0; padding: 0; }}
  .timeline tr {{ border-top: 1px solid var(--line); padding: .35rem 0; }} .timeline .bar {{ width: auto; }} }}
.timeline td:nth-child(3) {{ overflow-wrap: anywhere; }}
pre {{ overflow-x: auto; background: var(--soft); padding: .6rem; border-radius: .4rem; font-size: 12px; }}
</style></head><body><main>"""
