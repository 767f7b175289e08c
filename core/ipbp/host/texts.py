"""Which text of its source the code at an address was compiled from, where the file has had another one.

An image has the text that it was built from, a patch the one that it was compiled from, for good, while the file goes
on to be edited. Code that did not change is no exception: its line numbers count in the text that it is from.
"""

from __future__ import annotations

import hashlib
import os
from difflib import SequenceMatcher
from typing import Iterator, Optional, Sequence

from ipbp.host.inferior import OldText, Ranges
from ipbp.host.journal import ROLLED_BACK, Journal, Patch

FOLDER = "sources"  # beside the journal

_Known = dict[str, tuple[str, str]]
"""Path -> name of the copy, "" where nobody has it; where it is from when that is not certain."""


def texts_of(journal: Journal) -> list[OldText]:
    """Of all code of patches, undone ones included, and of the images that they patch. Whether the file has that text
    now is for `is_shown` to say."""
    patches = [patch for patch in journal.all_patches() if patch.state != ROLLED_BACK]
    as_built: _Known = {}
    for patch in patches:
        for text in patch.plan.texts:
            as_built.setdefault(text.path, (text.before, text.said))
    images = {(image.start, image.end): None for patch in patches for image in patch.images}
    rows = list(_rows(list(images), as_built, patches, journal))
    known: dict[int, _Known] = {}
    for index, patch in enumerate(patches):
        known[patch.number] = {
            **known.get(_parent(patch, patches[:index]), as_built),
            **{text.path: (text.after, "") for text in patch.plan.texts},
        }
        code = [(part.address, part.address + part.size) for part in patch.plan.segments if "x" in part.protection]
        rows += _rows(code, known[patch.number], patches[index + 1 :], journal)
    return rows


def is_shown(row: OldText) -> bool:
    """Whether who opens the file gets this text."""
    try:
        status = os.stat(row.path)
        key = (row.path, status.st_mtime_ns, status.st_size, status.st_ino)
        if key not in _digests:
            with open(row.path, "rb") as file:
                _digests[key] = hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return False
    return _digests[key] == row.digest


_digests: dict[tuple[str, int, int, int], str] = {}


def numbers_of(rows: Sequence[OldText], path: str, line: int, text: str = "") -> dict[str, int]:
    """The number that this line of the file has in each text that some code was compiled from, by the text's digest; 0
    where it is not there. `text`: a copy of the file as it is meant, "" as it is now. Texts that nobody has are left
    out."""
    real, found = os.path.realpath(path), dict[str, int]()
    meant = _lines(text or path)
    for row in rows:
        if row.copy and row.digest not in found and os.path.realpath(row.path) == real:
            other = _lines(row.copy)
            if line <= len(meant) and other:
                found[row.digest] = counterpart(meant, other, line)
    return found


def text_at(rows: Sequence[OldText], address: int, path: str) -> Optional[str]:
    """The digest of the text of this file that the code at an address was compiled from, where that is known."""
    real = os.path.realpath(path)
    for row in rows:
        if row.start <= address < row.end and os.path.realpath(row.path) == real:
            return row.digest
    return None


def number_now(row: OldText, line: int) -> int:
    """The number that a line of this text has in the file as it is now, 0 for none."""
    return counterpart(_lines(row.copy), _lines(row.path), line)


def counterpart(text: Sequence[str], other: Sequence[str], line: int) -> int:
    """The number that a line of `text` has in `other`, 0 for none. Numbers count from 1."""
    shorter = min(len(text), len(other))
    head = next((n for n in range(shorter) if text[n] != other[n]), shorter)
    tail = next((n for n in range(shorter - head) if text[-1 - n] != other[-1 - n]), shorter - head)
    if line <= head:
        return line
    if line > len(text) - tail:
        return line - len(text) + len(other)
    matcher = SequenceMatcher(None, text[head : len(text) - tail], other[head : len(other) - tail], autojunk=False)
    for one, two, size in matcher.get_matching_blocks():
        if one <= line - 1 - head < one + size:
            return line - one + two
    return 0


def _lines(path: str) -> list[str]:
    """None of a file that is not there: then nothing is known of it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _parent(patch: Patch, earlier: Sequence[Patch]) -> int:
    """The newest patch that was in force when this one came, 0 for none; of an undone one it may be a guess."""
    return next((row.number for row in reversed(earlier) if row.is_in_force or not patch.is_in_force), 0)


def _rows(code: Ranges, known: _Known, later: Sequence[Patch], journal: Journal) -> Iterator[OldText]:
    for path, (digest, said) in known.items():
        number = next(
            (
                patch.number
                for patch in later
                for text in patch.plan.texts
                if text.path == path and text.after != digest
            ),
            0,
        )
        when = f"before patch {number}" if number else "when this was compiled"
        for start, end in code:
            yield OldText(start, end, path, digest, str(journal.folder / FOLDER), f"{when} ({said})" if said else when)
