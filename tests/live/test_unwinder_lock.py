"""An unwinder's lock that a thread holds is not waited for while all threads are held."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import build_one, debugged

pytestmark = pytest.mark.live


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
@pytest.mark.parametrize("is_stopped", [False, True])
def test_an_undo_leaves_the_unwinder_alone_whose_lock_is_held(debugger: str, is_stopped: bool, tmp_path: Path) -> None:
    # Who is torn from waiting for that lock (a writer's) keeps all others from it for ever.
    words = ("-O2", "-stdlib=libc++")
    project = build_one(tmp_path / "holder", "holder", *words, compiler="clang++-19", link=words, suffix="cpp")
    source = project.folder / "holder.cpp"
    with debugged(project.program, debugger) as (session, talk):
        assert talk.ask("1") == "16"
        source.write_text(source.read_text().replace("+ 10;", "+ 1000;"))
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert talk.ask("1") == "1006"
        assert talk.ask("hold") == "held"
        if is_stopped:
            session.stop()
        outcome = session.call("undo")
        assert outcome["outcome"] == "undone", outcome
        assert any("take the unwind table back" in note and "lock" in note for note in outcome["notes"]), outcome
        if is_stopped:
            session.resume()
        assert talk.ask("0") == "1"
        assert talk.ask("let go") == "let go"
        assert talk.ask("1") == "16"
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert talk.ask("1") == "1006"
        outcome = session.call("undo")
        assert (outcome["outcome"], outcome["notes"]) == ("undone", []), outcome
        assert talk.ask("1") == "16"
        assert talk.close() == 0
