"""Running the contract suite inside a real debugger, on a real program, from pytest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

HERE = Path(__file__).parent
PROGRAMS = HERE.parent / "programs"
PATCH = "int patched_for_contract(int value) { return value + 1; }\n"


@dataclass(frozen=True)
class Ground:
    """What the checks need: the program, 16 bytes of code that are known, and an image to announce."""

    program: Path
    code: bytes
    image: Path
    image_symbol: int


def prepare(folder: Path, gcc: str) -> Ground:
    program = folder / "contract"
    subprocess.run([gcc, "-g", "-O0", PROGRAMS / "contract.c", "-o", program, "-pthread"], check=True)
    (folder / "patch.c").write_text(PATCH)
    subprocess.run([gcc, "-g", "-c", "patch.c", "-o", "patch.o"], cwd=folder, check=True)
    image = folder / "a patch.elf"
    layout = ["-e", "0", "-Ttext-segment=0x10000000", "-z", "noseparate-code", "-z", "norelro", "--build-id=none"]
    subprocess.run(["ld", *layout, "-o", image, "patch.o"], cwd=folder, check=True)
    return Ground(program, code_of(program, "entry_of_contract"), image, symbol(image, "patched_for_contract"))


def symbol(path: Path, name: str) -> int:
    with path.open("rb") as stream:
        (row,) = ELFFile(stream).get_section_by_name(".symtab").get_symbol_by_name(name)
        return int(row["st_value"])


def code_of(path: Path, name: str) -> bytes:
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        (offset,) = elf.address_offsets(symbol(path, name), 16)
        stream.seek(offset)
        return stream.read(16)


@contextmanager
def started(program: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, running, after its first line; it ends with its input."""
    process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def run_inside(command: Sequence[str], job: dict[str, Any], folder: Path, ground: Ground) -> dict[str, str]:
    """The results of a driver that `command` runs in a debugger. They are there whatever its exit status."""
    results = folder / "results.json"
    known = {"code": ground.code.hex(), "inner": 1, "image": str(ground.image), "image_symbol": ground.image_symbol}
    environment = {**os.environ, "IPBP_CONTRACT_JOB": json.dumps({**known, "results": str(results), **job})}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert results.exists(), done.stdout
    found: dict[str, str] = json.loads(results.read_text())
    return found
