"""From a machine's ELF relocation numbers to edge kinds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from ipbp.formats import elf_aarch64, elf_x86_64
from ipbp.graph.columns import U8, Flags
from ipbp.graph.edges import EdgeKind

_TABLES: Mapping[str, tuple[str, Mapping[int, EdgeKind], Mapping[int, str]]] = {
    "x86_64": ("R_X86_64", elf_x86_64.KINDS, elf_x86_64.NAMES),
    "aarch64": ("R_AARCH64", elf_aarch64.KINDS, elf_aarch64.NAMES),
}
_NONE = {"x86_64": (0,), "aarch64": (0, 256)}


def edge_kinds(types: npt.NDArray[np.uint32], machine: str) -> U8:
    """The `EdgeKind` of each relocation number; 0 where there is none."""
    table = _table(machine)
    kinds: U8 = np.where(types < len(table), table[np.minimum(types, len(table) - 1)], 0).astype(np.uint8)
    return kinds


def says_nothing(types: npt.NDArray[np.uint32], machine: str) -> Flags:
    """For each number whether it is that of a relocation that does nothing."""
    return np.isin(types, _NONE[machine])


def relocation_name(number: int, machine: str) -> str:
    """The ABI's name of a relocation that has no edge kind."""
    prefix, _kinds, names = _TABLES[machine]
    return names.get(number, f"{prefix} number {number}")


@cache
def _table(machine: str) -> U8:
    _prefix, kinds, _names = _TABLES[machine]
    table = np.zeros(max(kinds) + 2, dtype=np.uint8)
    for number, kind in kinds.items():
        table[number] = kind
    return table
