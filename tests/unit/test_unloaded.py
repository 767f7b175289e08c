"""A library that was closed is forgotten with its patches; one that lies at its place now is never taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_program import run

from ipbp.errors import IpbpError
from ipbp.formats.elf_image import read_image
from ipbp.host.journal import Journal, open_entry
from ipbp.host.unloaded import forget_unloaded
from ipbp.protocol import FunctionChange, PatchedImage, PatchPlan, Region, Replacement

PLACE, PROGRAM, INODE = 0x7000_0000, 0x40_0000, 77
OLD, NEW = b"\x55\x48\x89\xe5\x90", b"\xe9\x01\x02\x03\x04"
ENTRIES = {"f": PLACE + 0x3000, "g": PLACE + 0x3100}


class Process:
    """Memory as a mapped library and some bytes over it."""

    def __init__(self, library: bytes) -> None:
        self.library, self.inode = library, INODE
        self.bytes = dict.fromkeys(ENTRIES.values(), NEW)
        self.is_mapped = True

    def regions(self) -> list[Region]:
        rows = [Region(PROGRAM, PROGRAM + 0x1000, "rx", 0, "/app", 5)]
        return [*rows, Region(PLACE, PLACE + 0x4000, "rx", 0, "/lib.so", self.inode)] if self.is_mapped else rows

    def read(self, address: int, size: int) -> bytes:
        if address in self.bytes and self.is_mapped:
            return self.bytes[address][:size]
        if not self.is_mapped or not PLACE <= address < PLACE + len(self.library):
            raise IpbpError("inferior-memory", "not mapped", "")
        return self.library[address - PLACE :][:size]


def library(folder: Path, gcc: str, text: str) -> tuple[bytes, str]:
    """A library's file and its build id."""
    (folder / "lib.c").write_text(text)
    run([gcc, "-shared", "-fPIC", "-Wl,--build-id", "lib.c", "-o", "lib.so"], folder)
    return (folder / "lib.so").read_bytes(), read_image(str(folder / "lib.so")).build_id


@pytest.fixture
def process(gcc: str, tmp_path: Path) -> Process:
    return Process(library(tmp_path, gcc, "int f(void) { return 1; }\n")[0])


@pytest.fixture
def images(gcc: str, tmp_path: Path) -> tuple[PatchedImage, PatchedImage]:
    build_id = library(tmp_path, gcc, "int f(void) { return 1; }\n")[1]
    return (
        PatchedImage("/app", PROGRAM, PROGRAM + 0x1000, 5, "", True),
        PatchedImage("/lib.so", PLACE, PLACE + 0x4000, INODE, build_id),
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def applied(
    journal: Journal, number: int, images: tuple[PatchedImage, ...], names: str = "fg", before: bytes = OLD
) -> None:
    """A patch of the program's `main` and of functions of the library. `before`: what was at their entries."""
    changes = [Replacement(PROGRAM + 0x100 + number, OLD, NEW, "main", 0)]
    changes += [Replacement(ENTRIES[name], before, NEW, name, 1) for name in names]
    rows = [FunctionChange(c.name, "changed", "its code", "a.c", c.address, image=c.image) for c in changes]
    plan = PatchPlan(number, (), (), (), tuple(changes), (), (), tuple(rows), record={"number": number}, images=images)
    journal.begin(open_entry(plan))
    journal.commit(number)


def test_what_is_still_loaded_is_not_forgotten(journal, process, images):
    applied(journal, 1, images)
    assert forget_unloaded(journal, process) == []
    assert set(ENTRIES.values()) <= journal.entries().keys()


@pytest.mark.parametrize("fate", ["unmapped", "another file", "another build"])
def test_a_library_that_is_gone_takes_its_part_of_each_patch_along(fate, journal, process, images, gcc, tmp_path):
    applied(journal, 1, images)
    applied(journal, 2, images, "f", before=NEW)
    process.is_mapped = fate != "unmapped"
    process.inode += fate == "another file"
    if fate == "another build":
        process.library = library(tmp_path, gcc, "int other(void) { return 2; }\n")[0]

    (note,) = forget_unloaded(journal, process)

    assert note == "/lib.so was unloaded: its patches are forgotten (f, g)"
    for seen in (journal, Journal(journal.folder)):
        assert seen.entries().keys() == {PROGRAM + 0x101, PROGRAM + 0x102}
        assert [[change.name for change in patch.changes] for patch in seen.patches()] == [["main"], ["main"]]
        assert [[row.name for row in patch.functions] for patch in seen.patches()] == [["main"], ["main"]]
        assert seen.unloaded() == [images[1].key]
    assert forget_unloaded(journal, process) == []


def test_a_library_that_was_loaded_again_at_the_same_place_is_a_new_one(journal, process, images):
    applied(journal, 1, images)
    process.bytes = dict.fromkeys(ENTRIES.values(), OLD)
    (note,) = forget_unloaded(journal, process)
    assert "was unloaded and loaded again" in note

    # What is patched in the new load counts again, also after the older patch is the newest.
    applied(journal, 2, images)
    process.bytes = dict.fromkeys(ENTRIES.values(), NEW)
    assert forget_unloaded(journal, process) == []
    assert (journal.unloaded(), set(ENTRIES.values()) <= journal.entries().keys()) == ([], True)
    journal.undone(2, True)
    assert journal.unloaded() == [images[1].key]
    assert journal.entries().keys() == {PROGRAM + 0x101}


def test_entries_that_were_partly_put_back_are_no_new_load(journal, process, images):
    applied(journal, 1, images)
    process.bytes[ENTRIES["f"]] = OLD
    assert forget_unloaded(journal, process) == []


def test_half_way_through_a_patch_original_bytes_prove_nothing(journal, process, images):
    applied(journal, 1, images)
    journal.undoing(1)
    process.bytes = dict.fromkeys(ENTRIES.values(), OLD)
    assert forget_unloaded(journal, process) == []


def test_a_patch_of_nothing_but_what_is_gone_is_no_patch_any_more(journal, process, images):
    change = Replacement(ENTRIES["f"], OLD, NEW, "f", 0)
    journal.begin(open_entry(PatchPlan(1, (), (), (), (change,), (), (), (), images=images[1:])))
    journal.commit(1)
    process.is_mapped = False
    assert len(forget_unloaded(journal, process)) == 1
    assert (journal.patches(), journal.latest_record(), journal.entries()) == ([], {}, {})
    assert journal.next_number() == 2


def test_the_program_itself_is_never_looked_for(journal, process, images):
    applied(journal, 1, images[:1], "")
    process.regions = list
    assert forget_unloaded(journal, process) == []
