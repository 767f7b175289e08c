"""Every edit of a type that a running program may hold is refused in words, and every harmless one is patched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from layout_edits import BASE, BASE_CXX, HARMLESS, HARMLESS_CXX, REFUSED, REFUSED_CXX, Edit
from planned import write_database
from running_program import run
from scenario import Project
from sessions import Outcome, debugged

from ipbp.pipeline.readable import readable

pytestmark = pytest.mark.live

_READS = """
#include <stdio.h>
#include <stdlib.h>
int main(void) {{
    {before}
    for (char line[80]; fgets(line, sizeof line, stdin);) {{ printf("%d\\n", use({holder})); fflush(stdout); }}
    return 0;
}}
"""
_HANDLE = "\nstatic int handle(struct client *c, int n) { return c ? n : 0; }"


@dataclass(frozen=True)
class Language:
    file: str
    base: str
    main: str
    refused: Mapping[str, Edit]
    harmless: Mapping[str, Edit]


C = Language(
    "main.c",
    BASE,
    _HANDLE + _READS.format(before="head = calloc(1, 4096); head->run = (handler)handle;", holder="head"),
    REFUSED,
    HARMLESS,
)
CXX = Language("main.cc", BASE_CXX, _READS.format(before="", holder="&square"), REFUSED_CXX, HARMLESS_CXX)


def build_it(language: Language, folder: Path, compiler: str, flags: Sequence[str]) -> Project:
    folder.mkdir()
    (folder / language.file).write_text(language.base + language.main)
    write_database(folder, "-w", *flags, compiler=compiler)
    run([compiler, "-g", "-w", *flags, language.file, "-c", "-o", "main.o"], folder)
    run([compiler, "main.o", "-o", "program"], folder)
    return Project(folder, folder / "program")


@pytest.mark.parametrize(
    ("debugger", "compiler", "language", "flags"),
    [
        pytest.param("lldb", "g++", CXX, "-gdwarf-5 -fdebug-types-section", id="lldb C++"),
        pytest.param("gdb", "clang++-19", CXX, "-gdwarf-4 -gsplit-dwarf", id="gdb C++", marks=pytest.mark.slow),
        pytest.param("gdb", "gcc", C, "-gdwarf-4 -fdebug-types-section", id="gdb C", marks=pytest.mark.slow),
        pytest.param("lldb", "clang-19", C, "-gdwarf-5 -gsplit-dwarf", id="lldb C", marks=pytest.mark.slow),
    ],
)
def test_in_a_running_program(debugger: str, compiler: str, language: Language, flags: str, tmp_path: Path) -> None:
    project = build_it(language, tmp_path / "project", compiler, flags.split())
    source = project.folder / language.file
    with debugged(project.program, debugger) as (session, talk):
        before = talk.ask("")
        for number, (name, edit) in enumerate((*language.refused.items(), *language.harmless.items())):
            # Types count where something is patched.
            text = (
                language.base.replace(edit.old, edit.new) + language.main + f"int marker(void) {{ return {number}; }}\n"
            )
            source.write_text(text)
            outcome = session.call("apply")
            if edit.symbol:
                told(outcome, edit, name, text)
            else:
                assert outcome["outcome"] == "patched", (name, outcome["text"])
                assert session.call("undo 0")["outcome"] == "undone"
            answer = talk.ask("")
            assert answer == before or language is C, name  # which counts
        source.write_text(language.base + language.main)
        assert session.call("apply")["outcome"] == "unchanged"
        assert talk.close() == 0


def told(outcome: Outcome, edit: Edit, name: str, text: str) -> None:
    """The refusal names the type, what of it is another, and the line of that."""
    assert outcome["outcome"] == "refused", (name, outcome["text"])
    rows = [row for row in outcome["refusals"] if row["symbol"] == edit.symbol]
    assert len(rows) == 1, (name, outcome["text"])
    fact = rows[0]["fact"].replace("long int", "long")
    assert readable(edit.words) in fact, name
    if rows[0]["code"] == "layout-changed":
        place = re.search(r"\(main\.\w+:(\d+)\)", fact)
        assert place is not None, (name, fact)
        named = {*re.findall(r"(?:member|enumerator) '(\w+)'", fact), edit.symbol.partition("<")[0].rpartition("::")[2]}
        shown = text.split("\n")[int(place[1]) - 1]
        assert any(word in shown for word in named), (name, fact, shown)
