"""The file that is mapped is known by its first page, also when code in that page was patched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ipbp.host.mapped_head import is_head_of

_PAGE = 4096
_IN_PHDR, _IN_CODE = 64 + 32, 0x600  # the size of the first segment; somewhere behind the headers


def head_of(folder: Path, gcc: str, text: str, *options: str) -> bytes:
    """The first page of a program with code in it."""
    (folder / "a.c").write_text(text)
    words = [gcc, "-nostdlib", "-static", "-Wl,-z,noseparate-code,-e,main", *options, "a.c", "-o", "a"]
    subprocess.run(words, cwd=folder, check=True)
    return (folder / "a").read_bytes()[:_PAGE].ljust(_PAGE, b"\0")


def other_byte(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("build_id", ["sha1", "none"])
def test_code_may_be_patched_where_a_build_id_tells(tmp_path: Path, gcc: str, build_id: str) -> None:
    file = head_of(tmp_path, gcc, "int main(void) { return 3; }", f"-Wl,--build-id={build_id}")
    other = head_of(tmp_path, gcc, "int main(void) { return 4; }", f"-Wl,--build-id={build_id}")
    assert is_head_of(file, file)
    assert is_head_of(file, other_byte(file, _IN_CODE)) == (build_id == "sha1")
    assert not is_head_of(other, file)
    assert not is_head_of(file, other_byte(file, _IN_PHDR))


def test_what_is_no_program_is_none() -> None:
    assert not is_head_of(b"", bytes(_PAGE))
    assert not is_head_of(bytes(_PAGE), bytes(_PAGE))
    for size in range(4, 120):
        assert not is_head_of(b"\x7fELF", b"\x7fELF" + b"\xff" * size)
