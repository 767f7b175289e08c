"""Carries out cases in a process of its own: seeds come in on standard input, records go out on standard output.

What goes wrong so badly that the process dies costs one case, and is seen by the campaign.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from math import inf
from pathlib import Path

from differential.builds import BuildFailed
from differential.case import TOOL, Endless, Step, record
from differential.options import choose
from differential.stub import case_of


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--given", type=json.loads, required=True)
    parser.add_argument("--edits", type=int, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--until", type=float, default=inf, help="time.monotonic() at which no edit is begun any more")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # native libraries print
    for line in sys.stdin:
        seed = int(line)
        options = choose(seed, arguments.given)
        with tempfile.TemporaryDirectory(prefix="ipbp-differential-") as name:
            try:
                for step in case_of(seed, options, Path(name), arguments.keep).run(arguments.edits):
                    answers.write(json.dumps(record(seed, options, step)) + "\n")
                    if time.monotonic() > arguments.until:
                        break
            except Endless:
                pass
            except Exception as error:  # nothing of it is about a patch: the program could not be made
                detail = error.detail if isinstance(error, BuildFailed) else traceback.format_exc()
                step = Step(-1, [], outcome=TOOL, codes=[type(error).__name__])
                step.texts = [str(error), *detail.splitlines()[:30]]
                answers.write(json.dumps(record(seed, options, step)) + "\n")
        answers.write(json.dumps({"done": seed}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
