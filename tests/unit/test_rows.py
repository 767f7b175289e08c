"""Rows of bytes as columns are what a dictionary of them, one by one, says; hostile bytes and colliding hashes too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipbp.graph import rows as module
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, byte_rows, distinct, intern, intern_numbers, representatives, unequal
from ipbp.stages.name_numbers import are_numbered, base_name, is_numbered, name_numbers

STRING = st.one_of(
    st.sampled_from([b"", b"\0", b"a", b"main", b"ma", b"main.0", b"\xff\xfe", b"x" * 300, b"12345678", b"123456789"]),
    st.binary(max_size=40),
)
STRINGS = st.lists(STRING, max_size=30)
PART = st.sampled_from(
    ["f", "count", ".", ".0", ".12", ".cold", ".llvm.", ".part", "99999999999", "9", "\u0663", "\udcff", "\n"]
)
NAMES = st.lists(st.lists(PART, max_size=5).map("".join), max_size=20)


def numbers_one_by_one(*tables: list[bytes]) -> list[list[int]]:
    known: dict[bytes, int] = {}
    return [[known.setdefault(string, len(known)) for string in table] for table in tables]


def renumbered(*tables: np.ndarray) -> list[list[int]]:
    known: dict[int, int] = {}
    return [[known.setdefault(number, len(known)) for number in table.tolist()] for table in tables]


@given(STRINGS, STRINGS)
def test_numbers_are_equal_where_the_bytes_are(one: list[bytes], other: list[bytes]) -> None:
    found = intern(byte_rows(one), byte_rows(other))
    assert renumbered(*found) == numbers_one_by_one(one, other)
    assert all((numbers < len(one) + len(other)).all() for numbers in found)


@given(STRINGS)
def test_colliding_hashes_change_nothing(strings: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hashes", lambda word, within, first, length: np.zeros(len(length), dtype=np.uint64))
        assert renumbered(*intern(byte_rows(strings))) == numbers_one_by_one(strings)


@given(STRINGS)
def test_overlapping_rows_at_the_very_end_of_their_buffer_are_read(strings: list[bytes]) -> None:
    whole = np.frombuffer(b"".join(strings), np.uint8)
    length = np.array([min(len(string), len(whole)) for string in strings], dtype=np.int64)
    tails = ByteRows(whole, len(whole) - length, length)
    expected = [bytes(whole[len(whole) - count :]) for count in length.tolist()]
    assert renumbered(*intern(tails)) == numbers_one_by_one(expected)
    assert [tails.of(row) for row in range(len(tails))] == expected


@given(st.lists(st.integers(0, 5), max_size=50))
def test_equal_values_have_one_representative(values: list[int]) -> None:
    numbers = np.array(values, dtype=np.uint64) << np.uint64(40)
    found = representatives(numbers)
    assert (numbers[found] == numbers).all()
    assert len(set(found.tolist())) == len(set(values))
    assert distinct(numbers.astype(np.int64)).tolist() == sorted({value << 40 for value in values})


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=30))
def test_equal_matrix_rows_have_equal_numbers(rows: list[tuple[int, int]]) -> None:
    found = intern_numbers(np.array(rows, dtype=np.int64).reshape(-1, 2))
    known: dict[tuple[int, int], int] = {}
    assert renumbered(found) == [[known.setdefault(row, len(known)) for row in rows]]


@given(st.lists(st.binary(max_size=4).flatmap(lambda body: st.integers(0, 200).map(lambda n: body + bytes(n)))))
def test_zeros_at_the_end_are_left_out(strings: list[bytes]) -> None:
    found = byte_rows(strings).without_end_zeros()
    assert [found.of(row) for row in range(len(found))] == [string.rstrip(b"\0") for string in strings]


@given(STRINGS, st.data())
def test_rows_are_unequal_where_a_byte_is(strings: list[bytes], data: st.DataObject) -> None:
    changed = [data.draw(st.sampled_from([row, bytes(byte ^ 1 for byte in row[:1]) + row[1:]])) for row in strings]
    order = data.draw(st.permutations(range(len(strings))))
    one = byte_rows([b"", *strings])
    other = byte_rows([b"", *(changed[row] for row in order)])
    place = np.array([0, *(1 + order.index(row) for row in range(len(strings)))], dtype=np.int64)
    expected = [False, *(before != after for before, after in zip(strings, changed, strict=True))]
    assert unequal(one, other.take(place)).tolist() == expected


@given(NAMES, NAMES)
def test_base_names_as_columns_are_those_of_each_name(old: list[str], new: list[str]) -> None:
    found = name_numbers(Names.of(old), Names.of(new))
    everything = [*old, *new]
    names = [*found.old_name.tolist(), *found.new_name.tolist()]
    bases = [*found.old_base.tolist(), *found.new_base.tolist()]
    assert are_numbered(Names.of(old)).tolist() == found.old_is_numbered.tolist() == [is_numbered(n) for n in old]
    assert found.new_is_numbered.tolist() == [is_numbered(name) for name in new]
    for one, name, base in zip(everything, names, bases, strict=True):
        assert 0 <= base < found.limit
        for other, other_name, other_base in zip(everything, names, bases, strict=True):
            assert (name == other_name) == (one == other)
            if is_numbered(one) == is_numbered(other):
                assert (base == other_base) == (base_name(one) == base_name(other))


@given(NAMES, st.sampled_from(["f", "count", ".cold", "count.0.part.12.cold", ""]))
def test_names_are_a_sequence_that_can_be_searched(texts: list[str], wanted: str) -> None:
    names, code = Names.of(texts), wanted.encode()
    assert list(names) == texts == names[:] == [names[row] for row in range(len(names))]
    assert names.are_given().tolist() == [bool(text) for text in texts]
    assert names.start_with(code).tolist() == [text.startswith(wanted) for text in texts]
    assert names.equal(code).tolist() == [text == wanted for text in texts]
    last = max((row for row, text in enumerate(texts) if text == wanted), default=-1)
    assert names.rows_of([wanted]).tolist() == [last]
    if wanted:
        assert names.containing(code).tolist() == [row for row, text in enumerate(texts) if wanted in text]


def test_names_that_lie_far_apart_are_searched_one_by_one() -> None:
    texts = [b"f.cold", b"", b"count", b"g.cold.1"]
    buffer = b"".join(text + b".cold" + bytes(4096) for text in texts)
    start = [buffer.index(text + b".cold") if text else 0 for text in texts]
    octets = np.frombuffer(buffer, dtype=np.uint8)
    names = Names(ByteRows(octets, np.array(start), np.array([len(text) for text in texts])))
    assert list(names) == [text.decode() for text in texts]
    assert names.containing(b".cold").tolist() == [0, 3]
    assert Names.of([]).containing(b".cold").tolist() == []
