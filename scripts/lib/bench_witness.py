"""What a program under measurement tells of itself: which generation of its code it runs, since when, and how long it
stood still.

The program maps the file `seen` in its folder and looks once in some 150 microseconds: it calls the function that is
edited, and where the answer is another one than before it notes the moment. The largest time between two looks is what
a stop is to the program, whoever stops it and by what means.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from pathlib import Path

C = """\
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
static long witness_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}
static void witness(long (*value)(void))
{
    int file = open("seen", O_RDWR | O_CREAT, 0600);
    ftruncate(file, 4096);
    volatile long *seen = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    prctl(PR_SET_TIMERSLACK, 1000);
    seen[0] = -1;
    for (long last = witness_now();; ) {
        long now_value = value(), now = witness_now();
        if (now_value != seen[0]) { seen[1] = now; seen[0] = now_value; }
        if (now - last > seen[2]) seen[2] = now - last;
        last = now;
        struct timespec t = { 0, 100000 };
        nanosleep(&t, 0);
    }
}
"""
RUST = """\
unsafe extern "C" {
    fn mmap(at: *mut u8, size: usize, prot: i32, flags: i32, file: i32, offset: i64) -> *mut i64;
    fn prctl(option: i32, value: u64) -> i32;
    fn clock_gettime(clock: i32, at: *mut [i64; 2]) -> i32;
}
fn witness_now() -> i64 {
    let mut at = [0i64; 2];
    unsafe { clock_gettime(1, &mut at) };
    at[0] * 1_000_000_000 + at[1]
}
fn witness(value: fn() -> i64) {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open("seen").unwrap();
    file.set_len(4096).unwrap();
    let seen = unsafe { mmap(std::ptr::null_mut(), 4096, 3, 1, file.as_raw_fd(), 0) };
    unsafe { prctl(29, 1000) };
    let put = |at: usize, number: i64| unsafe { seen.add(at).write_volatile(number) };
    let get = |at: usize| unsafe { seen.add(at).read_volatile() };
    put(0, -1);
    let mut last = witness_now();
    loop {
        let (current, now) = (value(), witness_now());
        if current != get(0) {
            put(1, now);
            put(0, current);
        }
        if now - last > get(2) {
            put(2, now - last);
        }
        last = now;
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
}
"""


class Witness:
    """The file of one program, which is made when it is not there."""

    def __init__(self, folder: Path) -> None:
        path = folder / "seen"
        if not path.exists():
            path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._seen = mmap.mmap(file.fileno(), 4096)

    def forget(self) -> None:
        """The longest stop begins anew, and no value was seen."""
        self._seen[:24] = struct.pack("3q", -1, 0, 0)

    def forget_gap(self) -> None:
        """The longest stop begins anew."""
        self._seen[16:24] = bytes(8)

    def value(self) -> int:
        return int(struct.unpack_from("q", self._seen, 0)[0])

    def since(self) -> float:
        """Seconds of `time.perf_counter()` at which the value was new."""
        return float(struct.unpack_from("q", self._seen, 8)[0]) / 1e9

    def gap_ms(self) -> float:
        """The longest time that the program stood still since `forget_gap`, in milliseconds."""
        return float(struct.unpack_from("q", self._seen, 16)[0]) / 1e6


def wait_until(is_true: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not happen in {seconds:.0f} seconds")
        time.sleep(0.0003)
