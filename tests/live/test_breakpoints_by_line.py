"""A breakpoint by line means the line of the file as it is now, also where code is older than the line's number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_old_sources import BOTH, CASES, Case, Typed, typed_to

pytestmark = pytest.mark.live

ANSWERS = {"c": "47", "c by clang": "47", "c++": "9", "rust": "47"}


def patched(typed: Typed, case: Case, main: str) -> None:
    """Stopped in `main`, with a patch before whose functions and in which two lines have come, and no breakpoint."""
    typed.tell(f"break {main}", "breakpoint set --name main")
    typed.terminal.type("run")
    typed.wait_for_stop()
    typed.edit(case)
    assert "patched" in typed.tell("hotpatch")
    typed.tell("delete", "breakpoint delete --force")


def stops(typed: Typed, case: Case, answer: str) -> list[str]:
    """The text of each line at which it stops until the program has answered to the case's word."""
    found = [typed.current(typed.stop("continue", case.word))[1]]
    while True:
        typed.terminal.type("continue")
        shown = typed.wait_for_stop(rf"(?<!\d){answer}\n")
        if shown.endswith(f"{answer}\n"):
            return found
        found.append(typed.current(shown)[1])


@pytest.mark.parametrize(("debugger", "language"), BOTH)
def test_it_stops_at_that_line_and_nowhere_else(debugger: str, language: str, tmp_path: Path) -> None:
    case, edited = CASES[language], CASES[language].edited.splitlines()[-1]
    with typed_to(debugger, case, tmp_path / "project") as typed:
        patched(typed, case, "ledger::main" if language == "rust" else "main")
        # In code that was not patched both numbers are those of other lines.
        typed.break_at(typed.number(edited))
        typed.break_at(typed.number(case.caller))
        assert stops(typed, case, ANSWERS[language]) == [case.caller, edited]


def test_one_that_stands_in_for_another_goes_when_that_has_places_or_goes(tmp_path: Path) -> None:
    case = CASES["c"]
    with typed_to("gdb", case, tmp_path / "project") as typed:
        patched(typed, case, "main")
        line, was = typed.number("    return twice;"), typed.number("    return twice;") - 2
        said = typed.tell(f"break frames.c:{line} if twice == 14")
        assert re.search(rf"\[line {line} of frames.c was line {was} .*: breakpoint 3 stands in for 2\]", said), said
        listed = typed.tell("info breakpoints")
        assert re.search(r"^2\.1 +n ", listed, re.M), listed
        assert re.search(rf"^3 .* y .* in checked at frames.c:{was}\n\tstop only if twice == 14$", listed, re.M), listed
        typed.tell("delete 2")
        assert "No breakpoints" in typed.tell("info breakpoints")
        typed.tell(f"break frames.c:{line}")
        text = typed.source.read_text()
        assert text.count("twice < 10, ") == 1
        typed.source.write_text(text.replace("twice < 10, ", "twice < 100, "))
        assert "patched" in typed.tell("hotpatch")
        listed = typed.tell("info breakpoints")
        assert re.search(rf"^4 .* y .* in checked at frames.c:{line}$", listed, re.M), listed
        assert not re.search(r"^5 ", listed, re.M), listed
        shown = typed.stop("continue", "checked")
        assert typed.current(shown) == (line, "    return twice;")
        assert "before patch" not in shown


def test_in_lldb_one_stands_in_from_when_the_program_goes_on(tmp_path: Path) -> None:
    case = CASES["c"]
    with typed_to("lldb", case, tmp_path / "project") as typed:
        patched(typed, case, "main")
        line, was = typed.number("    return twice;"), typed.number("    return twice;") - 2
        place = f"breakpoint set --file frames.c --line {line}"
        typed.tell(f"{place} --condition 'twice == 14'")
        said = typed.tell("thread step-inst")
        assert re.search(rf"\[line {line} of frames.c was line {was} .*: breakpoint 3 stands in for 2\]", said), said
        listed = typed.tell("breakpoint list 3")
        assert f"line = {was}" in listed
        assert "Condition: twice == 14" in listed
        typed.tell("breakpoint delete 2")
        typed.tell("thread step-inst")
        assert "No breakpoints" in typed.tell("breakpoint list")
        typed.tell(place)
        assert "breakpoint 5 stands in for 4" in typed.tell("thread step-inst")
        text = typed.source.read_text()
        assert text.count("twice < 10, ") == 1
        typed.source.write_text(text.replace("twice < 10, ", "twice < 100, "))
        assert "patched" in typed.tell("hotpatch")
        shown = typed.stop("continue", "checked")
        assert typed.current(shown) == (line, "    return twice;")
        assert "before patch" not in shown
        assert not re.search("^5: ", typed.tell("breakpoint list"), re.M)
