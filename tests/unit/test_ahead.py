"""What is worked out ahead is worked out once for each request."""

from __future__ import annotations

from dataclasses import replace

from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.record import UnitRecord
from ipbp.stages.select import OldSide


def test_the_side_of_a_record_is_made_once_and_of_another_record_anew():
    made: list[OldSide] = []

    def make() -> OldSide:
        made.append(object.__new__(OldSide))
        return made[-1]

    ahead, record = Ahead(), UnitRecord("digest", {"f": 1})
    first = ahead.recorded(record, make)

    assert ahead.recorded(record, make) is first
    assert ahead.recorded(replace(record), make) is not first
    assert len(made) == 2
