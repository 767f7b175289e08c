"""The section of docs/reliability.md that says what the differential test found, from its logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from differential.case import REFUSED, SAME, TOOL, UNCHANGED, WRONG

Row = dict[str, Any]
BY_DESIGN = {
    "data-size-changed": "a variable that exists would need another size",
    "layout-changed": "a type of which values may be alive would be another one",
    "shared-constant-changed": "other files have the old value built in",
    "signature-changed": "callers that were not compiled again would call it as before",
    "thread-local": "the code insists on an access that cannot work in a patch",
    "new-initialiser": "code that would have run before main",
    "no-type-information": "Rust with line tables only: how its types are laid out is the compiler's choice each time",
}
"""Codes of refusals that a person would give, too."""
TRANSIENT = {"caller-running", "program-busy", "safepoint-frame", "safepoint-stuck"}
"""Codes that say: not now. The same edit is patched a moment later."""
_NAMES = {"c": "C", "csmith": "C by csmith", "cxx": "C++", "rust": "Rust"}


FOUND = (
    "C++ functions with static variables that became global or took one more argument: the variables were new ones for "
    "the patch and began from their first values (seeds 300008, 300034; regression: `test_linkage_changes.py`)",
    "static arrays that clang keeps in parts: other elements by the same machine code were not patched (found while "
    "refusals of `ambiguous-static` were looked into, of which four are left in the table, made by the version before; "
    "regression: `test_variable_parts.py`)",
    "a table of constants that only the cold part of a function uses (gcc's `.cold`): the function was not replaced "
    "and went on with the old table (seed 600114; regression: `test_compare.py`)",
    "a function of four bytes right before one that was patched: the jump of the other was taken for its own and "
    "changed (seed 602050; regression: `test_plan_entries.py`)",
    "a function of a Rust library that the linker had left out, which a patch brought and a later edit changed: the "
    "patched code went on with the first one (seed 602041; regression: `test_rust_dependents.py`)",
    "static variables of one name in two functions, of which an edit inlines one where the other was: they were taken "
    "for each other (seed 606037; regression: `test_correlate.py`)",
    "a function that an edit moved from the program into its library: new code was bound to the old one; refused now "
    "(seed 608019; regression: `test_images.py`)",
    "a function of Rust that an edit moved to another crate: its static variables have other names there and began "
    "anew; refused now (seed 640279; regression: `test_begun_anew.py`)",
    "the test's own fault: with a library of C++ that was linked by `-Bsymbolic` what an inline function keeps was in "
    "the program and in the library, and the state had it once (seeds 700070, 700115; linked otherwise now)",
    "refused and right: a class that a file began to use while the file that had it was edited, too (seed 500002; "
    "regression: `test_moved_definitions.py`), and the second edit of a function that was no longer static (seed "
    "500104; regression: `test_linkage_changes.py`)",
)
"""What was wrong and was mended: the page is to say so when the seeds are right again."""


def read(logs: Iterable[Path]) -> list[Row]:
    """The records of all edits in these logs. What a later log has of a seed is in the place of all that is before."""
    found: dict[int, list[Row]] = {}
    for log in logs:
        rows = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        found.update({row["seed"]: [] for row in rows if "done" not in row})
        for row in rows:
            if "done" not in row:
                found[row["seed"]].append(row)
    return [row for rows in found.values() for row in rows]


def section(records: Sequence[Row], commands: Sequence[str]) -> list[str]:
    """Markdown, line by line."""
    edits = [row for row in records if row["outcome"] != TOOL]
    refused = [row for row in edits if row["outcome"] == REFUSED]
    patchable = [row for row in refused if is_patchable(row)]
    seconds = [row["times"]["all"] for row in edits if row.get("times")]
    seeds = sorted({row["seed"] for row in edits})
    undone = sum(bool(row.get("undo")) for row in edits)
    lines = [
        "## Random edits of random programs",
        "",
        "A random program runs, is edited at random and patched, and must from then on print what a fresh build of the "
        "edited program prints that was given the same state; the state at the end is compared, too. One process is "
        f"patched several times. {sum(bool(row.get('pause')) for row in edits)} of the patches were made while edited "
        f"functions were being run, and {undone} of the rows are undos, compared with the program before. Each run was "
        "of the version that was the newest then; what was wrong in it (below) was run again when it was mended.",
        "",
        "```",
        *commands,
        "```",
        "",
        f"{len(edits)} edits of {len(seeds)} programs (seeds {seeds[0]} to {seeds[-1]}): "
        f"**{_count(edits, WRONG)} wrong**, {_count(edits, SAME)} patched and the same, {_count(edits, UNCHANGED)} "
        f"without another machine code and the same, {len(refused)} refused. In {_share(len(patchable), len(edits))} "
        "of all edits a refusal was one that a person would call patchable. "
        f"An edit took {median(seconds):.1f} s (median, the compiler included, on a machine that others used, too).",
        "",
        *_table("language", edits, lambda row: _NAMES[row["language"]]),
        *_table("compiler", edits, lambda row: row["compiler"]),
        *_table("level", edits, lambda row: row["level"]),
        *_table("position", edits, lambda row: "PIE" if row["pie"] else "not PIE"),
        *_table("images", edits, lambda row: "program and library" if row.get("library") else "program"),
        *_table("built with", edits, lambda row: "what else people build with" if row.get("flags") else "that alone"),
        *_table("patched by (core: by ptrace)", edits, lambda row: str(row["debugger"])),
        *_refusals(refused, len(edits)),
        "Found so far by these programs and mended; the seeds were then run again, and the rows are the later ones:",
        "",
        *(f"* {row}." for row in FOUND),
        "",
        "Not covered: programs with threads that run while they are patched (two threads wait), "
        "coroutines, `async`, C++20 modules, more than three files, and code that neither csmith nor these generators "
        "write.",
    ]
    failed = [row for row in records if row["outcome"] == TOOL]
    if failed:
        why = ", ".join(f"{count} `{code}`" for code, count in Counter(row["codes"][0] for row in failed).items())
        lines += ["", f"Not counted: {len(failed)} rows in which the test itself failed ({why})."]
    return lines


def is_patchable(row: Row) -> bool:
    """Whether a person would have patched what was refused."""
    return not set(row["codes"]) & {*BY_DESIGN, *TRANSIENT}


def _table(title: str, edits: Sequence[Row], key: Callable[[Row], str]) -> list[str]:
    lines = [f"| {title} | edits | patched | no change | refused | wrong |", "|---|---|---|---|---|---|"]
    for name in sorted({key(row) for row in edits}):
        rows = [row for row in edits if key(row) == name]
        counts = " | ".join(str(_count(rows, outcome)) for outcome in (SAME, UNCHANGED, REFUSED, WRONG))
        lines.append(f"| {name} | {len(rows)} | {counts} |")
    return [*lines, ""]


def _refusals(refused: Sequence[Row], total: int) -> list[str]:
    codes = Counter(code for row in refused for code in row["codes"])
    if not codes:
        return []
    lines = ["| refused with | edits | share | a person would |", "|---|---|---|---|"]
    for code, count in codes.most_common():
        why = f"refuse: {BY_DESIGN[code]}" if code in BY_DESIGN else "patch it"
        why = "try again a moment later" if code in TRANSIENT else why
        lines.append(f"| `{code}` | {count} | {_share(count, total)} | {why} |")
    return [*lines, ""]


def _count(rows: Sequence[Row], outcome: str) -> int:
    return sum(row["outcome"] == outcome for row in rows)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"
