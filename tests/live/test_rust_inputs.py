"""What a crate is made of besides its source: procedural macros, build scripts, included files, the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from cargo_project import build_cargo_project
from scenario import Edit, Talk
from test_rust import patched, planned

from ipbp.errors import Refused

pytestmark = [pytest.mark.live, pytest.mark.compiles]


def test_what_decides_the_code_of_other_crates_is_refused_and_what_is_included_is_patched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = build_cargo_project(tmp_path / "stamped", workspace="stamped")
    talk = Talk(project.program)
    try:
        assert talk.ask("") == "41 7 plain words open"
        for file, before, after, name in (
            ("marks/src/lib.rs", "41", "42", "marks"),
            ("stamped/build.rs", "u64 = 7", "u64 = 8", "stamped"),
        ):
            project.edit(Edit(name, file, [(before, after)], [], []))
            with pytest.raises(Refused) as caught:
                planned(talk)
            assert {row.code for row in caught.value.refusals} == {"cargo-build-needed"}
            assert name in {row.symbol for row in caught.value.refusals}
            project.restore()
        (project.folder / "stamped/src/words.txt").write_text("other words")
        assert patched(talk, "gdb")
        assert talk.ask("") == "41 7 other words open"
        with monkeypatch.context() as changed:
            changed.setenv("STAMP", "red")
            with pytest.raises(Refused) as caught:
                planned(talk)
            assert [(row.code, row.symbol) for row in caught.value.refusals] == [("cargo-build-needed", "stamped")]
            assert "the environment variable STAMP" in caught.value.refusals[0].fact
        monkeypatch.setenv("SEAL", "sealed")
        assert patched(talk, "lldb")
        assert talk.ask("") == "41 7 other words sealed"
        assert talk.close() == 0
    finally:
        talk.kill()
