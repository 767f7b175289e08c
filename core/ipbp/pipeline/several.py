"""Plans for several processes: one build, and one diff and one link for all that are alike.

A plan follows from what is asked and from what was read of the process's memory, and from nothing else of the process.
So what was read is kept along with the plan. A process that has the same files mapped at the same places (a forked one,
as a rule), was patched in the same way before and answers every one of these reads with the same bytes gets the same
plan; every other one gets a plan of its own. What else lies in memory may differ: only where the patch goes, it must be
free, which whoever applies the plan looks at once more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ipbp.build.links import link_or_copy
from ipbp.errors import Refused
from ipbp.graph.image import MemoryReader
from ipbp.pipeline.order import Outcome, Tell, make_plan
from ipbp.pipeline.request import Request
from ipbp.pipeline.texts import kept_beside
from ipbp.protocol import PatchPlan, Region


@dataclass
class Plans:
    """Plans of one command. `made`: how many were not taken from another process."""

    made: int = 0
    _rows: list[_Made] = field(default_factory=list)

    def plan(self, request: Request, read: MemoryReader, tell: Tell) -> Outcome:
        """As `make_plan`."""
        like = next((row for row in self._rows if row.is_for(request, read)), None)
        if like is not None:
            return like.moved_to(request)
        self.made += 1
        reads = _Reads(read)
        try:
            outcome: Outcome | Refused = make_plan(request, reads, tell)
        except Refused as refused:
            outcome = refused
        self._rows.append(_Made(request, _namespace(request), reads.found, outcome))
        if isinstance(outcome, Refused):
            raise outcome
        return outcome


class _Reads:
    """A `MemoryReader` that remembers the first answer to each question; later ones may be those of a program that
    has run on."""

    def __init__(self, read: MemoryReader) -> None:
        self._read = read
        self.found: dict[tuple[int, int], bytes | None] = {}

    def __call__(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        answers = self._read(ranges)
        for asked, answer in zip(ranges, answers, strict=True):
            self.found.setdefault(asked, answer)
        return answers


@dataclass(frozen=True)
class _Made:
    """`namespace`: of the files that the process sees. `outcome`: an error where the plan was refused."""

    request: Request
    namespace: str
    reads: dict[tuple[int, int], bytes | None]
    outcome: Outcome | Refused

    def is_for(self, request: Request, read: MemoryReader) -> bool:
        """Whether `make_plan` would find in this process what it found in that one."""
        if self.is_bound_to_its_folder or not self.namespace or self.namespace != _namespace(request):
            return False
        if _asked(request) != _asked(self.request) or _files(request.regions) != _files(self.request.regions):
            return False
        if self.plan is not None and any(
            _is_taken(row.address, row.size, request.regions) for row in self.plan.allocations
        ):
            return False
        return list(read(list(self.reads))) == list(self.reads.values())

    def moved_to(self, request: Request) -> Outcome:
        """The same for this process, with files of its own."""
        if isinstance(self.outcome, Refused):
            raise Refused(self.outcome.refusals)
        if self.plan is None:
            return replace(self.outcome, times={})
        files = tuple(str(_copy(Path(file), request.folder)) for file in self.plan.files)
        for text in self.plan.texts:
            for digest in (text.before, text.after):
                if digest:
                    _copy(kept_beside(self.request.folder, digest), kept_beside(request.folder, digest).parent)
        return replace(self.outcome, plan=replace(self.plan, files=files, times={}))

    @property
    def plan(self) -> PatchPlan | None:
        return None if isinstance(self.outcome, Refused) else self.outcome.plan

    @property
    def is_bound_to_its_folder(self) -> bool:
        """The path of a library to load is part of the patch."""
        return self.plan is not None and bool(self.plan.loads)


def _asked(request: Request) -> Request:
    """The request without what is this process's own."""
    nobody = replace(request.description, pid=0)
    return replace(request, description=nobody, regions=(), folder=Path())


def _files(regions: Sequence[Region]) -> list[Region]:
    return [region for region in regions if region.inode or region.path == "[vdso]"]


def _is_taken(address: int, size: int, regions: Sequence[Region]) -> bool:
    return any(region.start < address + size and address < region.end for region in regions)


def _namespace(request: Request) -> str:
    """Names of files mean the same in one mount namespace (mount_namespaces(7)) below one root; "" when it cannot be
    told."""
    pid = request.description.local_pid
    try:
        root = os.stat(f"/proc/{pid}/root")
        return f"{os.readlink(f'/proc/{pid}/ns/mnt')} {root.st_dev} {root.st_ino}" if pid else ""
    except OSError:
        return ""


def _copy(file: Path, folder: Path) -> Path:
    place = folder / file.name
    place.unlink(missing_ok=True)
    link_or_copy(file, place)
    return place
