"""Random programs, random edits: the patched process must do what a fresh build in the same state does.

Each case builds a program (`random_program`), lets it run a while, and edits it again and again. Before each edit the
running program writes its state out. After the patch it runs some rounds, and so does a fresh build of the edited
program that was given that state; every line that they print is compared, the state at the end included. A refusal
is counted by its code; a difference is written to a folder with all that is needed to see it again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from selectors import EVENT_READ, DefaultSelector

from random_program import FILES, Program, edit, generate, render

from ipbp.cli.bystander import Bystander
from ipbp.cli.debuggers import find_debugger
from ipbp.cli.gdb_session import GdbSession
from ipbp.cli.outcome import Outcome
from ipbp.errors import IpbpError, Refused
from ipbp.host.commands import plan_params
from ipbp.host.journal import open_journal
from ipbp.pipeline.order import make_plan
from ipbp.pipeline.request import Request
from ipbp.protocol import PatchPlan

COMPILERS = ("gcc", "clang-19")
LEVELS = ("-O0", "-O1", "-O2", "-O3", "-Os")
LINKS = ((), ("-fno-pie", "-no-pie"))
TIMEOUT = 20.0  # seconds that a program has to answer


@dataclass(frozen=True, slots=True)
class Build:
    """How a program is built."""

    compiler: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.compiler, *self.flags))


@dataclass(slots=True)
class Score:
    """What became of the edits."""

    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Running:
    """A process of a random program."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._pending = b""

    def tell(self, *lines: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will say how it ended
            self.process.stdin.write("".join(line + "\n" for line in lines).encode())

    def ask(self, line: str) -> list[str]:
        """The lines of the answer; how the process ended or that it hangs, where there is none."""
        assert self.process.stdout is not None
        self.tell(line)
        deadline = time.monotonic() + TIMEOUT
        with DefaultSelector() as selector:
            selector.register(self.process.stdout, EVENT_READ)
            while not (self._pending == b".\n" or self._pending.endswith(b"\n.\n")):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return [*self._take(), "(no answer)"]
                received = os.read(self.process.stdout.fileno(), 1 << 16)
                if not received:
                    return [*self._take(), f"(ended with status {self.process.wait()})"]
                self._pending += received
        return self._take()

    def _take(self) -> list[str]:
        lines = self._pending.decode(errors="backslashreplace").splitlines()
        self._pending = b""
        return lines

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Case:
    """One program and its edits, in a folder of its own."""

    def __init__(self, seed: int, build: Build, folder: Path, keep: Path, score: Score) -> None:
        self._seed, self._build, self._folder, self._keep, self._score = seed, build, folder, keep, score
        self._rng = Random(seed)
        self._history: list[str] = []

    def run(self, edits: int) -> None:
        program = generate(self._rng)
        project = self._folder / "project"
        self._write(program, project)
        self._make(project, with_commands=True)
        running = Running(project / "program")
        try:
            for _ in range(3):
                running.ask(f"run {self._rng.randint(0, 1 << 30)}")
            for step in range(edits):
                edited, done = edit(self._rng, program)
                if not done:
                    continue
                outcome = self._step(running, edited, f"{self._seed} step {step} {self._build}: {'; '.join(done)}")
                self._score.outcomes[outcome] += 1
                self._history.append(f"{outcome}: {'; '.join(done)}")
                if outcome == "wrong":
                    return
                if outcome in ("patched", "unchanged"):
                    program = edited
                else:
                    self._write(program, project)
        finally:
            running.end()

    def _step(self, running: Running, edited: Program, title: str) -> str:
        """One edit; what became of it."""
        project, fresh = self._folder / "project", self._folder / "fresh"
        shutil.rmtree(self._folder / "before", ignore_errors=True)
        shutil.copytree(project, self._folder / "before")
        state = [line[2:] for line in running.ask("dump") if line.startswith("= ")]
        self._write(edited, project)
        self._write(edited, fresh)
        self._make(fresh, with_commands=False)
        inputs = [self._rng.randint(0, 1 << 30) for _ in range(5)]
        try:
            plan = self._plan(running.process.pid)
            outcome = "unchanged"
            if plan is not None:
                applied = self._apply(running.process.pid, plan)
                outcome = str(applied["outcome"])
                if outcome != "patched":
                    return self._wrong(title, [json.dumps(applied)], state, inputs)
        except Refused as refused:
            for code in {refusal.code for refusal in refused.refusals}:
                self._score.refusals[code] += 1
            print(f"refused {title}\n  " + "\n  ".join(str(r).splitlines()[0] for r in refused.refusals))
            return "refused"
        except IpbpError as error:
            return self._wrong(title, [str(error)], state, inputs)
        except Exception as error:  # a bug of the engine is a result, too
            return self._wrong(title, [repr(error)], state, inputs)
        oracle = Running(fresh / "program")
        try:
            oracle.tell(*(f"set {line}" for line in state))
            oracle.ask("restore")
            for line in [*(f"run {value}" for value in inputs), "dump"]:
                heard, expected = running.ask(line), oracle.ask(line)
                if heard != expected:
                    return self._wrong(title, [line, *_differences(heard, expected)], state, inputs)
        finally:
            oracle.end()
        return outcome

    def _write(self, program: Program, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in render(program).items():
            path = folder / name
            if not path.exists() or path.read_text() != text:
                path.write_text(text)

    def _make(self, folder: Path, with_commands: bool) -> None:
        commands = []
        for name in (*FILES, "main.c"):
            words = [self._build.compiler, "-w", *self._build.flags, "-g", "-MD", "-c", name, "-o", name[:-1] + "o"]
            subprocess.run(words, cwd=folder, check=True)
            commands.append({"directory": str(folder), "file": name, "arguments": words})
        if with_commands:
            (folder / "compile_commands.json").write_text(json.dumps(commands))
        link = [flag for flag in self._build.flags if flag == "-no-pie"]
        objects = [name[:-1] + "o" for name in (*FILES, "main.c")]
        subprocess.run([self._build.compiler, *link, *objects, "-o", "program"], cwd=folder, check=True)

    def _plan(self, pid: int) -> PatchPlan | None:
        inferior, journal = Bystander(pid), open_journal(pid)
        request = Request.from_json(plan_params(inferior.describe(), inferior.regions(), journal, False, {}))
        return make_plan(request, inferior.read_ranges, lambda text: None).plan

    def _apply(self, pid: int, plan: PatchPlan) -> Outcome:
        path = self._folder / "plan.json"
        path.write_text(json.dumps({"outcome": "planned", "plan": plan.to_json()}))
        with GdbSession(find_debugger("gdb"), pid, time.monotonic() + 60) as session:
            session.attach()
            return session.hotpatch(f"apply --json --our-stop --plan {path}")

    def _wrong(self, title: str, found: list[str], state: list[str], inputs: list[int]) -> str:
        kept = self._keep / f"{self._seed}-{len(self._score.wrong)}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self._folder, kept)
        lines = [title, *found, "", "before it:", *self._history, "", "state:", *state, "", f"inputs: {inputs}"]
        (kept / "report.txt").write_text("\n".join(lines) + "\n")
        self._score.wrong.append(f"{title} -> {kept}")
        print(f"WRONG {title} -> {kept}\n  " + "\n  ".join(found[:12]), flush=True)
        return "wrong"


def _differences(heard: list[str], expected: list[str]) -> list[str]:
    for row, (one, other) in enumerate(zip(heard, expected, strict=False)):
        if one != other:
            return [f"line {row}:", f"heard    {one}", f"expected {other}"]
    return [f"heard {len(heard)} lines, expected {len(expected)}", *heard[len(expected) :], *expected[len(heard) :]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Look for wrong patches with random programs and edits.")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--cases", type=int, default=20, help="how many programs (20)")
    parser.add_argument("--edits", type=int, default=5, help="edits of each program, one after the other (5)")
    parser.add_argument("--build", nargs="+", metavar="WORD", help="one compiler and its flags, instead of all in turn")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "ipbp-wrong", metavar="DIR")
    arguments = parser.parse_args()
    builds = [Build(c, (level, *link)) for c in COMPILERS for level in LEVELS for link in LINKS]
    if arguments.build:
        builds = [Build(arguments.build[0], tuple("-" + flag.lstrip("-") for flag in arguments.build[1:]))]
    arguments.keep.mkdir(parents=True, exist_ok=True)
    score = Score()
    began = time.monotonic()
    for seed in range(arguments.first, arguments.first + arguments.cases):
        with tempfile.TemporaryDirectory(prefix="ipbp-differential-") as name:
            Case(seed, builds[seed % len(builds)], Path(name), arguments.keep, score).run(arguments.edits)
    print(f"{sum(score.outcomes.values())} edits in {time.monotonic() - began:.0f} s: {dict(score.outcomes)}")
    print(f"refusals: {dict(score.refusals.most_common())}")
    print("\n".join(score.wrong))
    return 1 if score.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
