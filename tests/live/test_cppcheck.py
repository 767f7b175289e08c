"""A large C++ program that nobody here wrote is edited while its threads work: in a source, a virtual function, a
header and a template; what it says is old or new, and nothing is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cppcheck import Cppcheck, build_cppcheck
from sessions import debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = [pytest.mark.live, pytest.mark.slow]
PATIENCE = 120  # seconds for what a changed line must bring


@dataclass(frozen=True)
class Change:
    """`says`: what is then said of a file, "" for a refusal of `code`. `functions`: parts of names in the patch."""

    name: str
    file: str
    old: str
    new: str
    says: str = ""
    functions: Sequence[str] = ()
    code: str = ""


CHANGES = [
    Change(
        "a source",
        "lib/checkcondition.cpp",
        'evaluates to false: " + condition + ".\\n"',
        'is never true: " + condition + ".\\n"',
        "Logical conjunction always is never true: a == 1 && a == 2.",
        ["incorrectLogicOperatorError"],
    ),
    Change(
        "a virtual function, which threads call through a base",
        "cli/cppcheckexecutor.cpp",
        "    std::cout << c << ansiToOEM(outmsg, true)",
        '    std::cout << c << "[new] " << ansiToOEM(outmsg, true)',
        "[new] Checking ",
        ["CppCheckExecutor9reportOut"],
    ),
    Change(
        "a virtual function in a header",
        "lib/checkcondition.h",
        "        checkCondition.multiCondition();\n",
        "        checkCondition.multiCondition();\n"
        '        checkCondition.reportError(std::list<const Token *>(), Severity::warning, "x", "HEADER");\n',
        "warning: HEADER [x]",
        ["CheckCondition9runChecks"],
    ),
    Change(
        "a template",
        "lib/checkcondition.cpp",
        "    case 4:\n        return value2;",
        "    case 4:\n        return value2 == 2 ? value1 : value2;",
        "",
        ["CheckCondition"],
    ),
    Change(
        "what is thrown",
        "lib/tokenize.cpp",
        """"Unmatched '" + tok->str()""",
        """"Not matched '" + tok->str()""",
        "error: Not matched '('",
        ["Tokenizer"],
    ),
    Change(
        "a layout",
        "lib/checkcondition.h",
        "    void runChecks(const",
        "    int more = 0;\n    void runChecks(const",
        code="layout-changed",
    ),
]


@pytest.fixture(scope="session")
def cppcheck(tmp_path_factory: pytest.TempPathFactory) -> Cppcheck:
    return build_cppcheck(tmp_path_factory.mktemp("cppcheck"))


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_large_program_is_edited_while_its_threads_work(
    debugger: str, cppcheck: Cppcheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("debuggers.PATIENCE", 300.0)
    texts = {change.file: (cppcheck.folder / change.file).read_text() for change in CHANGES}
    process = cppcheck.start(tmp_path)
    said = tmp_path / "said"
    try:
        with debug_with(debugger, find_debugger(debugger)) as session:
            session.attach(process.pid)
            session.resume()
            for change in CHANGES:
                path = cppcheck.folder / change.file
                text = path.read_text()
                assert text.count(change.old) == 1, change.name
                path.write_text(text.replace(change.old, change.new))
                before = said.stat().st_size
                outcome = session.call("apply")
                assert outcome["outcome"] == ("refused" if change.code else "patched"), (change.name, outcome)
                names = [row["linkage"] for row in outcome["functions"]]
                assert all(any(part in name for name in names) for part in change.functions), (change.name, names)
                if change.code:
                    assert change.code in {row["code"] for row in outcome["refusals"]}
                    path.write_text(text)
                wait_for_more(said, before, change.says)
            assert session.call("undo 0")["outcome"] == "undone"
            wait_for_more(said, said.stat().st_size, "always evaluates to false: a == 1 && a == 2.")
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        for name, text in texts.items():
            (cppcheck.folder / name).write_text(text)
    # Each file that was begun was reported once, in old words or in new ones.
    text = said.read_text(errors="replace")
    reported = re.findall(r"f(\d{5})\.c:\d+:\d+: (?:warning: Logical conjunction|error: (?:Unm|Not m)atched)", text)
    assert len(reported) == len(set(reported)) > 100
    assert set(reported) >= {f"{number:05}" for number in range(int(max(reported)) - 8)}


def wait_for_more(said: Path, start: int, words: str) -> None:
    """Until the program has said these words, or anything, behind this place."""
    deadline = time.monotonic() + PATIENCE
    while words not in (text := said.read_bytes()[start:].decode(errors="replace")) or not text:
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(0.05)
