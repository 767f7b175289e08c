"""What the kernel tells about a process is read right, also when its main thread has left."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.protocol import Region

MAPS = """\
555555554000-555555555000 r--p 00000000 fe:01 1234                       /opt/my app/tool (deleted)
555555555000-555555556000 r-xp 00001000 fe:01 1234                       /opt/my app/tool (deleted)
7ffff7fc1000-7ffff7fc5000 ---s 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_maps_are_parsed_with_spaces_in_paths():
    assert procfs.parse_maps(MAPS) == [
        Region(0x555555554000, 0x555555555000, "r", 0, "/opt/my app/tool (deleted)", 1234),
        Region(0x555555555000, 0x555555556000, "rx", 0x1000, "/opt/my app/tool (deleted)", 1234),
        Region(0x7FFFF7FC1000, 0x7FFFF7FC5000, "", 0, "", 0),
        Region(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "x", 0, "[vsyscall]", 0),
    ]


def test_memory_is_written_whatever_its_protection():
    content = ctypes.create_string_buffer(b"0123456789abcdef")
    address = ctypes.addressof(content)
    code = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    before = procfs.read_memory(os.getpid(), code, 16)

    procfs.write_memory(os.getpid(), address + 4, b"XY")
    procfs.write_memory(os.getpid(), code, before)

    assert content.raw[:8] == b"0123XY67"
    assert procfs.read_memory(os.getpid(), address, 8) == b"0123XY67"
    region = next(r for r in procfs.regions(os.getpid()) if r.start <= code < r.end)
    assert region.protection == "rx"


def test_nothing_can_be_read_in_no_bytes():
    assert procfs.read_memory(os.getpid(), 0, 0) == b""


@pytest.mark.parametrize("address", [0, 1 << 63, (1 << 64) - 8])
def test_memory_that_is_not_mapped_is_an_error(address: int):
    for act in (
        lambda: procfs.read_memory(os.getpid(), address, 8),
        lambda: procfs.write_memory(os.getpid(), address, b"x"),
    ):
        with pytest.raises(IpbpError) as caught:
            act()
        assert caught.value.code == "inferior-memory"


def test_a_read_that_runs_over_the_end_of_a_mapping_is_an_error_and_not_short():
    regions = procfs.regions(os.getpid())
    last = next(a for a, b in pairwise(regions) if a.end < b.start and "r" in a.protection)

    assert len(procfs.read_memory(os.getpid(), last.end - 8, 8)) == 8
    with pytest.raises(IpbpError) as caught:
        procfs.read_memory(os.getpid(), last.end - 8, 16)
    assert caught.value.code == "inferior-memory"


@pytest.fixture
def headless() -> Iterator[int]:
    """A process whose main thread has exited and whose other thread waits."""
    script = (
        "import ctypes, sys, threading\n"
        "def wait():\n"
        "    main.join(0)\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.buffer.raw.read()\n"
        "main = threading.main_thread()\n"
        "threading.Thread(target=wait).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit: of this thread only
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            os.sched_yield()
        yield process.pid
        process.kill()


def test_a_process_whose_main_thread_left_is_still_read(headless: int):
    assert Path(f"/proc/{headless}/maps").read_text() == ""

    regions = procfs.regions(headless)

    first = next(region for region in regions if region.protection == "r" and region.path)
    assert procfs.read_memory(headless, first.start, 4) == b"\x7fELF"
    assert len(procfs.auxiliary_vector(headless)) > 100
    assert procfs.start_time(headless) > 0


def test_a_process_that_is_gone_is_an_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    for ask in (procfs.regions, procfs.start_time, procfs.auxiliary_vector):
        with pytest.raises(IpbpError) as caught:
            ask(process.pid)
        assert caught.value.code == "inferior-gone"


def test_a_process_that_has_exited_and_was_not_collected_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        process.stdout.read()
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            os.sched_yield()
        with pytest.raises(IpbpError) as caught:
            procfs.regions(process.pid)
        assert caught.value.code == "inferior-gone"


def test_a_thread_that_waits_is_seen_in_its_system_call():
    reader, writer = os.pipe()
    thread = threading.Thread(target=os.read, args=(reader, 1))
    thread.start()
    while True:
        where = procfs.system_call(os.getpid(), thread.native_id)
        if where is not None and where.number == 0:
            break
    os.write(writer, b"x")
    thread.join()
    os.close(reader)
    os.close(writer)

    assert where.arguments[0] == reader
    region = next(r for r in procfs.regions(os.getpid()) if r.start <= where.pc < r.end)
    assert "x" in region.protection
    assert where.stack_pointer > 0


def test_a_thread_that_runs_has_no_place():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        while procfs.system_call(process.pid, process.pid) is not None:  # it is still starting
            os.sched_yield()
        process.kill()


def test_no_filter_is_mode_0():
    assert procfs.seccomp_mode(os.getpid(), os.getpid()) in (0, 2)


def test_a_signal_that_a_handler_waits_for_is_told_apart_from_a_blocked_one():
    script = (
        "import signal, sys, os\n"
        "signal.signal(signal.SIGUSR1, lambda *a: None)\n"
        "signal.signal(signal.SIGUSR2, lambda *a: None)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})\n"
        "print('ready', flush=True)\n"
        "sys.stdin.buffer.raw.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            os.sched_yield()
        process.send_signal(signal.SIGUSR2)
        only_blocked = procfs.signals_to_handle(process.pid, process.pid)
        process.send_signal(signal.SIGUSR1)
        both = procfs.signals_to_handle(process.pid, process.pid)
        process.kill()

    assert only_blocked == 0
    assert both == 1 << (signal.SIGUSR1 - 1)
