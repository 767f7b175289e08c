"""Many cases in several processes, into a log of JSON lines that a later run goes on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from differential.case import REFUSED, TOOL, WRONG

_CASES_OF_A_WORKER = 40
_SILENCE = 900.0
"""Seconds after which a worker that says nothing is ended."""


@dataclass
class Campaign:
    """`seconds`: no edit is begun after that. `log`: None for none."""

    first: int
    count: int
    edits: int
    jobs: int
    given: Mapping[str, object]
    keep: Path
    log: Path | None
    seconds: float | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> list[dict[str, Any]]:
        """All records, those of earlier runs of the same log included."""
        self._began = time.monotonic()
        self.keep.mkdir(parents=True, exist_ok=True)
        known = self._known()
        self.records = [row for row in known if "done" not in row]
        self._seeds = iter(self._remaining({row["done"] for row in known if "done" in row}))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.records

    def _known(self) -> list[dict[str, Any]]:
        if self.log is None or not self.log.exists():
            return []
        rows = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        done = {row["done"] for row in rows if "done" in row}
        return [row for row in rows if row.get("done", row.get("seed")) in done]

    def _remaining(self, done: set[int]) -> Iterator[int]:
        seed = self.first
        while len(self.records) < self.count:
            if self.seconds is not None and time.monotonic() - self._began > self.seconds:
                return
            if seed not in done:
                yield seed
            seed += 1

    def _next(self) -> int | None:
        with self._lock:
            return next(self._seeds, None)

    def _work(self) -> None:
        seed = self._next()
        while seed is not None:
            home = tempfile.TemporaryDirectory(prefix="ipbp-differential-home-")
            with home, self._start(home.name) as worker:
                for _ in range(_CASES_OF_A_WORKER):
                    if seed is None or not self._one(worker, seed):
                        seed = self._next()
                        break
                    seed = self._next()

    def _start(self, home: str) -> subprocess.Popen[str]:
        paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
        homes = {"XDG_CACHE_HOME": f"{home}/cache", "XDG_STATE_HOME": f"{home}/state"}
        environment = {**os.environ, **homes, "PYTHONPATH": paths}
        words = [sys.executable, "-m", "differential.worker", "--given", json.dumps(dict(self.given))]
        words += ["--edits", str(self.edits), "--keep", str(self.keep)]
        if self.seconds is not None:
            words += ["--until", str(self._began + self.seconds)]
        return subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def _one(self, worker: subprocess.Popen[str], seed: int) -> bool:
        """Whether the worker is fit for another one."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(f"{seed}\n")
        worker.stdin.flush()
        answers: SimpleQueue[str] = SimpleQueue()
        stream = worker.stdout
        reader = threading.Thread(target=_forward, args=(stream, answers), daemon=True)
        reader.start()
        while True:
            try:
                line = answers.get(timeout=_SILENCE)
            except Empty:
                worker.kill()
                line = ""
            row = json.loads(line) if line else {"seed": seed, "step": -1, "outcome": TOOL, "codes": ["worker-died"]}
            self._note(row)
            if "done" in row:
                return True
            if not line:
                self._note({"done": seed})
                return False

    def _note(self, row: dict[str, Any]) -> None:
        with self._lock:
            if self.log is not None:
                with self.log.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
            if "done" in row:
                return
            self.records.append(row)
            if row["outcome"] in (WRONG, TOOL, REFUSED):
                print(describe(row), flush=True)


def _forward(stream: Any, answers: SimpleQueue[str]) -> None:
    for line in stream:
        answers.put(line)
        if '"done"' in line:
            return
    answers.put("")


def describe(row: Mapping[str, Any]) -> str:
    """A record that is not a success, in a few lines."""
    words = [str(row.get(name, "")) for name in ("language", "compiler", "level", "debugger")]
    words += [
        "pie" if row.get("pie") else "no-pie",
        *(["library"] if row.get("library") else []),
        *row.get("flags", ()),
    ]
    edits = "; ".join(row.get("edits", ()))
    head = f"{row['outcome']}: seed {row['seed']} step {row['step']} ({' '.join(filter(None, words))}) {edits}"
    return "\n  ".join([head, *row.get("codes", ()), *row.get("texts", ())[:8]])


def summary(records: list[dict[str, Any]]) -> list[str]:
    """What became of the edits, in a few lines."""
    outcomes = Counter(row["outcome"] for row in records)
    codes = Counter(code for row in records if row["outcome"] == REFUSED for code in row["codes"])
    seconds = [row["times"]["all"] for row in records if row.get("times")]
    lines = [f"{len(records)} edits: {', '.join(f'{n} {name}' for name, n in outcomes.most_common())}"]
    if codes:
        lines.append(f"refused: {', '.join(f'{n} {name}' for name, n in codes.most_common())}")
    if seconds:
        lines.append(f"{sum(seconds) / len(seconds):.2f} s an edit")
    return lines
