"""The generators by name."""

from __future__ import annotations

from differential.c_language import C
from differential.csmith_language import Csmith
from differential.cxx_language import Cxx
from differential.model import Generator
from differential.rust_language import Rust

GENERATORS: dict[str, Generator] = {"c": C(), "csmith": Csmith(), "cxx": Cxx(), "rust": Rust()}
