"""Objects compiled from small Rust sources for the tests of what rustc says of types, tables and futures."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ipbp.formats.elf_archive import read_unit
from ipbp.graph.model import LinkGraph


@cache
def compiled(source: str, *options: str) -> LinkGraph:
    """A library's one object, as of a crate `unit`. `options`: of rustc, beside debug information."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "unit.rs").write_text(source)
        words = ["rustc", "--edition=2024", "--crate-type=lib", "--emit=obj", "-g", "-Ccodegen-units=1", *options]
        subprocess.run([*words, "unit.rs", "-o", "unit.o"], cwd=folder, check=True, timeout=120, capture_output=True)
        return read_unit(Path(folder, "unit.o").read_bytes(), "unit.o")


def edited(source: str, *replace: tuple[str, str]) -> str:
    """The source with each of these texts, which stands once, replaced."""
    for old, new in replace:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source
