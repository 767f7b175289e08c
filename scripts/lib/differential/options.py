"""How a program is written, built and patched: chosen by its seed, or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random

LEVELS = ("-O0", "-O1", "-O2", "-O3", "-Os")
COMPILERS = {"c": ("gcc", "clang"), "csmith": ("gcc", "clang"), "cxx": ("gcc", "clang"), "rust": ("rustc",)}
HOSTS = ("core", "gdb", "lldb", "idle", "qemu", "wine")
_LANGUAGES = ("c",) * 4 + ("csmith",) * 2 + ("cxx",) * 6 + ("rust",) * 2
_LIBRARIES, _FLAGGED = 0.25, 0.5  # shares
FLAGS = (
    *("-ffunction-sections -fdata-sections -Wl,--gc-sections", "-fno-plt", "-fcf-protection", "-fcommon", "-gdwarf-4"),
    *("-fstack-protector-strong", "-fstack-protector-all", "-fno-omit-frame-pointer", "-gsplit-dwarf", "-g1", "-ggdb3"),
    *("-ftrivial-auto-var-init=zero", "-funroll-loops", "-fno-inline", "-mavx2", "-mcmodel=medium", "-fno-jump-tables"),
    *("-fno-semantic-interposition", "-mno-red-zone", "-falign-functions=1", "-falign-functions=64", "-fno-common"),
    *("-fno-asynchronous-unwind-tables", "-fmerge-all-constants", "-fno-strict-aliasing", "-fno-builtin", "-Og"),
    *("-fpatchable-function-entry=8,4", "-fdebug-types-section", "-fno-optimize-sibling-calls"),
    *("-fuse-ld=mold", "-fuse-ld=gold", "-Wl,-z,now", "-Wl,-Bsymbolic", "-Wl,-z,noseparate-code", "-static"),
    *("-Wl,--hash-style=sysv", "-Wl,--as-needed", "-Wl,--build-id=none"),
)
"""What people build with besides: words for the compiler and, of those that begin so, for the linker."""
_FLAGS = {
    "gcc": ("-fipa-pta", "-fno-reorder-functions", "-fno-toplevel-reorder", "-fno-ipa-sra", "-fno-ipa-icf"),
    "clang": ("-Oz", "-fuse-ld=lld", "-fuse-ld=lld -Wl,--icf=all -faddrsig", "-fno-unique-section-names"),
}
_PROFILE = (
    *("codegen-units = 1", "codegen-units = 3", "incremental = false", 'debug = "line-tables-only"', 'lto = "off"'),
    *('split-debuginfo = "unpacked"', "rpath = true", "overflow-checks = false", "debug-assertions = false"),
)
_HOSTS = ("core",) * 14 + ("gdb", "lldb")


@dataclass(frozen=True, slots=True)
class Options:
    """`language`: a key of COMPILERS, "csmith" is C by csmith(1). `debugger`: of HOSTS; with "qemu" the program is for
    AArch64, and gdb patches it through the stub of qemu-user, with "wine" for Windows, in gdbserver.exe under Wine.
    `library`: the second file is a shared library. `flags`: what it is built with besides, of Rust lines of the
    profile."""

    language: str
    compiler: str
    level: str
    pie: bool
    debugger: str
    library: bool = False
    flags: Sequence[str] = ()

    def __str__(self) -> str:
        kind = "pie" if self.pie else "no-pie"
        rows = (self.language, self.compiler, self.level, kind, "library" * self.library, self.debugger, *self.flags)
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
    chosen = replace(chosen, library=has_library)
    return chosen if "flags" in given else replace(chosen, flags=_some_flags(seed, chosen))


def _some_flags(seed: int, chosen: Options) -> tuple[str, ...]:
    """Up to three, for half of the programs."""
    rng = Random(f"flags {seed}")
    if rng.random() >= _FLAGGED or chosen.is_aarch64 or chosen.is_windows:
        return ()
    known = _PROFILE if chosen.language == "rust" else (*FLAGS, *_FLAGS[chosen.compiler])
    drawn = rng.sample(known, rng.randint(1, 3))
    return tuple(_kept_one(flag, chosen) for flag in drawn if _is_possible(flag, chosen, drawn))


def _kept_one(flag: str, chosen: Options) -> str:
    # Else what an inline function keeps would be in the program and in the library, and the state has it once.
    return "-Wl,-Bsymbolic-functions" if flag == "-Wl,-Bsymbolic" and chosen.language == "cxx" else flag


def _is_possible(flag: str, chosen: Options, drawn: Sequence[str]) -> bool:
    if flag == "-static":
        return not chosen.library and not chosen.pie
    # One of each kind.
    kind = flag.split("=")[0]
    return next(other for other in drawn if other.split("=")[0] == kind) == flag
