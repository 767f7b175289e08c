"""A part of a file as a stream gives what a stream of its bytes gives."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path

from ipbp.build.window import Window


def test_a_window_reads_like_the_bytes_themselves(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    path = tmp_path / "file"
    path.write_bytes(b"before" + content + b"behind")
    with path.open("rb") as file:
        window = Window(file.fileno(), 6, len(content))
    plain, chance = BytesIO(content), random.Random(2)
    assert len(window) == len(content)
    assert window.getvalue() == content
    for _ in range(2000):
        place = chance.randrange(-5, len(content) + 5)
        if place >= 0:
            assert window.seek(place) == plain.seek(place)
        size = chance.choice((0, 1, 4, 200, 70_000, -1))
        assert window.read(size) == plain.read(size)
        assert window.tell() == plain.tell() or place > len(content)
    assert window.seek(-3, 2) == plain.seek(-3, 2)
    assert window.read() == content[-3:]


def test_a_window_on_a_file_that_became_shorter_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with path.open("rb") as file:
        window = Window(file.fileno(), 50, 500)
    assert window.read(500) == bytes(50)
