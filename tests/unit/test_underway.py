"""A compiler that has made what is asked of it, and has not ended yet."""

from __future__ import annotations

import threading

import pytest

from ipbp.build.underway import Underway


def test_what_it_made_is_there_before_it_has_ended() -> None:
    is_made, may_end = threading.Event(), threading.Event()

    def compiler() -> str:
        is_made.set()
        assert may_end.wait(60)
        return "a warning"

    underway = Underway(compiler)
    underway.wait_for(is_made.is_set)
    assert is_made.is_set()
    may_end.set()
    assert underway.ended() == "a warning"
    assert underway.ended() == "a warning"


def test_one_that_ends_without_it_is_waited_for_no_longer() -> None:
    def compiler() -> str:
        raise ValueError("it does not compile")

    underway = Underway(compiler)
    underway.wait_for(lambda: False)
    with pytest.raises(ValueError, match="it does not compile"):
        underway.ended()
