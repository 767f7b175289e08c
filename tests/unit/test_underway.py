"""A compiler that has made what is asked of it, and has not ended yet."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ipbp.build.underway import Underway


def test_what_it_made_is_there_before_it_has_ended(tmp_path: Path) -> None:
    may_write, may_end = threading.Event(), threading.Event()
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()

    def compiler() -> str:
        assert may_write.wait(60)
        with (tmp_path / "one/whole").open("wb") as whole, (tmp_path / "other/half").open("wb") as half:
            whole.write(b"whole")
            half.write(b"half")
            half.flush()
            whole.close()
            assert may_end.wait(60)
        return "a warning"

    underway = Underway(compiler, (tmp_path / "one", tmp_path / "other"))
    written = underway.written()
    may_write.set()
    assert next(written) == [tmp_path / "one/whole"]
    may_end.set()
    assert underway.ended() == "a warning"
    assert underway.ended() == "a warning"


def test_all_that_it_wrote_is_told_of_when_it_has_ended(tmp_path: Path) -> None:
    def compiler() -> str:
        for name in ("a", "b", "c"):
            (tmp_path / name).write_text(name)
        (tmp_path / "link").hardlink_to(tmp_path / "a")  # what is linked was written before
        return ""

    underway = Underway(compiler, (tmp_path,))
    found = [path.name for paths in underway.written() for path in paths]
    assert found == ["a", "b", "c"]
    assert underway.ended() == ""


def test_one_that_fails_is_waited_for_no_longer(tmp_path: Path) -> None:
    def compiler() -> str:
        raise ValueError("it does not compile")

    underway = Underway(compiler, (tmp_path,))
    assert list(underway.written()) == []
    with pytest.raises(ValueError, match="it does not compile"):
        underway.ended()


def test_where_nothing_is_watched_it_is_waited_for(tmp_path: Path) -> None:
    def compiler() -> str:
        (tmp_path / "made").write_text("made")
        return "done"

    underway = Underway(compiler, (tmp_path / "is not there",))
    assert list(underway.written()) == []
    assert underway.ended() == "done"
