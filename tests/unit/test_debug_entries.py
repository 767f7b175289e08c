"""Entries of debug information: what is wanted of them is found, whatever they consist of, and where they end."""

from __future__ import annotations

import struct

import pytest

from ipbp.formats.debug_entries import MALFORMED, Shape, Texts, shapes

NAME, SIZE, LOCATION, TYPE, LINE, DECLARATION, VALUE, SIBLING = 0x03, 0x0B, 0x02, 0x49, 0x3B, 0x3C, 0x1C, 0x01
DATA1, DATA2, DATA8, DATA16, UDATA, SDATA, STRING, STRP, REF4 = 0x0B, 0x05, 0x07, 0x1E, 0x0F, 0x0D, 0x08, 0x0E, 0x13
BLOCK1, BLOCK2, EXPRLOC, STRX3, FLAG_PRESENT, IMPLICIT_CONST = 0x0A, 0x03, 0x18, 0x27, 0x19, 0x21


def shape_of(*forms: tuple[int, ...], wanted: frozenset[int]) -> Shape:
    """`forms`: attribute, form, and the value of an implicit constant as the one octet that it is written with."""
    octets = bytes([1, 0x34, 0]) + b"".join(bytes(row) for row in forms) + bytes([0, 0, 0])
    ((code, shape),) = shapes(b"before" + octets, 6, wanted)
    assert (code, shape.tag, shape.has_children) == (1, 0x34, False)
    return shape


def test_stretches_of_fixed_length_are_read_around_what_nobody_wants() -> None:
    shape = shape_of(
        *((SIBLING, REF4), (NAME, STRP), (LINE, DATA2), (SIZE, DATA1), (DECLARATION, FLAG_PRESENT)),
        *((VALUE, IMPLICIT_CONST, 0x7D), (TYPE, REF4)),
        wanted=frozenset({NAME, SIZE, TYPE, DECLARATION, VALUE}),
    )
    content = b"?" + struct.pack("<IIHBI", 9, 0x12345678, 0xFFFF, 7, 0xA0B0C0D0) + b"next"
    found, end = shape.read(content, 1)
    assert found == {
        NAME: (STRP, 0x12345678),
        SIZE: (DATA1, 7),
        TYPE: (REF4, 0xA0B0C0D0),
        DECLARATION: (FLAG_PRESENT, 1),
        VALUE: (IMPLICIT_CONST, -3),
    }
    assert content[end:] == b"next"
    assert (shape.size, shape.end(content, 1)) == (15, end)
    assert shape.places[SIBLING] == (REF4, 0)
    assert shape.places[NAME] == (STRP, 4)
    assert found is not shape.read(content, 1)[0], "an entry's attributes are its own"


@pytest.mark.parametrize("wanted", [frozenset(), frozenset({LOCATION, NAME, VALUE, SIZE, TYPE})])
def test_what_varies_in_length_is_read_or_stepped_over(wanted: frozenset[int]) -> None:
    shape = shape_of(
        *((SIZE, DATA8), (LOCATION, EXPRLOC), (NAME, STRING), (LINE, UDATA), (VALUE, SDATA), (TYPE, STRX3)),
        *((0x40, BLOCK1), (0x41, BLOCK2), (0x42, DATA16), (DECLARATION, DATA1)),
        wanted=wanted,
    )
    before = struct.pack("<Q", 1 << 40)
    content = before + b"\x03abc" + b"name\0" + b"\xff\x01" + b"\x7e" + b"\x01\x02\x03"
    content += b"\x02xy" + b"\x01\x00z" + bytes(16) + b"\x05"
    found, end = shape.read(content, 0)
    every = {
        SIZE: (DATA8, 1 << 40),
        LOCATION: (EXPRLOC, 9),
        NAME: (STRING, 12),
        VALUE: (SDATA, -2),
        TYPE: (STRX3, 0x030201),
    }
    assert found == {attribute: row for attribute, row in every.items() if attribute in wanted}
    assert end == shape.end(content, 0) == len(content)
    assert shape.size == -1
    assert LINE not in shape.places, "behind what varies nothing has a place"


def test_an_unknown_form_and_an_entry_that_was_cut_short_are_malformed() -> None:
    for form, content in ((0x7F, bytes(8)), (STRP, bytes(3)), (STRING, b"no end"), (UDATA, b"\xff")):
        shape = shape_of((NAME, form), wanted=frozenset({NAME}))
        with pytest.raises(MALFORMED):
            shape.read(content, 0)


def test_texts_are_where_their_form_says() -> None:
    sections = {
        ".debug_info": b"..own\0",
        ".debug_str": b"one\0two\0",
        ".debug_line_str": b"line\0",
        ".debug_str_offsets": bytes(8) + struct.pack("<II", 4, 0),
    }
    texts = Texts(sections)
    for _ in range(2):
        assert texts.text((STRING, 2), ".debug_info", 0) == "own"
        assert texts.text((STRP, 4), ".debug_info", 0) == "two"
        assert texts.text((0x1F, 0), ".debug_info", 0) == "line"
        assert [texts.text((STRX3, number), ".debug_info", 8) for number in (0, 1)] == ["two", "one"]
        assert texts.text(None, ".debug_info", 0) == texts.text((DATA1, 1), ".debug_info", 0) == ""
