"""Bad inputs by the thousand, and what became of them.

With atheris (coverage-guided), or by reproducible damage alone with `--blind`. Native readers can die of an
input, so the runs of a target are in a process of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from damage import damaged
from fuzz_targets import TARGETS, survives
from reliability import write_section

INPUTS = Path(__file__).resolve().parents[2] / "tests" / "fuzz" / "inputs"


def blind(name: str, runs: int, seed: int, keep: Path) -> int:
    """Inputs that failed, each kind of failure once."""
    target, seen = TARGETS[name], set()
    seeds = target.seeds()
    failures = 0
    for number in range(seed, seed + runs):
        content = damaged(seeds, number)
        current = keep / name / "current"
        current.parent.mkdir(parents=True, exist_ok=True)
        current.write_bytes(content)  # should the process die of it
        try:
            survives(target, content)
        except Exception as error:
            failures += 1
            place = _place_of(error)
            if place not in seen:
                seen.add(place)
                path = keep / name / f"{hashlib.sha256(content).hexdigest()[:16]}.bin"
                path.write_bytes(content)
                print(f"{name} {number}: {place}: {path}", flush=True)
    current.unlink()
    return failures


def _place_of(error: BaseException) -> str:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at is not None else "?"
    return f"{type(error).__name__} at {where}: {str(error)[:100]}"


def _in_a_process(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    began = time.monotonic()
    keep = arguments.keep / name
    keep.mkdir(parents=True, exist_ok=True)
    if arguments.blind:
        numbers = ["--runs", str(arguments.runs), "--seed", str(arguments.seed)]
        words = [__file__, "--inside", "--target", name, *numbers, "--keep", str(arguments.keep)]
    else:
        words = [
            str(Path(__file__).parent / "fuzz_guided.py"),
            name,
            str(arguments.runs),
            str(arguments.seed),
            str(keep),
        ]
    with tempfile.TemporaryDirectory() as folder:
        own = dict.fromkeys(("XDG_CACHE_HOME", "XDG_STATE_HOME"), folder)
        done = subprocess.run([sys.executable, *words], env={**os.environ, **own}, check=False)
    seconds = round(time.monotonic() - began, 1)
    row = {"target": name, "runs": arguments.runs, "seed": arguments.seed, "status": done.returncode}
    return {**row, "seconds": seconds, "guided": not arguments.blind}


def _section(rows: Sequence[dict[str, object]]) -> list[str]:
    total: dict[tuple[object, bool], list[int]] = {}
    for row in rows:
        sums = total.setdefault((row["target"], bool(row["guided"])), [0, 0])
        sums[0] += int(str(row["runs"]))
        sums[1] += row["status"] != 0
    kept = sum(1 for _ in INPUTS.rglob("*.bin"))
    lines = ["## Fuzzing", "", "Damaged inputs are answered by one clear error, or do no harm (`scripts/fuzz`).", ""]
    lines += ["| what is read | inputs | guided by coverage | runs in which one failed |", "|---|---|---|---|"]
    for (name, is_guided), (runs, failed) in total.items():
        lines.append(f"| {TARGETS[str(name)].what} | {runs} | {'yes' if is_guided else 'no'} | {failed} |")
    everything = sum(runs for runs, _ in total.values())
    return [
        *lines,
        "",
        f"{everything} inputs in all. {kept} that failed before are kept in tests/fuzz and run each time.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=(*TARGETS, "all"), default="all")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=INPUTS, metavar="DIR")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, nargs="+", metavar="LOG")
    arguments = parser.parse_args()
    if arguments.report:
        write_section(
            "fuzz", _section([json.loads(line) for p in arguments.report for line in p.read_text().splitlines()])
        )
        return 0
    if arguments.inside:
        return min(1, blind(arguments.target, arguments.runs, arguments.seed, arguments.keep))
    names = TARGETS if arguments.target == "all" else [arguments.target]
    rows = [_in_a_process(name, arguments) for name in names]
    for row in rows:
        print(json.dumps(row))
    if arguments.log:
        with arguments.log.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return min(1, sum(row["status"] != 0 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
