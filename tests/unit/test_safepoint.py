"""No thread is inside bytes that change, nor comes back to there."""

from __future__ import annotations

from random import Random

import pytest

from ipbp.errors import IpbpError
from ipbp.host import safepoint
from ipbp.host.fake import CODE, MASK, PAGE, FakeInferior
from ipbp.host.safepoint import Reach, Stack

ENTRY = CODE + 0x100
INSIDE = [(ENTRY + 1, ENTRY + 5)]


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_a_thread_inside_is_stepped_to_the_end_of_the_bytes(offset: int):
    inferior = FakeInferior(threads=3)
    inferior.thread(101).registers["rip"] = ENTRY + offset
    others = [dict(inferior.thread(other).registers) for other in (100, 102)]

    assert safepoint.clear(inferior, INSIDE).moved == [101]

    assert inferior.thread(101).registers["rip"] == ENTRY + 5
    assert [inferior.thread(other).registers for other in (100, 102)] == others


@pytest.mark.parametrize("offset", [0, 5])
def test_a_thread_at_either_limit_stays(offset: int):
    inferior = FakeInferior()
    inferior.thread(100).registers["rip"] = ENTRY + offset

    assert safepoint.clear(inferior, INSIDE).moved == []
    assert inferior.thread(100).registers["rip"] == ENTRY + offset


def test_a_thread_that_does_not_leave_is_named():
    inferior = FakeInferior()
    inferior.thread(101).registers["rip"] = ENTRY + 1
    inferior.instruction_lengths[ENTRY + 1] = 0  # an instruction that repeats itself

    with pytest.raises(IpbpError, match="101") as caught:
        safepoint.clear(inferior, INSIDE)

    assert caught.value.code == "safepoint-stuck"


@pytest.mark.parametrize("depth", [0, 8, 2 * PAGE, 3 * PAGE - 8])
@pytest.mark.parametrize(("address", "counts"), [(0, False), (1, True), (4, True), (5, False)])
def test_a_word_on_the_stack_that_points_inside_is_an_error(address: int, counts: bool, depth: int):
    inferior = FakeInferior()
    top = inferior.thread(101).registers["rsp"] - 2 * PAGE
    inferior.thread(101).registers["rsp"] = top
    end = next(region.end for region in inferior.regions() if region.start <= top < region.end)
    inferior.write(min(top + depth, end - 8), (ENTRY + address).to_bytes(8, "little"))

    if not counts:
        assert safepoint.clear(inferior, INSIDE).moved == []
        return
    with pytest.raises(IpbpError, match="101") as caught:
        safepoint.clear(inferior, INSIDE)
    assert caught.value.code == "safepoint-frame"


def test_a_word_below_the_stack_pointer_does_not_count():
    inferior = FakeInferior()
    inferior.write(inferior.thread(100).registers["rsp"] - 8, (ENTRY + 2).to_bytes(8, "little"))

    assert safepoint.clear(inferior, INSIDE).moved == []


def test_a_signal_that_arrived_inside_is_found_in_its_frame():
    inferior = FakeInferior()
    thread = inferior.thread(100)
    thread.registers["rip"] = ENTRY + 2
    thread.signals.append((CODE + 0x300, "before"))

    with pytest.raises(IpbpError) as caught:
        safepoint.clear(inferior, INSIDE)

    assert caught.value.code == "safepoint-frame"


def test_users_are_all_threads_that_run_there_or_return_to_there():
    inferior = FakeInferior(threads=3)
    inferior.thread(100).registers["rip"] = ENTRY
    inferior.write(inferior.thread(102).registers["rsp"], ENTRY.to_bytes(8, "little"))

    assert safepoint.users(inferior, [(ENTRY, ENTRY + 64)]) == [100, 102]


def test_a_thread_without_a_stack_is_no_obstacle():
    inferior = FakeInferior()
    inferior.thread(100).registers["rsp"] = MASK & ~7

    assert safepoint.clear(inferior, INSIDE).moved == []


def test_no_ranges_need_no_look_at_the_threads():
    inferior = FakeInferior()

    assert safepoint.clear(inferior, []).moved == []
    assert inferior.operations == 0


def test_a_search_of_many_ranges_says_of_each_what_one_of_it_alone_would() -> None:
    rng = Random(7)
    halves = (0x5555, 0x7FFF)
    spots = [half << 32 | rng.randrange(0x1000, 0x9000) for half in halves for _ in range(40)]
    words = [rng.choice([0, 1, rng.choice(spots) + rng.randrange(-8, 24)]) for _ in range(300)]
    content = [b"".join(word.to_bytes(8, "little") for word in words[at : at + 60]) for at in range(0, 300, 60)]
    stacks = [Stack(number, words[number], row, words[-number]) for number, row in enumerate(content, 1)]
    ranges = [(spot, spot + rng.randrange(1, 16)) for spot in spots]
    reach = Reach(stacks, ranges)
    alone = [safepoint.users_of(stacks, [row]) for row in ranges]
    assert [reach.users_of([row]) for row in ranges] == alone
    assert any(alone)
    assert not all(alone)
    assert reach.users_of(ranges) == safepoint.users_of(stacks, ranges)
    assert Reach(stacks, []).users_of([]) == Reach([], ranges).users_of(ranges) == []
