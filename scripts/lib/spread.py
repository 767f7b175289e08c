"""The least, the median and the most of what was measured several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    least: float
    median: float
    most: float


def spread(found: Sequence[float]) -> Spread:
    """Errors: ValueError when there is nothing."""
    return Spread(min(found), median(found), max(found))
