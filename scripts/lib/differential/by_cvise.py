"""A csmith program that went wrong, made small by cvise(1): its text has no parts that are known here.

cvise cuts each version on its own and asks this module, as a program, whether what is left still goes wrong in the same
way. What the cuts could bring about by themselves does not count: both versions must run cleanly under the compiler's
sanitizers, and no value may be read that was never written, as far as the compiler sees.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from differential.builds import BuildFailed, run
from differential.csmith_language import Csmith
from differential.model import Program
from differential.options import Options
from ipbp.errors import IpbpError

if TYPE_CHECKING:
    from differential.case import Step

_SECONDS = 10.0
_CHECKS = (
    *("-w", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-Werror=uninitialized", "-Werror=maybe-uninitialized", "-Werror=return-type", "-Werror=implicit"),
)


def reduce_text(
    seed: int,
    options: Options,
    codes: Sequence[str],
    start: Program,
    history: Sequence[tuple[Step, Program]],
    seconds: float,
) -> list[Program]:
    """The smallest versions that were found in so many seconds, in their order. `cvise-missing`."""
    if shutil.which("cvise") is None:
        raise IpbpError("cvise-missing", "there is no cvise, which makes C programs small", "apt-get install cvise")
    versions = [start, *(program for _, program in history)]
    with tempfile.TemporaryDirectory(prefix="ipbp-cvise-") as name:
        folder = Path(name)
        case = {
            "seed": seed,
            "options": options.to_json(),
            "codes": list(codes),
            "steps": [asdict(step) for step, _ in history],
        }
        (folder / "case.json").write_text(json.dumps(case))
        names = [f"{number}.c" for number in range(len(versions))]
        for file, version in zip(names, versions, strict=True):
            (folder / file).write_text(version.shared[0])
        paths = os.pathsep.join(path for path in sys.path if path)
        words = [sys.executable, "-m", "differential.by_cvise", str(folder / "case.json"), *names]
        check = folder / "check"
        check.write_text(f"#!/bin/sh\nPYTHONPATH={shlex.quote(paths)} exec {shlex.join(words)} >/dev/null 2>&1\n")
        check.chmod(0o755)
        # It has the smallest versions so far in these files all the time (cvise(1)).
        command = ["cvise", "--tidy", "--timeout", "300", str(check), *names]
        with subprocess.Popen(command, cwd=folder, start_new_session=True) as cvise:
            try:
                if cvise.wait(seconds):
                    raise subprocess.CalledProcessError(cvise.returncode, command)
            except subprocess.TimeoutExpired:
                os.killpg(cvise.pid, signal.SIGKILL)
        return [Program([], [], [], [(folder / file).read_text()]) for file in names]


def goes_wrong(
    seed: int, options: Options, codes: Sequence[str], start: Program, history: Sequence[tuple[Step, Program]]
) -> bool:
    """Whether a process of `start` that takes these steps goes wrong at one of them, in the way of these codes."""
    from differential.case import WRONG, Endless, Step
    from differential.stub import case_of

    with tempfile.TemporaryDirectory(prefix="ipbp-again-") as folder:
        case = case_of(seed, options, Path(folder))
        try:
            with case.started(start) as running:
                for step, program in history:
                    again = Step(step.number, step.said, step.inputs, step.pause, step.pause_input, step.undo)
                    case.take(again, running, program)
                    if again.outcome == WRONG:
                        return again.codes == list(codes)
        except (BuildFailed, Endless):
            return False
    return False


def _is_clean(texts: Mapping[str, str]) -> bool:
    """Whether the program does nothing that C leaves undefined, as far as its compiler sees."""
    with tempfile.TemporaryDirectory(prefix="ipbp-clean-") as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text)
        try:
            run(["gcc", *_CHECKS, "-I/usr/include/csmith", "main.c", "program.c", "-o", "program"], folder)
            said = subprocess.run(
                [str(folder / "program")], input=b"run 1\n", capture_output=True, timeout=_SECONDS, check=False
            )
        except (BuildFailed, subprocess.TimeoutExpired):
            return False
        return said.returncode == 0 and said.stdout.endswith(b"\n.\n") and b"killed" not in said.stdout


def main() -> int:
    """Arguments: the case, and the files of its versions. Status 0 when it still goes wrong."""
    case: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    versions = [Program([], [], [], [Path(name).read_text()]) for name in sys.argv[2:]]
    if not all(_is_clean(Csmith().render(version)) for version in versions):
        return 1
    from differential.case import Step  # the engine, which most of what cvise tries does not come to

    history = [(Step(**step), version) for step, version in zip(case["steps"], versions[1:], strict=True)]
    with tempfile.TemporaryDirectory(prefix="ipbp-again-") as home:
        os.environ.update(XDG_CACHE_HOME=f"{home}/cache", XDG_STATE_HOME=f"{home}/state")
        wrong = goes_wrong(case["seed"], Options(**case["options"]), case["codes"], versions[0], history)
    return 0 if wrong else 1


if __name__ == "__main__":
    sys.exit(main())
