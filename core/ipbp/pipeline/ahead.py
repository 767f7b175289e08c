"""What of a comparison is worked out before it is asked for, while a compiler runs, and then not once more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.record import UnitRecord
from ipbp.stages.attest import Attestation, attest
from ipbp.stages.compare import compare
from ipbp.stages.copies import Copies, place_copies
from ipbp.stages.copy_pairs import pair_copies
from ipbp.stages.correlate import correlate
from ipbp.stages.linkage import Declared
from ipbp.stages.select import OldSide


class Ahead:
    """The answers of one request. The arguments are told apart by being the very same graphs and images: these are
    never changed."""

    def __init__(self) -> None:
        self._proved: list[tuple[LinkGraph, LoadedImage, Attestation]] = []
        self._recorded: list[tuple[UnitRecord, OldSide]] = []
        self._paired: list[tuple[LinkGraph, LinkGraph, tuple[object, ...], Copies]] = []

    def attest(self, old: LinkGraph, image: LoadedImage, read: MemoryReader) -> Attestation:
        """`stages.attest.attest`."""
        for graph, other, known in self._proved:
            if graph is old and other is image:
                return known
        found = attest(old, image, read)
        self._proved.append((old, image, found))
        return found

    def recorded(self, record: UnitRecord, make: Callable[[], OldSide]) -> OldSide:
        """What `make` makes of this very record, or made."""
        for other, known in self._recorded:
            if other is record:
                return known
        found = make()
        self._recorded.append((record, found))
        return found

    def pair(
        self,
        old: LinkGraph,
        new: LinkGraph,
        renewed: Collection[str] = frozenset(),
        successors: Mapping[str, str] | None = None,
        parts: Mapping[int, int] | None = None,
        declared: Declared = lambda _variable: -1,
    ) -> Copies:
        """The two sides of a unit, paired and compared; see `stages.correlate.correlate`."""
        how = frozenset(renewed), dict(successors or {}), dict(parts or {})
        for one, other, known_how, known in self._paired:
            if one is old and other is new and known_how == how:
                return known
        asked = list[str]()

        def noted(variable: str) -> int:
            asked.append(variable)
            return declared(variable)

        correlation = pair_copies(old, new, correlate(old, new, *how, noted))
        found = place_copies(old, new, correlation, compare(old, new, correlation))
        if not asked:  # else it depends on the sources, too
            self._paired.append((old, new, how, found))
        return found
