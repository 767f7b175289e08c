"""Every way ipbp says no, with a code that never changes its meaning.

Two kinds. A `Refusal` is a value: one thing about this edit that cannot be patched safely. Stages collect
refusals and report all of them together (`Refused`). An `IpbpError` is raised: something outside the edit went
wrong (a file is missing, the engine died, the process vanished). Both carry one sentence of fact and one of
advice, so that text lives in one place and a user always learns what to do next.

This module is imported inside the debugger: Python 3.9, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Optional


@dataclass(frozen=True)
class Refusal:
    """One reason why this edit is not applied.

    `code` is stable and documented in docs/limits.md (lower case, words joined by `-`). `fact` and `advice` are
    one sentence each. `symbol` and `file` name the place, where there is one.
    """

    code: str
    fact: str
    advice: str
    symbol: Optional[str] = None
    file: Optional[str] = None

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "fact": self.fact,
            "advice": self.advice,
            "symbol": self.symbol,
            "file": self.file,
        }

    @staticmethod
    def from_json(row: dict[str, Any]) -> Refusal:
        return Refusal(row["code"], row["fact"], row["advice"], row.get("symbol"), row.get("file"))

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file else ""
        return f"{place}{self.fact} [{self.code}]\n  {self.advice}"


class IpbpError(Exception):
    """Something outside the edit went wrong. `code` is stable; `detail` is a tool's own output, shown as it is."""

    def __init__(self, code: str, fact: str, advice: str, detail: str = "") -> None:
        super().__init__(code, fact, advice, detail)
        self.code = code
        self.fact = fact
        self.advice = advice
        self.detail = detail

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "fact": self.fact, "advice": self.advice, "detail": self.detail}

    def __str__(self) -> str:
        text = f"{self.fact} [{self.code}]\n  {self.advice}"
        return f"{self.detail.rstrip()}\n{text}" if self.detail else text


class AgreementNeeded(IpbpError):
    """The user was not asked yet whether programs that the project names may be run. `detail`: the programs. `hash`:
    what to agree to."""

    def __init__(self, programs: str, hash: str) -> None:
        super().__init__(
            "agreement-needed",
            "the project's build runs programs that ipbp does not know, and you were not asked about them yet",
            f"If you trust the project, type `hotpatch agree {hash}` (in a shell `ipbp trust {hash}`) and try again.",
            programs,
        )
        self.hash = hash

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "hash": self.hash}


class Refused(IpbpError):
    """The edit cannot be patched safely; every reason at once. The process is untouched."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        count = len(self.refusals)
        reasons = "1 reason" if count == 1 else f"{count} reasons"
        super().__init__("refused", f"not patched, for {reasons}", "See each reason; the process is untouched.")

    def __str__(self) -> str:
        return "\n".join([f"{self.fact}; the process is untouched.", *map(str, self.refusals)])


def raise_all(*groups: Iterable[Refusal]) -> None:
    """Raise Refused with every refusal of these groups, each once and in order; nothing when there is none."""
    refusals = list(dict.fromkeys(refusal for group in groups for refusal in group))
    if refusals:
        raise Refused(refusals)
