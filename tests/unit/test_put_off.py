"""What a request puts off is done when it is answered, and what goes wrong then is told to who asks for it."""

from __future__ import annotations

import pytest

from ipbp.afterwards import afterwards, answered_first
from ipbp.engine.put_off import finish, require_finished, will_be_finished
from ipbp.errors import IpbpError

FULL = IpbpError("disk-full", "there is no room", "Make some.")


def _shown(error: Exception) -> IpbpError:
    assert isinstance(error, IpbpError)
    return error


def _fail() -> None:
    raise FULL


def test_nothing_is_put_off_where_nobody_answers_first() -> None:
    done: list[int] = []
    afterwards(lambda: done.append(1))
    assert done == [1]


def test_jobs_are_done_in_their_order_when_the_request_is_answered() -> None:
    done: list[int] = []
    with answered_first() as jobs:
        afterwards(lambda: done.append(1))
        afterwards(lambda: done.append(2))
        assert done == []
    finish(jobs, _shown)
    assert done == [1, 2]
    afterwards(lambda: done.append(3))
    assert done == [1, 2, 3]


def test_each_plan_has_its_own_failures_and_later_ones_change_nothing() -> None:
    done: list[int] = []
    will_be_finished(["whole.elf"])
    finish([lambda: done.append(1)], _shown)
    will_be_finished(["failed.elf"])
    finish([_fail, lambda: done.append(2)], _shown)
    finish([_fail], _shown)  # of a request without a plan

    require_finished(["whole.elf"])
    with pytest.raises(IpbpError) as error:
        require_finished(["failed.elf"])
    assert (error.value, done) == (FULL, [1, 2])


def test_an_engine_that_did_not_make_the_plan_has_nothing_to_show() -> None:
    with pytest.raises(IpbpError) as error:
        require_finished(["of-another-engine.elf"])
    assert error.value.code == "symbols-lost"
