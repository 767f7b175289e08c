"""How a program is written, built and patched: chosen by its seed, or given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from random import Random

LEVELS = ("-O0", "-O1", "-O2", "-O3", "-Os")
COMPILERS = {"c": ("gcc", "clang"), "csmith": ("gcc", "clang"), "cxx": ("gcc", "clang"), "rust": ("rustc",)}
HOSTS = ("core", "gdb", "lldb", "idle", "qemu", "wine")
_LANGUAGES = ("c",) * 4 + ("csmith",) * 2 + ("cxx",) * 6 + ("rust",) * 2
_LIBRARIES = 0.25
_HOSTS = ("core",) * 14 + ("gdb", "lldb")


@dataclass(frozen=True, slots=True)
class Options:
    """`language`: a key of COMPILERS, "csmith" is C by csmith(1). `debugger`: of HOSTS; with "qemu" the program is for
    AArch64, and gdb patches it through the stub of qemu-user, with "wine" for Windows, in gdbserver.exe under Wine.
    `library`: the second file is a shared library."""

    language: str
    compiler: str
    level: str
    pie: bool
    debugger: str
    library: bool = False

    def __str__(self) -> str:
        kind = "pie" if self.pie else "no-pie"
        rows = (self.language, self.compiler, self.level, kind, "library" * self.library, self.debugger)
        return " ".join(filter(None, rows))

    @property
    def is_aarch64(self) -> bool:
        return self.debugger == "qemu"

    @property
    def is_windows(self) -> bool:
        return self.debugger == "wine"

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def choose(seed: int, given: Mapping[str, object]) -> Options:
    """For this seed, where it is not given. Every choice draws the same numbers, whatever else is given."""
    rng = Random(f"options {seed}")
    language = rng.choice(_LANGUAGES)
    compiler = given.get("compiler")
    draws = rng.random(), rng.choice(LEVELS), rng.random() < 0.7, rng.choice(_HOSTS)
    if "language" in given:
        language = str(given["language"])
    elif given.get("debugger") == "wine":  # where there is no fork(2)
        language = "c"
    elif compiler:
        language = "rust" if compiler == "rustc" else language if language != "rust" else "cxx"
    elif given.get("debugger") == "qemu":  # whose stub does not stop threads, which those of C++ and Rust have
        language = language if language in ("c", "csmith") else "c"
    compilers = COMPILERS[language]
    chosen = Options(language, compilers[int(draws[0] * len(compilers))], draws[1], draws[2], draws[3])
    if given.get("debugger") == "wine":
        chosen = replace(chosen, pie=True)
    chosen = replace(chosen, library=Random(f"library {seed}").random() < _LIBRARIES)
    chosen = replace(chosen, **{name: value for name, value in given.items() if name != "language"})  # type: ignore[arg-type]
    has_library = chosen.library and language in ("c", "cxx") and not chosen.is_aarch64 and not chosen.is_windows
    return replace(chosen, library=has_library)
