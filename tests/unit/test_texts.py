"""Which source text the code at an address is from, and where that text is had from."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from ipbp.build.snapshot import Snapshot
from ipbp.build.store import Store
from ipbp.build.texts import AS_GIT_HAS_IT, Origin
from ipbp.formats.elf_linked import map_file
from ipbp.graph.model import LinkGraph
from ipbp.host.inferior import OldText
from ipbp.host.journal import Journal, open_entry
from ipbp.host.texts import counterpart, is_shown, numbers_of, texts_of
from ipbp.pipeline.texts import _PIECE, _is_in, text_before
from ipbp.protocol import PatchedImage, PatchPlan, Segment, Text

IMAGE = PatchedImage("/p/app", 0x400000, 0x500000, is_executable=True)
ARENA = 0x10000000


def patch(journal: Journal, number: int, *texts: Text) -> None:
    segments = (Segment(ARENA + number * 0x1000, 0x1000, 0, "rx"), Segment(ARENA + 0x80000, 0x10, 0, "rw"))
    plan = PatchPlan(number, ("/p/a.elf",), (), segments, (), (), (), (), images=(IMAGE,), texts=texts)
    journal.begin(open_entry(plan))
    journal.commit(number)


def text_at(journal: Journal, address: int, path: str = "/p/a.c") -> tuple[str, str]:
    rows = [row for row in texts_of(journal) if row.start <= address < row.end and row.path == path]
    assert len(rows) <= 1
    return (rows[0].digest, rows[0].when) if rows else ("", "")


def test_an_image_has_the_first_text_and_each_patch_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    patch(journal, 1, Text("/p/a.c", "built", "one", AS_GIT_HAS_IT))
    patch(journal, 2, Text("/p/a.c", "one", "two"), Text("/p/a.h", "head", "header"))
    assert text_at(journal, 0x400100) == ("built", "before patch 1 (as git has it)")
    assert text_at(journal, ARENA + 0x1010) == ("one", "before patch 2")
    assert text_at(journal, ARENA + 0x2010) == ("two", "when this was compiled")
    # A header that was edited for the second patch had been the same for the first.
    assert (
        text_at(journal, 0x400100, "/p/a.h") == text_at(journal, ARENA + 0x1010, "/p/a.h") == ("head", "before patch 2")
    )


def test_a_patch_after_an_undo_goes_on_from_what_was_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    patch(journal, 1, Text("/p/b.c", "b0", "b1"))
    patch(journal, 2, Text("/p/a.c", "a0", "a2"))
    journal.undone(2, True)
    patch(journal, 3, Text("/p/b.c", "b1", "b3"))
    assert text_at(journal, ARENA + 0x3010) == ("a0", "when this was compiled")
    assert text_at(journal, ARENA + 0x2010) == ("a2", "when this was compiled")
    assert text_at(journal, ARENA + 0x2010, "/p/b.c") == ("b1", "before patch 3")


def test_a_patch_that_was_rolled_back_tells_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    patch(journal, 1, Text("/p/a.c", "a0", "a1"))
    journal.rolled_back(1, False)
    assert texts_of(journal) == []


def test_a_file_that_has_the_text_needs_no_copy(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int f;\n")
    row = OldText(0, 1, str(source), hashlib.sha256(b"int f;\n").hexdigest(), str(tmp_path), "before patch 1")
    assert is_shown(row)
    source.write_text("int g;\n")
    os.utime(source, (1, 1))
    assert not is_shown(row)


def test_a_line_has_another_number_in_another_text() -> None:
    new, old = list("axbcde"), list("abydze")
    assert [counterpart(new, old, line) for line in range(1, 7)] == [1, 0, 2, 0, 4, 6]
    assert [counterpart(old, new, line) for line in range(1, 7)] == [1, 3, 0, 5, 0, 6]
    assert [counterpart(new, new, line) for line in (1, 6)] == [1, 6]
    # Of lines that are alike each has its own.
    assert [counterpart(list("}}}x"), list("}}x"), line) for line in (1, 2, 3, 4)] == [1, 2, 0, 3]


def test_a_number_counts_in_the_file_as_it_is_or_was_meant(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    for name, text in (("built", "one\ntwo\n"), ("first", "new\none\ntwo\n")):
        (tmp_path / name).write_text(text)
    source.write_text("newer\nnew\none\ntwo\n")
    rows = [OldText(0, 1, str(source), digest, str(tmp_path), "") for digest in ("built", "first", "")]
    assert numbers_of(rows, str(source), 3) == {"built": 1, "first": 2}
    assert numbers_of(rows, str(source), 3, str(tmp_path / "first")) == {"built": 2, "first": 3}
    assert numbers_of(rows, "/p/other.c", 3) == {}
    # Nothing is known of a line that there is not, nor of any when the file is gone.
    assert numbers_of(rows, str(source), 5) == {}
    source.unlink()
    assert numbers_of(rows, str(source), 3) == {}


def in_git(folder: Path, text: str) -> Path:
    source = folder / "a.c"
    source.write_text(text)
    commit = ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "a")
    for words in (("init", "-q"), ("add", "a.c"), commit):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return source


def test_a_checksum_tells_which_text_was_compiled(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    source = in_git(tmp_path, "int f;\n")
    source.write_text("int g;\n")
    summed = b"..." + hashlib.md5(b"int f;\n").digest() + b"..."
    digest, said = Origin(0, lambda digest: digest in summed, {}).text(str(source), True, store)
    assert (store.get(digest).read_bytes(), said) == (b"int f;\n", "")
    # Git has another text than the one that was compiled.
    assert Origin(0, lambda digest: False, {}).text(str(source), True, store) == ("", "")
    # No checksums at all: git's is the best there is, and that is said.
    digest, said = Origin(0, lambda digest: False, {}).text(str(source), False, store)
    assert (store.get(digest).read_bytes(), said) == (b"int f;\n", AS_GIT_HAS_IT)


def test_git_is_asked_once_for_each_build_of_a_program(tmp_path: Path) -> None:
    store, new = Store(tmp_path / "store"), cast(LinkGraph, SimpleNamespace(side=()))
    source = in_git(tmp_path, "int f;\n")
    source.write_text("int g;\n")
    before = text_before(str(source), Origin(1, lambda digest: False, {}), new, tmp_path, store)
    assert (store.get(before[0]).read_bytes(), before[1]) == (b"int f;\n", AS_GIT_HAS_IT)
    in_git(tmp_path, "int g;\n")  # the edit is committed, and the program still what it was
    assert text_before(str(source), Origin(1, lambda digest: False, {}), new, tmp_path, store) == before
    rebuilt = text_before(str(source), Origin(2, lambda digest: False, {}), new, tmp_path, store)
    assert store.get(rebuilt[0]).read_bytes() == b"int g;\n"


def test_what_was_kept_before_an_edit_is_certain(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = store.put(b"int kept;\n")
    assert Origin(0, lambda digest: False, {"/p/a.c": kept}).text("/p/a.c", False, store) == (kept, "")
    assert Origin(0, lambda digest: False, {}).text("/p/a.c", False, store) == ("", "")


def test_a_file_older_than_the_program_or_with_its_checksum_is_unedited(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int f;\n")
    time = source.stat().st_mtime_ns
    summed = hashlib.md5(b"int f;\n").digest()
    assert Origin(time, lambda digest: False, {}).is_unedited(str(source), Snapshot())
    assert not Origin(time - 1, lambda digest: False, {}).is_unedited(str(source), Snapshot())
    assert Origin(time - 1, lambda digest: digest == summed, {}).is_unedited(str(source), Snapshot())
    assert not Origin(time, lambda digest: False, {}).is_unedited(str(tmp_path / "gone.c"), Snapshot())


def test_what_lies_across_two_pieces_of_a_mapped_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "image"
    for before in (2 * 4096 + 100, _PIECE - 16, _PIECE - 15, _PIECE - 1, _PIECE, 2 * _PIECE - 5):
        file.write_bytes(bytes(before) + b"sixteen bytes of" + bytes(7))
        content = map_file(str(file))
        assert _is_in(content, 0, len(content), b"sixteen bytes of")
        assert not _is_in(content, 0, before + 15, b"sixteen bytes of")
        assert not _is_in(content, 0, len(content), b"sixteen others..")
        assert _is_in(content, before, before + 16, b"sixteen bytes of")
