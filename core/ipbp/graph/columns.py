"""Types of columns, and of what is in them."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import numpy as np
import numpy.typing as npt


class ColumnEnum(IntEnum):
    """Members that columns are compared with. By itself numpy makes an array of the member for each comparison, and
    eight-byte numbers of the column, which takes ten times as long as to compare; so the member's number is compared
    (numpy, "Array interception", `__array_ufunc__` that is None)."""

    __array_ufunc__: ClassVar[None] = None

    def __eq__(self, other: object) -> bool:
        return self._value_ == other

    def __ne__(self, other: object) -> bool:
        return self._value_ != other

    __hash__ = int.__hash__


I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
