"""What a crate is made of besides its own source: procedural macros, build scripts, files that it includes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cargo_project import build_cargo_project
from scenario import Edit, Talk
from test_rust import patched, planned

from ipbp.errors import Refused

pytestmark = pytest.mark.live


def test_what_decides_the_code_of_other_crates_is_refused_and_what_is_included_is_patched(tmp_path: Path) -> None:
    project = build_cargo_project(tmp_path / "stamped", workspace="stamped")
    talk = Talk(project.program)
    try:
        assert talk.ask("") == "41 7 plain words"
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
        assert talk.ask("") == "41 7 other words"
        assert talk.close() == 0
    finally:
        talk.kill()
