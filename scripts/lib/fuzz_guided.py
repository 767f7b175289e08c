"""One target under atheris: inputs are kept that reach code which no input before reached.

    fuzz_guided.py TARGET RUNS SEED FOLDER      inputs that fail are written to FOLDER

The process ends at the first failure, with an error.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ipbp"]):
    from fuzz_targets import TARGETS, survives


def main(name: str, runs: str, seed: str, keep: str) -> None:
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(target.seeds()):
            Path(folder, str(number)).write_bytes(content)
        words = [f"-runs={runs}", f"-seed={seed}", f"-artifact_prefix={keep}/", "-max_len=65536", folder]
        atheris.Setup([sys.argv[0], *words], lambda content: survives(target, content))
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
