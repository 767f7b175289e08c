"""Which text a library of the user's was built from is told by the hashes in its metadata."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.snapshot import Snapshot
from ipbp.build.store import Store
from ipbp.build.unnoticed import is_unnoticed

GAP = bytes(300_000)


@pytest.mark.parametrize("edited", [None, 0, 2, 4])
def test_a_file_is_what_was_built_if_its_hash_is_anywhere_in_the_metadata(tmp_path: Path, edited: int | None) -> None:
    files = [tmp_path / f"part{number}.rs" for number in range(5)]
    for path in files:
        path.write_text(f"pub fn of_{path.stem}() {{}}\n")
    places = (2, 0, 1, 4, 3)  # near each other and far apart, before and behind the one that was looked for last
    digests = [hashlib.md5(files[number].read_bytes()).digest() for number in places]
    metadata = tmp_path / "libparts-a1.rmeta"
    metadata.write_bytes(GAP.join([b"rust", *digests[:3], digests[3] + b"!" + digests[4]]))
    if edited is not None:
        files[edited].write_text("pub fn other() {}\n")
    words = ("rustc", "--crate-name", "parts", "-C", "incremental=/nowhere")
    crate = CrateCommand("parts", "parts-a1", "lib", "/", str(tmp_path), str(files[0]), words, (), (), True)
    store = Store(tmp_path / "store")
    image = metadata.stat().st_mtime_ns

    def found(image_mtime_ns: int) -> bool:
        return is_unnoticed(crate, map(str, files), None, image_mtime_ns, Snapshot(), store, tmp_path / "no.texts")

    assert found(image) is (edited is None), "the text of before is not known"
    os.utime(metadata, ns=(image + 1, image + 1))
    assert not found(image), "metadata of a later build says nothing of what runs"
