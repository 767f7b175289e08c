"""Whether something leads into memory: whatever is found keeps it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterator

import pytest

from ipbp.host import reclaim
from ipbp.host.fake import DATA, PAGE, STACKS, FakeInferior

HIGH = 0x7E00_1234_5000
LOW = 0x1234_5000
HEAP = 0x55550000_0000


def fake() -> FakeInferior:
    """For which the kernel keeps what it keeps for this process."""
    return FakeInferior(threads=2, pid=os.getpid(), local=True)


@pytest.fixture(params=[HIGH, LOW], ids=["high", "low"])
def patch(request: pytest.FixtureRequest) -> tuple[FakeInferior, tuple[int, int]]:
    """A program, and the 256 bytes of a patch in it."""
    inferior = fake()
    start = int(request.param)
    inferior.map(start, PAGE, "rx")
    inferior.map(HEAP, 3 * PAGE, "rw")
    return inferior, (start + 16, start + 272)


def keeps(inferior: FakeInferior, span: tuple[int, int]) -> bool:
    return 0 in reclaim.reached(inferior, [[span]])


def word(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_nothing_leads_to_what_nobody_knows(patch: tuple[FakeInferior, tuple[int, int]]) -> None:
    assert not keeps(*patch)


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 4089, 4093, 2 * PAGE + 5])
def test_a_pointer_at_any_place_and_alignment_keeps_it(
    patch: tuple[FakeInferior, tuple[int, int]], offset: int
) -> None:
    inferior, span = patch
    inferior.write(HEAP + offset, word(span[0] + 3))
    assert keeps(inferior, span)


@pytest.mark.parametrize(("at", "kept"), [(-1, False), (0, True), (255, True), (256, True), (257, False)])
def test_the_end_counts_and_the_neighbours_do_not(
    patch: tuple[FakeInferior, tuple[int, int]], at: int, kept: bool
) -> None:
    inferior, span = patch
    inferior.write(DATA + 64, word(span[0] + at))
    assert keeps(inferior, span) == kept


@pytest.mark.parametrize("register", ["rip", "rax", "r15", "rsi"])
def test_a_register_keeps_it(patch: tuple[FakeInferior, tuple[int, int]], register: str) -> None:
    inferior, span = patch
    inferior.all_threads[1].registers[register] = span[0] + 40
    assert keeps(inferior, span)


def test_an_address_in_four_bytes_keeps_what_is_below_four_gigabytes() -> None:
    inferior = fake()
    inferior.map(LOW, PAGE, "rx")
    inferior.write(DATA + 3, (LOW + 20).to_bytes(4, "little") + b"\xff\xff\xff\xff")
    assert keeps(inferior, (LOW, LOW + 64))


def test_a_stack_counts_from_its_red_zone_on_when_a_guard_page_tells_that_it_is_one(
    patch: tuple[FakeInferior, tuple[int, int]],
) -> None:
    inferior, span = patch
    stack = next(region for region in inferior.regions() if region.start >= STACKS)
    thread = next(t for t in inferior.all_threads if stack.start <= t.registers["rsp"] < stack.end)
    pointer = thread.registers["rsp"] = stack.start + 1024
    inferior.write(stack.start + 64, word(span[0]))
    assert keeps(inferior, span), "it may be a heap that a stack was made in"
    inferior.map(stack.start - PAGE, PAGE, "")
    assert not keeps(inferior, span)
    inferior.write(pointer - 120, word(span[0]))
    assert keeps(inferior, span)


def test_what_the_patch_itself_holds_does_not_count() -> None:
    inferior = fake()
    inferior.map(HIGH, PAGE, "rw")
    inferior.write(HIGH + 32, word(HIGH + 8))
    assert not keeps(inferior, (HIGH, HIGH + 64))
    inferior.write(HIGH + 128, word(HIGH + 8))
    assert keeps(inferior, (HIGH, HIGH + 64))


def test_more_memory_than_can_be_searched_in_a_moment_keeps_it(
    patch: tuple[FakeInferior, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inferior, span = patch
    monkeypatch.setattr(reclaim, "LIMIT", 2 * PAGE)
    assert keeps(inferior, span)


@pytest.fixture
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def epoll(libc: ctypes.CDLL) -> Iterator[int]:
    """An epoll instance that waits for a pipe, and gives back the word that a test has put there."""
    with select.epoll() as instance:
        yield instance.fileno()


def test_what_epoll_will_give_back_keeps_it(
    patch: tuple[FakeInferior, tuple[int, int]], libc: ctypes.CDLL, epoll: int
) -> None:
    inferior, span = patch
    reading, writing = os.pipe()
    event = (1).to_bytes(4, "little") + word(span[0] + 8)  # struct epoll_event is packed: EPOLLIN, then the data
    assert libc.epoll_ctl(epoll, 1, reading, event) == 0
    assert keeps(inferior, span)
    os.close(reading)
    os.close(writing)
    assert not keeps(inferior, span)


def test_what_a_timer_will_give_back_keeps_it(patch: tuple[FakeInferior, tuple[int, int]], libc: ctypes.CDLL) -> None:
    inferior, span = patch
    timer = ctypes.c_void_p()
    # struct sigevent: the value, the signal, SIGEV_SIGNAL.
    event = (word(span[0] + 8) + int(signal.SIGUSR1).to_bytes(4, "little")).ljust(64, b"\0")
    assert libc.timer_create(1, event, ctypes.byref(timer)) == 0
    assert keeps(inferior, span)
    assert libc.timer_delete(timer) == 0
    assert not keeps(inferior, span)


def test_what_the_kernel_keeps_unseen_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    inferior = fake()
    inferior.map(HIGH, PAGE, "rx")
    assert not keeps(inferior, (HIGH, HIGH + 64))
    monkeypatch.setattr("os.readlink", lambda path: "anon_inode:[io_uring]")
    assert keeps(inferior, (HIGH, HIGH + 64))


def test_of_several_patches_those_are_kept_that_something_points_to() -> None:
    inferior = fake()
    inferior.map(HIGH, 4 * PAGE, "rw")
    spans = [
        [(HIGH + n * PAGE, HIGH + n * PAGE + 64), (HIGH + n * PAGE + 128, HIGH + n * PAGE + 192)] for n in range(4)
    ]
    assert reclaim.reached(inferior, spans) == set()
    inferior.write(DATA + 9, word(spans[2][1][0] + 5))
    assert reclaim.reached(inferior, spans) == {2}
    inferior.write(spans[1][0][0], word(spans[1][1][0]))
    assert reclaim.reached(inferior, spans) == {2}
    inferior.write(spans[1][0][0] + 8, word(spans[3][0][0]))
    assert reclaim.reached(inferior, spans) == {2, 3}
    inferior.all_threads[0].registers["rbx"] = spans[0][0][1]
    assert reclaim.reached(inferior, spans) == {0, 2, 3}


def test_two_patches_are_kept_by_a_word_that_points_to_where_they_meet() -> None:
    inferior = fake()
    inferior.map(HIGH, PAGE, "rx")
    inferior.write(DATA, word(HIGH + 64))
    assert reclaim.reached(inferior, [[(HIGH, HIGH + 64)], [(HIGH + 64, HIGH + 128)]]) == {0, 1}


def test_a_vector_register_keeps_it(patch: tuple[FakeInferior, tuple[int, int]]) -> None:
    inferior, span = patch
    inferior.all_threads[1].vectors["xmm3"] = (span[0] + 7) << 64
    assert keeps(inferior, span)


def test_what_a_program_keeps_in_the_upper_bits_does_not_hide_an_address() -> None:
    inferior = fake()
    inferior.map(HIGH, PAGE, "rx")
    inferior.write(DATA + 8, word(0xFFFC << 48 | HIGH + 8))
    assert keeps(inferior, (HIGH, HIGH + 64))


def test_a_signature_does_not_hide_an_address_of_aarch64() -> None:
    inferior = FakeInferior(pid=os.getpid(), local=True, triple="aarch64-linux")
    inferior.map(HIGH, PAGE, "rx")
    assert not keeps(inferior, (HIGH, HIGH + 64))
    inferior.all_threads[0].registers["x30"] = 0x003A_F600_0000_0000 ^ (HIGH + 8)
    assert keeps(inferior, (HIGH, HIGH + 64))


def test_of_aarch64_memory_that_looks_alike_in_the_bits_that_count_is_all_kept() -> None:
    inferior = FakeInferior(pid=os.getpid(), local=True, triple="aarch64-linux")
    wide, others = (
        (HIGH, HIGH + 4096),
        [(HIGH + (n << 36) + 64 * n, HIGH + (n << 36) + 64 * n + 8) for n in range(1, 5)],
    )
    inferior.write(DATA, word(HIGH + 2000))
    assert reclaim.reached(inferior, [[wide], *([span] for span in others)]) == {0}
    inferior.write(DATA, word(others[2][0]))
    assert reclaim.reached(inferior, [[wide], *([span] for span in others)]) == {0, 3}
    inferior.write(DATA, word(0x5))
    assert reclaim.reached(inferior, [[(0xF_FFFF_FFF0, 0x10_0000_0010)]]) == {0}


def test_an_upper_part_that_overlaps_with_itself_is_found_at_each_place() -> None:
    inferior = fake()
    inferior.map(0x7E00_7E00_7000, PAGE, "rx")
    span = (0x7E00_7E00_7E00, 0x7E00_7E00_7E40)
    inferior.write(DATA, bytes.fromhex("34f2007e007e"))
    assert not keeps(inferior, span)
    inferior.write(DATA, bytes.fromhex("34f2007e007e007e"))
    assert keeps(inferior, span)


class Far(FakeInferior):
    """A process of another machine. `delay`: seconds for each reading of memory."""

    delay = 0.0

    def kept_words(self, seconds: float) -> list[int]:
        return []

    def read(self, address: int, size: int) -> bytes:
        time.sleep(self.delay)
        return super().read(address, size)


def test_behind_a_slow_link_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    inferior = Far()
    inferior.map(HIGH, PAGE, "rx")
    inferior.map(HEAP, 64 * PAGE, "rw")
    monkeypatch.setattr(reclaim, "_REMOTE_PIECE", PAGE)
    assert not keeps(inferior, (HIGH, HIGH + 64))
    inferior.delay = 0.1
    start = time.monotonic()
    assert keeps(inferior, (HIGH, HIGH + 64))
    assert time.monotonic() - start < 2  # by itself: not after the 6.4 seconds that all would take
