"""One random program and its edits, one after the other, in one process.

Before an edit the running program writes its state out. After the patch it runs some rounds, and so does a fresh build
of the edited program that was given that state; every line that they print is compared, the state at the end included.
Some patches are made while edited functions are being run, which finish in old code first; some are undone, and the
program is then compared with what it was before.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from signal import SIGPROF
from typing import Any

from differential.builds import Build, BuildFailed, build
from differential.generators import GENERATORS
from differential.hosts import host
from differential.model import Program
from differential.options import Options
from differential.running import Running
from ipbp.cli.bystander import Bystander
from ipbp.errors import IpbpError, Refused
from ipbp.host.commands import plan_params
from ipbp.host.journal import open_journal
from ipbp.host.quiet import BUSY
from ipbp.pipeline.order import make_plan
from ipbp.pipeline.request import Request
from ipbp.protocol import PatchPlan

SAME, UNCHANGED, REFUSED, WRONG, TOOL = "same", "unchanged", "refused", "wrong", "tool"
"""What may become of an edit. UNCHANGED: no machine code differs, and so does what is printed. TOOL: the test itself
failed (its program did not build, say)."""
_PAUSED, _UNDONE = 0.2, 0.2  # shares
_ROUNDS = 4
_GIVEN_UP = f"killed {int(SIGPROF)}"


@dataclass
class Step:
    """One edit, or one undo. `said`: what was done, in words. `inputs`: of the rounds that are compared. `pause`: in
    the round with `pause_input` the program waits where it prints for the so many-th time; 0 for no such round."""

    number: int
    said: list[str]
    inputs: list[int] = field(default_factory=list)
    pause: int = 0
    pause_input: int = 0
    undo: bool = False
    outcome: str = SAME
    codes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)


class Endless(Exception):
    """A round of the program takes so long that it was given up, which is no error."""


class Case:
    def __init__(self, seed: int, options: Options, folder: Path, keep: Path | None = None) -> None:
        """`keep`: where a folder is kept for each edit that went wrong."""
        self._seed, self._options, self._folder, self._keep = seed, options, folder, keep
        self._generator = GENERATORS[options.language]
        self._host = host(options.debugger)
        self._project: Build = build(options, folder / "project")
        self._fresh: Build = build(options, folder / "fresh")
        self.pid: int | None = None
        self.start = Program([], [], [], [])
        self.history: list[tuple[Step, Program]] = []

    def run(self, edits: int) -> Iterator[Step]:
        """Its steps as they are done; it ends at the first that is wrong. What was done is in `start`, `history`."""
        self.start = program = self._generator.generate(Random(f"program {self._seed}"))
        applied: list[Program] = []
        with self.started(self.start) as running:
            for number in range(edits):
                rng = Random(f"step {self._seed} {number}")
                if applied and rng.random() < _UNDONE:
                    edited, step = applied.pop(), Step(number, ["undo"], undo=True)
                else:
                    edited, said = self._generator.edit(rng, program)
                    if not said:
                        continue
                    is_paused = rng.random() < _PAUSED and self._generator.can_pause
                    step = Step(number, said, pause=rng.randint(1, 12) if is_paused else 0)
                    step.pause_input = _input(rng)
                step.inputs = [_input(rng) for _ in range(_ROUNDS)]
                self.take(step, running, edited)
                if step.outcome == SAME and not step.undo:
                    applied.append(program)
                if step.outcome in (SAME, UNCHANGED):
                    program = edited
                else:
                    self._project.write(self._generator.render(program))
                yield step
                if step.outcome in (WRONG, TOOL):
                    return

    @contextmanager
    def started(self, program: Program) -> Iterator[Running]:
        """The program, built and running, with a few rounds behind it."""
        self._project.write(self._generator.render(program))
        self._project.make()
        self._copy_objects()
        with self._run(self._project.program) as running:
            self.pid = running.process.pid
            self._warm_up(running)
            yield running

    def _warm_up(self, running: Running) -> None:
        rng = Random(f"warm {self._seed}")
        for _ in range(3):
            said = running.ask(f"run {_input(rng)}")
            if _GIVEN_UP in said:
                raise Endless
            if said[-1:] != ["."]:
                raise BuildFailed("bad-program", f"the program does not run: {said[-3:]}", "Mend the generator.")

    def _copy_objects(self) -> None:
        # What is the same need not be compiled again.
        shutil.copytree(self._project.folder, self._fresh.folder, symlinks=True)
        self._fresh.adopt(self._project)

    def take(self, step: Step, running: Running, target: Program) -> None:
        """Bring the running program to what `target` is, and compare; the step says how that went."""
        self.history.append((step, target))
        began = time.perf_counter()
        try:
            self._take(step, running, target)
        except Refused as refused:
            self._refused(step, running)
            step.codes = sorted({row.code for row in refused.refusals})
            step.texts = [str(row).splitlines()[0] for row in refused.refusals]
        except Endless:
            raise
        except BuildFailed as error:
            step.outcome, step.codes, step.texts = TOOL, [error.code], [str(error), *error.detail.splitlines()[:20]]
        except IpbpError as error:
            step.outcome, step.codes = WRONG, [error.code]
            step.texts = [error.fact, *error.detail.splitlines()[-12:]]
            if error.code == BUSY:  # it waits where a lock may be held
                self._refused(step, running)
        except Exception as error:  # a bug of the engine is a result, too
            step.outcome, step.codes = WRONG, ["bug"]
            step.texts = [repr(error), *traceback.format_exc().splitlines()[-8:]]
        if step.outcome == WRONG:
            self._save(step)
        step.times["all"] = round(time.perf_counter() - began, 3)

    def _refused(self, step: Step, running: Running) -> None:
        step.outcome = REFUSED
        if step.pause:
            running.ask("go")

    def _take(self, step: Step, running: Running, target: Program) -> None:
        state = _state(running)
        if step.pause:
            running.tell(f"pause {step.pause}")
            running.ask(f"run {step.pause_input}")
        began = time.perf_counter()
        texts = self._generator.render(target)
        if step.undo:
            self._undo(running)
            self._project.write(texts)
        else:
            self._save_before()
            self._project.write(texts)
            if not self._patch(step, running):
                step.outcome = UNCHANGED
        step.times["patch"] = round(time.perf_counter() - began, 3)
        if step.pause or step.undo:
            if step.pause:
                running.ask("go")
            state = _state(running)
        began = time.perf_counter()
        self._fresh.write(texts)
        self._fresh.make()
        step.times["build"] = round(time.perf_counter() - began, 3)
        self._compare(step, running, state)

    def _compare(self, step: Step, running: Running, state: list[str]) -> None:
        with self._run_fresh(self._fresh.program) as oracle:
            oracle.tell(*(f"set {line}" for line in state))
            oracle.ask("restore")
            for line in [*(f"run {value}" for value in step.inputs), "dump"]:
                heard, expected = running.ask(line), oracle.ask(line)
                if _GIVEN_UP in (*heard, *expected):
                    raise Endless
                if expected[-1:] != ["."]:
                    raise BuildFailed("bad-program", f"the fresh program: {expected[-3:]}", "Mend the generator.")
                if heard != expected:
                    step.outcome, step.codes = WRONG, ["differs"]
                    step.texts = [line, *_differences(heard, expected)]
                    step.texts += ["state:", *state, f"inputs: {step.inputs}"]
                    return

    def _run(self, program: Path) -> Running:
        return Running(program)

    def _run_fresh(self, program: Path) -> Running:
        return Running(program)

    def _patch(self, step: Step, running: Running) -> bool:
        """Whether something was patched."""
        pid, began = running.process.pid, time.perf_counter()
        plan = self._plan(pid)
        step.times["plan"] = round(time.perf_counter() - began, 3)
        if plan is not None:
            self._host.apply(pid, plan, self._folder)
        return plan is not None

    def _undo(self, running: Running) -> None:
        self._host.undo(running.process.pid)

    def _plan(self, pid: int) -> PatchPlan | None:
        inferior, journal = Bystander(pid), open_journal(pid)
        request = Request.from_json(plan_params(inferior.describe(), inferior.regions(), journal, False, {}))
        return make_plan(request, inferior.read_ranges, lambda text: None).plan

    def _save_before(self) -> None:
        if self._keep is not None:
            shutil.rmtree(self._folder / "before", ignore_errors=True)
            ignore = shutil.ignore_patterns("target", "*.o", "program")
            shutil.copytree(self._project.folder, self._folder / "before", ignore=ignore)

    def _save(self, step: Step) -> None:
        if self._keep is None:
            return
        kept = self._keep / f"{self._seed}-{step.number}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self._folder, kept, symlinks=True)
        lines = [f"seed {self._seed} step {step.number}: {self._options}", *step.said, "", *step.codes, *step.texts]
        (kept / "report.txt").write_text("\n".join(lines) + "\n")


def _input(rng: Random) -> int:
    return rng.randint(0, 1 << 30)


def _state(running: Running) -> list[str]:
    return [line[2:] for line in running.ask("dump") if line.startswith("= ")]


def _differences(heard: list[str], expected: list[str]) -> list[str]:
    for row, (one, other) in enumerate(zip(heard, expected, strict=False)):
        if one != other:
            return [f"line {row}:", f"heard    {one}", f"expected {other}"]
    return [f"heard {len(heard)} lines, expected {len(expected)}", *heard[len(expected) :], *expected[len(heard) :]]


def record(seed: int, options: Options, step: Step) -> dict[str, Any]:
    """A line of the log."""
    row: dict[str, Any] = {"seed": seed, "step": step.number, **options.to_json(), "outcome": step.outcome}
    row.update({name: True for name in ("pause", "undo") if getattr(step, name)})
    return {**row, "edits": step.said, "codes": step.codes, "texts": step.texts[:60], "times": step.times}
