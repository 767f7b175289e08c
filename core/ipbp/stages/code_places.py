"""Which place in a function's new code is the one where the old code is now.

Both line tables cut the code into pieces, one for each time that the compiler came to another line: what was edited in
a line is not looked for inside of it. A piece is known by its instructions. The pieces that both versions have, in one
order, are matched as a diff matches lines; but a diff takes any of several that are alike, and here only the one counts
that every best matching agrees on. Between two such pieces lies what was edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.graph.frames import LineRow

Word = tuple[int, str]
_LARGEST = 4000  # pieces of one function


@dataclass(frozen=True, slots=True)
class Piece:
    """Instructions [first, last) by their index, and their words."""

    first: int
    last: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """`counterpart`: for each old piece the new one, -1 where there is none or more than one could be meant."""

    old: Sequence[Piece]
    new: Sequence[Piece]
    counterpart: Sequence[int]

    def piece_of(self, index: int) -> int:
        """The old piece with that instruction."""
        return next(number for number, row in enumerate(self.old) if row.first <= index < row.last)

    def gap(self, piece: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Around an old piece without a counterpart: the pieces [low, high) that were edited, old and new."""
        low = high = piece
        while low > 0 and self.counterpart[low - 1] < 0:
            low -= 1
        while high < len(self.old) and self.counterpart[high] < 0:
            high += 1
        first = self.counterpart[low - 1] + 1 if low > 0 else 0
        last = self.counterpart[high] if high < len(self.old) else len(self.new)
        return (low, high), (first, last)


def match_places(
    old: Sequence[Word], old_lines: Sequence[LineRow], new: Sequence[Word], new_lines: Sequence[LineRow]
) -> Places | None:
    """The words are those of the instructions, each with its offset. None where a function is too large."""
    before, after = pieces(old, old_lines), pieces(new, new_lines)
    if max(len(before), len(after)) > _LARGEST:
        return None
    return Places(before, after, _sure_pairs([row.words for row in before], [row.words for row in after]))


def pieces(words: Sequence[Word], lines: Sequence[LineRow]) -> list[Piece]:
    starts, line = set(), ("", -1)
    for row in lines:
        if (row.file, row.line) != line:
            starts.add(row.offset)
            line = row.file, row.line
    cuts = [index for index, (offset, _) in enumerate(words) if index == 0 or offset in starts]
    return [
        Piece(first, last, tuple(word for _, word in words[first:last]))
        for first, last in zip(cuts, [*cuts[1:], len(words)], strict=True)
    ]


def _sure_pairs(old: Sequence[tuple[str, ...]], new: Sequence[tuple[str, ...]]) -> list[int]:
    """For each old row its new one in every longest common subsequence, -1 otherwise."""
    numbers: dict[tuple[str, ...], int] = {}
    one, other = (
        np.array([numbers.setdefault(row, len(numbers)) for row in side], dtype=np.int64) for side in (old, new)
    )
    if not len(one) or not len(other):
        return [-1] * len(one)
    before = _lengths(one, other)
    after = _lengths(one[::-1], other[::-1])[::-1, ::-1]
    longest = before[-1, -1]
    found = []
    for row in range(len(one)):
        may_be_left_out = (before[row] + after[row + 1] == longest).any()
        pairs = np.flatnonzero((one[row] == other) & (before[row, :-1] + 1 + after[row + 1, 1:] == longest))
        found.append(int(pairs[0]) if len(pairs) == 1 and not may_be_left_out else -1)
    return found


def _lengths(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """[i, j]: length of the longest common subsequence of the first i and the first j."""
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=np.int32)
    for row, value in enumerate(one.tolist()):
        paired = table[row, :-1] + (other == value)
        table[row + 1, 1:] = np.maximum.accumulate(np.maximum(table[row, 1:], paired))
    return table
