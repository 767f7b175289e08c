"""A case that went wrong, made small: without the edits, functions, statements and variables that it does not need."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

from differential.by_cvise import goes_wrong, reduce_text
from differential.case import WRONG, Step
from differential.generators import GENERATORS
from differential.model import Program
from differential.options import Options
from differential.stub import case_of

History = list[tuple[Step, Program]]
Cut = Callable[[Program], None]


class Reduction:
    """`keep`: the folder that gets the smallest program as `0`, and as `1`, `2` ... what it was edited to. `seconds`:
    what cvise may take."""

    def __init__(self, seed: int, options: Options, edits: int, keep: Path, seconds: float) -> None:
        self._seed, self._options, self._edits, self._keep, self._seconds = seed, options, edits, keep, seconds

    def run(self) -> bool:
        """Whether there was anything wrong."""
        with tempfile.TemporaryDirectory(prefix="ipbp-reduce-") as home:
            os.environ.update(XDG_CACHE_HOME=f"{home}/cache", XDG_STATE_HOME=f"{home}/state")
            with tempfile.TemporaryDirectory(dir=home) as folder:
                case = case_of(self._seed, self._options, Path(folder))
                steps = list(case.run(self._edits))
            if not steps or steps[-1].outcome != WRONG:
                return False
            self._codes = steps[-1].codes
            start, history = self._fewer_edits(case.start, case.history)
            if self._options.language == "csmith":
                versions = reduce_text(self._seed, self._options, self._codes, start, history, self._seconds)
                start, history = versions[0], [(row[0], v) for row, v in zip(history, versions[1:], strict=True)]
            else:
                start, history = self._smaller(start, history)
            self._write(start, history)
        return True

    def _fewer_edits(self, start: Program, history: History) -> tuple[Program, History]:
        history = [row for row in history if row[0].outcome != "refused"]
        alone = [(replace(history[-1][0], undo=False), history[-1][1])]
        before = history[-2][1] if len(history) > 1 else start
        if not history[-1][0].undo and self._is_wrong(before, alone):
            return before, alone
        row = 0
        while row < len(history) - 1:
            without = history[:row] + history[row + 1 :]
            if self._is_wrong(start, without):
                history = without
            else:
                row += 1
        return start, history

    def _smaller(self, start: Program, history: History) -> tuple[Program, History]:
        again = True
        while again:
            again = False
            for name, cut in list(_cuts([start, *(program for _, program in history)])):
                smaller = deepcopy(start), [(step, deepcopy(program)) for step, program in history]
                for program in (smaller[0], *(program for _, program in smaller[1])):
                    cut(program)
                if smaller[0] == start and all(a[1] == b[1] for a, b in zip(smaller[1], history, strict=True)):
                    continue
                if self._is_wrong(*smaller):
                    print(f"without {name}", flush=True)
                    (start, history), again = smaller, True
        return start, history

    def _is_wrong(self, start: Program, history: History) -> bool:
        return goes_wrong(self._seed, self._options, self._codes, start, history)

    def _write(self, start: Program, history: History) -> None:
        generator = GENERATORS[self._options.language]
        for number, program in enumerate([start, *(program for _, program in history)]):
            for name, text in generator.render(program).items():
                path = self._keep / str(number) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        rows = [f"{'undo' if step.undo else 'patch'}, pause {step.pause}, inputs {step.inputs}" for step, _ in history]
        (self._keep / "steps.txt").write_text("\n".join([str(self._options), *rows, ""]))


def _cuts(programs: list[Program]) -> Iterator[tuple[str, Cut]]:
    """What can be left out of all versions alike, the large things first."""
    functions = list(dict.fromkeys(f.name for program in programs for f in program.functions))
    for name in functions:
        yield f"function {name}", partial(_drop_function, name=name)
    for name in functions:
        yield f"all of {name}", partial(_drop_statements, name=name, text=None)
    statements = {s: f.name for program in programs for f in program.functions for s in f.statements}
    for text, name in statements.items():
        yield text[:70], partial(_drop_statements, name=name, text=text)
    variables = {(f.name, v.name) for program in programs for f in program.functions for v in f.variables}
    variables |= {("", v.name) for program in programs for group in program.variables for v in group}
    for owner, name in sorted(variables):
        yield f"variable {owner}.{name}", partial(_drop_variable, owner=owner, name=name)


def _drop_function(program: Program, name: str) -> None:
    tables = " ".join(text for group in program.constants for text in group)
    if re.search(rf"\b{name}\b", tables) or any(f.name == name and f.is_leaf for f in program.functions):
        return
    program.functions = [f for f in program.functions if f.name != name]
    for function in program.functions:
        function.statements = [s for s in function.statements if not re.search(rf"\b{name}\b", s)]


def _drop_statements(program: Program, name: str, text: str | None) -> None:
    for function in program.functions:
        if function.name == name:
            function.statements = [s for s in function.statements if text is not None and s != text]


def _drop_variable(program: Program, owner: str, name: str) -> None:
    if not owner:
        program.variables = [[v for v in group if v.name != name] for group in program.variables]
    for function in program.functions:
        if function.name == owner:
            function.variables = [v for v in function.variables if v.name != name]
        if owner in ("", function.name):
            function.statements = [s for s in function.statements if not re.search(rf"\b{name}\b", s)]
