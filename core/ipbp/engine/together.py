"""Plans for several processes of one debugger, asked for one after the other: one build, one plan for those that are
alike. Requests that belong together say the same word."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from ipbp.build.once import one_build
from ipbp.graph.image import MemoryReader
from ipbp.pipeline.order import Outcome, Tell
from ipbp.pipeline.request import Request
from ipbp.pipeline.several import Plans


@dataclass
class Together:
    """What one command has made so far."""

    word: str = ""
    plans: Plans = field(default_factory=Plans)
    made: dict[Hashable, object] = field(default_factory=dict)

    def plan(self, word: str, request: Request, read: MemoryReader, tell: Tell) -> Outcome:
        """As `make_plan`. Another word begins anew."""
        if word != self.word:
            self.word, self.plans, self.made = word, Plans(), {}
        with one_build(self.made):
            return self.plans.plan(request, read, tell)
