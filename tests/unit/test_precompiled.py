"""Headers that clang has precompiled are compiled as text, where the plain header is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipbp.build.options import arguments_of, words_of
from ipbp.build.precompiled import without_precompiled

PLAIN = "-Xclang -include -Xclang a.h"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-O2 -include-pch a.h.pch -c a.c", f"-O2 {PLAIN} -c a.c"),
        ("-include a.h -c a.c", f"{PLAIN} -c a.c"),
        ("-include a.h -include b.h -c a.c", f"{PLAIN} -Xclang -include -Xclang b.h -c a.c"),
        (f"-Xclang -include-pch -Xclang a.h.pch {PLAIN} -c a.c", f"{PLAIN} -c a.c"),
        ("-Xclang -include-pch -Xclang a.h.pch -c a.c", f"{PLAIN} -c a.c"),
        # It is not known what was precompiled, or nothing was.
        ("-include-pch other.pch -c a.c", "-include-pch other.pch -c a.c"),
        ("-include b.h -c a.c", "-include b.h -c a.c"),
    ],
)
def test_the_plain_header_takes_the_place_of_a_precompiled_one(line: str, text: str, tmp_path: Path) -> None:
    for name in ("a.h", "a.h.pch", "b.h", "other.pch"):
        (tmp_path / name).touch()
    assert words_of(without_precompiled(arguments_of(line.split()), tmp_path, True)) == text.split()


def test_a_header_of_another_compilers_is_left_alone(tmp_path: Path) -> None:
    for name in ("a.h", "a.h.gch"):
        (tmp_path / name).touch()
    rows = arguments_of(["-include", "a.h", "-c", "a.c"])
    assert without_precompiled(rows, tmp_path, False) == rows
