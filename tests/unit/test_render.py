"""What the user sees: one line for success, everything that is needed for the rest, and the same for programs."""

from __future__ import annotations

import json

import pytest

from ipbp.errors import IpbpError, Refusal
from ipbp.host.render import as_json, as_text


def function(name: str, status: str = "changed", file: str = "/src/draw.c", entry: int = 0x1000) -> dict:
    return {
        "name": name,
        "status": status,
        "reason": "its code",
        "file": file,
        "entry": entry,
        "address": 0x2000,
        "size": 64,
    }


TIMES = {"index": 3.0, "compile": 212.4, "diff": 9.0, "link": 3.0, "stopped": 1.8}


def test_success_is_one_line():
    outcome = {"outcome": "patched", "patch": 1, "functions": [function("blit"), function("fill")], "times": TIMES}

    assert as_text(outcome) == (
        "patched 2 functions in draw.c: blit, fill   (compile 212 ms, diff 9 ms, link 3 ms, stopped 1.8 ms)\n"
    )


def test_new_and_removed_functions_are_counted_apart():
    functions = [function("a"), function("b", "new"), function("c", "removed", file="/src/other.c")]

    line = as_text({"outcome": "patched", "functions": functions, "times": {}})

    assert line == "patched 3 functions (1 new, 1 removed) in draw.c, other.c: a, b, c\n"


def test_many_functions_are_not_all_named_for_people_but_for_programs():
    outcome = {"outcome": "patched", "functions": [function(f"f{number}") for number in range(20)]}

    assert as_text(outcome).endswith("f7 and 12 more\n")
    assert len(json.loads(as_json(outcome))["functions"]) == 20


def test_notes_follow_the_line():
    outcome = {"outcome": "unchanged", "notes": ["limit: its new initial value is not applied"], "times": {}}

    assert as_text(outcome).splitlines()[1] == "  note: limit: its new initial value is not applied"


def test_a_preview_gives_the_reason_for_each_function():
    outcome = {"outcome": "planned", "functions": [function("blit"), function("tiny", "new")], "data": ["count (new)"]}

    assert as_text(outcome).splitlines()[1:] == [
        "  changed  blit  its code  (64 bytes)",
        "  new      tiny  its code  (64 bytes)",
        "  data     count (new)",
    ]


def test_every_refusal_is_shown_with_its_code_and_advice():
    refusals = [Refusal("too-short", "cannot replace 'blit'", "Rebuild.", "blit", "draw.o"), Refusal("tls", "a", "b")]
    outcome = {"outcome": "refused", "refusals": [refusal.to_json() for refusal in refusals]}

    text = as_text(outcome)

    assert "2 reasons; the process is untouched." in text
    assert "draw.o: cannot replace 'blit' [too-short]\n  Rebuild." in text
    assert "a [tls]\n  b" in text


def test_what_a_tool_printed_is_shown_as_it_is():
    error = IpbpError("compile-failed", "draw.c does not compile", "Correct it.", "draw.c:3:1: error: what\n  ^\n")

    assert as_text({"outcome": "error", "error": error.to_json()}) == (
        "draw.c:3:1: error: what\n  ^\ndraw.c does not compile [compile-failed]\n  Correct it.\n"
    )


def test_status_counts_the_versions_of_a_function():
    patches = [{"patch": number, "functions": [function("blit")], "state": "applied"} for number in (1, 2)]

    lines = as_text({"outcome": "ok", "patches": patches, "memory": 128, "mapped": 8192}).splitlines()

    assert lines == [
        "patch 1: 1 function in draw.c",
        "  blit  version 2  0x1000 -> 0x2000  64 bytes",
        "patch 2: 1 function in draw.c",
        "  blit  version 3  0x1000 -> 0x2000  64 bytes",
        "memory: 128 bytes used, 8 KiB reserved",
    ]


def test_status_without_patches_says_so():
    assert as_text({"outcome": "ok", "patches": [], "memory": 0}) == "no patch is applied\n"


def test_undo_names_the_patches_and_what_they_had_changed():
    patches = [{"patch": 3, "functions": [function("blit")]}, {"patch": 2, "functions": [function("fill")]}]

    assert as_text({"outcome": "undone", "patches": patches, "times": {"stopped": 1.2}}) == (
        "undone patches 3, 2: blit, fill   (stopped 1.2 ms)\n"
    )


def test_the_doctor_says_what_to_do_below_what_is_wrong():
    lines = [
        {"name": "debugger", "ok": True, "text": "gdb 13.1"},
        {"name": "engine", "ok": False, "text": "gone\n  Look."},
    ]

    assert as_text({"outcome": "error", "lines": lines}).splitlines() == [
        "ok   debugger gdb 13.1",
        "NOT  engine   gone",
        "                Look.",
    ]


@pytest.mark.parametrize(
    "outcome",
    [
        {"functions": [], "outcome": "patched"},
        {"outcome": "ok", "text": "agreed\nto it"},
        {"times": {"diff": 1.23456}, "outcome": "unchanged"},
        {"error": {"code": "a", "fact": "b", "advice": "c"}, "outcome": "usage"},
    ],
)
def test_json_is_one_line_that_begins_with_the_outcome_and_has_every_key(outcome: dict):
    text = as_json(outcome)

    assert text.startswith('{"outcome":"')
    assert text.count("\n") == 1
    keys = {"outcome", "patch", "functions", "notes", "times", "refusals", "error", "text"}
    assert keys <= set(json.loads(text))


def test_the_text_in_the_json_speaks_of_the_outcome_as_it_is_now():
    outcome = json.loads(as_json({"outcome": "unchanged", "times": {"diff": 1.0}}))
    outcome["times"]["stopped"] = 250.0

    assert json.loads(as_json(outcome))["text"].endswith("stopped 250 ms)")
