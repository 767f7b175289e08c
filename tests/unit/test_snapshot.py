"""What a file has in it, by its digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ipbp.build.snapshot import Hashed, Snapshot, digest_of, hash_files


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 300_000])
def test_all_of_a_file_is_in_its_digest(tmp_path: Path, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    assert digest_of(str(tmp_path / "file")) == hashlib.sha256(content).hexdigest()


def test_what_is_no_readable_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("gone")
    assert [digest_of(str(path)) for path in (tmp_path, tmp_path / "nowhere", tmp_path / "missing")] == ["", "", ""]


def test_what_was_hashed_before_counts_while_nobody_has_written_to_the_file(tmp_path):
    path = tmp_path / "a.h"
    path.write_text("one")
    [(name, hashed)] = hash_files([str(path), str(tmp_path / "missing")]).items()
    other = {name: Hashed(hashed.state, "as it was hashed")}

    assert hashed.digest == digest_of(str(path))
    assert Snapshot(other).digest(name) == "as it was hashed"


def test_a_file_that_was_written_since_is_hashed_again_though_size_and_time_are_the_same(tmp_path):
    path = tmp_path / "a.h"
    path.write_text("one")
    before = path.stat()
    hashed = hash_files([str(path)])

    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_text("two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert Snapshot(hashed).digest(str(path)) == digest_of(str(path)) != hashed[str(path)].digest
