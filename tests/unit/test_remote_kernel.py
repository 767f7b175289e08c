"""What is told of a process of another machine by its text files and its memory."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from ipbp.host.kernel_words import kept_words_there
from ipbp.host.procfs import parse_maps
from ipbp.host.remote_kernel import Link, entry_of, kernel_of, vector_on_stack

STACK, START = 0x7FFC_0000_0000, 0x7FFC_0000_1230
VECTOR = struct.pack("<8Q", 33, 0x7FFC_1000, 9, 0x401000, 23, 0, 0, 0)
DIGESTS = (bytes(16), hashlib.md5(VECTOR).digest())


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def link_of(on_stack: bytes) -> Link:
    """A machine whose process 7, named "a) b", has this on its stack from argc on, and the strings behind it."""
    fields = " ".join(map(str, range(3, 53))).replace(" 22 ", " 4711 ").replace(" 28 ", f" {START} ")
    files = {
        "/proc/7/stat": f"7 (a) b) {fields}\n".encode(),
        "/proc/7/maps": b"400000-401000 r-xp 0 00:00 0 \n7ffc00000000-7ffc00002000 rw-p 0 00:00 0 [stack]\n",
        "/proc/sys/kernel/random/boot_id": b"some-boot\n",
    }
    memory = bytes(START - STACK) + on_stack.ljust(STACK + 0x2000 - START, b"s")

    def read(address: int, size: int) -> bytes | None:
        at = address - STACK
        return memory[at : at + size] if at >= 0 and at + size <= len(memory) else None

    return Link(files.get, partial(map, files.get), lambda path, copy: False, read, lambda path: (), lambda path: 1)


@pytest.mark.parametrize(
    "before",
    [
        words(1, 0x7FFC_0100, 0, 0x7FFC_0110, 0),
        words(2, 0x7FFC_0100, 0, 0, 0x7FFC_0110, 0x7FFC_0120, 0),  # argv[1] = NULL, as setproctitle(3) does
        words(1, 0, 0, 0, 0, 0),
        words(1, 0x7FFC_0100, 0, 0, 0x7FFC_0110, 0),  # environ[0] = NULL
    ],
    ids=["as it was", "argument cut", "all cleared", "environment cut"],
)
def test_the_vector_is_found_behind_arguments_and_environment(before: bytes) -> None:
    assert vector_on_stack(link_of(before + VECTOR), 7, DIGESTS) == VECTOR


@pytest.mark.parametrize(
    "stack",
    [
        words(1, 0x7FFC_0100, 0, 0x7FFC_0110, 0) + VECTOR.replace(b"\x10@", b"\x20@"),
        words(1, 0x7FFC_0100, 0, 0x7FFC_0110, 0) + VECTOR[:-16] + words(1, 1),
        bytes(3) + VECTOR,
        b"",
    ],
    ids=["another one", "not ended", "at no word", "none"],
)
def test_what_is_not_the_vector_of_that_digest_is_none(stack: bytes) -> None:
    assert vector_on_stack(link_of(stack), 7, DIGESTS) == b""


def test_the_process_is_named_by_boot_number_start_and_vector() -> None:
    link = link_of(b"")
    kernel = kernel_of(link, 7, VECTOR)
    assert kernel is not None
    assert kernel.name.startswith("some-boot.7.4711.")
    assert kernel.entry == entry_of(VECTOR) == 0x401000
    other = kernel_of(link, 7, VECTOR.replace(b"\x10@", b"\x20@"))
    assert other is not None
    assert other.name != kernel.name
    assert kernel_of(link, 7, b"") is None
    assert kernel_of(link, 8, VECTOR) is None


def kept_there(files: dict[str, bytes], maps: str = "") -> list[int] | None:
    base = {"status": b"Name:\tx\nFDSize:\t64\n", "timers": b"", "fdinfo/0": b"pos:\t0\nflags:\t02\n"}
    found = {f"/proc/7/{name}": content for name, content in {**base, **files}.items()}
    return kept_words_there(partial(map, found.get), 7, parse_maps(maps), 5.0)


def test_what_the_kernel_there_keeps_is_read_of_each_file_that_may_be_open() -> None:
    epoll = b"pos:\t0\ntfd:        5 events:       19 data: 7ffff7fbd010  pos:0 ino:b sdev:e\n"
    timer = b"ID: 0\nsignal: 10/0000000000001234\nnotify: signal/pid.7\n"
    assert kept_there({}) == []
    assert kept_there({"fdinfo/63": epoll, "timers": timer}) == [0x7FFFF7FBD010, 0x1234]


@pytest.mark.parametrize(
    ("files", "maps"),
    [
        ({"status": b"Name:\tx\n"}, ""),
        ({"fdinfo/5": b"pos:\t0\nSqMask:\t0x3\n"}, ""),
        ({}, "7f0000000000-7f0000001000 rw-s 0 00:0e 1051 anon_inode:[io_uring]\n"),
        ({}, "7f0000000000-7f0000001000 rw-s 0 00:12 99 /[aio] (deleted)\n"),
    ],
    ids=["no number of files", "io_uring", "its mapping", "aio"],
)
def test_what_the_kernel_there_may_keep_unseen_is_not_known(files: dict[str, bytes], maps: str) -> None:
    assert kept_there(files, maps) is None


def test_files_there_that_nobody_may_see_are_not_known() -> None:
    files = {"/proc/7/status": b"FDSize:\t64\n", "/proc/7/timers": b""}
    assert kept_words_there(partial(map, files.get), 7, [], 5.0) is None
    assert kept_words_there(partial(map, dict[str, bytes]().get), 7, [], 5.0) is None


def test_over_a_slow_link_it_is_not_asked_for_all() -> None:
    asked = []

    def slowly(paths: Iterable[str]) -> Iterator[bytes | None]:
        for path in paths:
            asked.append(path)
            time.sleep(0.05)
            yield {"/proc/7/status": b"FDSize:\t256\n", "/proc/7/timers": b""}.get(path)

    assert kept_words_there(slowly, 7, [], 2.0) is None
    assert len(asked) < 20
