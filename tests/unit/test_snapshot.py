"""What a file has in it, by its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ipbp.build.snapshot import digest_of


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 300_000])
def test_all_of_a_file_is_in_its_digest(tmp_path: Path, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    assert digest_of(str(tmp_path / "file")) == hashlib.sha256(content).hexdigest()


def test_what_is_no_readable_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("gone")
    assert [digest_of(str(path)) for path in (tmp_path, tmp_path / "nowhere", tmp_path / "missing")] == ["", "", ""]
