"""Stands between a debugger and ipbp's engine, and kills both itself and the engine at the n-th message.

IPBP_PYTHON names a script that starts this with the real interpreter. IPBP_TEST_MESSAGES is a file with the number;
the messages of either direction are counted in it, from 1; 0 lets everything through.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import BinaryIO

COUNTED = os.environ["IPBP_TEST_MESSAGES"]
lock = threading.Lock()


def pass_on(source: BinaryIO, target: BinaryIO, engine: subprocess.Popen[bytes]) -> None:
    """Line by line, until the source ends."""
    for line in source:
        with lock:
            with open(COUNTED, encoding="utf-8") as file:
                left, seen = map(int, file.read().split())
            with open(COUNTED, "w", encoding="utf-8") as file:
                file.write(f"{left - 1 if left else 0} {seen + 1}")
        if left == 1:
            engine.kill()
            os.kill(os.getpid(), signal.SIGKILL)
        target.write(line)
        target.flush()
    os._exit(0)


def main() -> None:
    # -I keeps PYTHONPATH out, so the words that follow the interpreter's options are the engine's.
    engine = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert engine.stdin is not None
    assert engine.stdout is not None
    threading.Thread(target=pass_on, args=(sys.stdin.buffer, engine.stdin, engine), daemon=True).start()
    pass_on(engine.stdout, sys.stdout.buffer, engine)


if __name__ == "__main__":
    main()
