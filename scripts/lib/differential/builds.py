"""Building a random program: once for the process that is patched, and again and again for what it is compared with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from differential.options import Options
from ipbp.errors import IpbpError

_DRIVERS = {("c", "gcc"): "gcc", ("cxx", "gcc"): "g++", ("c", "clang"): "clang", ("cxx", "clang"): "clang++"}
_SECONDS = 300
_LIBRARY = "libpart.so"
_OF_LINKER = ("-Wl,", "-fuse-ld=", "-static")
AARCH64, WINDOWS = "aarch64-linux-gnu", "x86_64-w64-mingw32"
SUPPORT = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "ipbp-differential"


class BuildFailed(IpbpError):
    """The program of a generator does not build: the generator is wrong."""


class Build(Protocol):
    folder: Path
    program: Path

    def adopt(self, other: Build) -> None:
        """What is in `folder` was copied from that build's."""

    def write(self, texts: Mapping[str, str]) -> None:
        """The sources; those that are as before keep their time."""

    def make(self) -> None:
        """The program, of what is written."""


def build(options: Options, folder: Path) -> Build:
    return CargoBuild(options, folder) if options.language == "rust" else UnitBuild(options, folder)


class _Sources:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._texts: dict[str, str] = {}
        self._compiled: dict[str, str] = {}

    def write(self, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            path = self.folder / name
            if self._texts.get(name) != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self._texts = dict(texts)

    def adopt(self, other: Build) -> None:
        assert isinstance(other, _Sources)
        self._texts = dict(other._texts)
        self._compiled = dict(other._compiled)


class UnitBuild(_Sources):
    """C and C++: each file compiled on its own, with a compile_commands.json beside them. The main file, which is the
    same in all programs of a language, is compiled once for all that are built in one way."""

    def __init__(self, options: Options, folder: Path) -> None:
        super().__init__(folder)
        self._options = options
        self.program = folder / ("program.exe" if options.is_windows else "program")

    def make(self) -> None:
        headers = "".join(text for name, text in sorted(self._texts.items()) if name.endswith(".h"))
        units = [name for name in self._texts if not name.endswith(".h") and not name.startswith("main.")]
        commands = []
        for name in units:
            words = self._compile(name)
            commands.append({"directory": str(self.folder), "file": name, "arguments": words})
            content = headers + self._texts[name]
            if self._compiled.get(name) != content:
                run(words, self.folder)
                self._compiled[name] = content
        (self.folder / "compile_commands.json").write_text(json.dumps(commands))
        objects = [f"{Path(name).stem}.o" for name in units]
        more = [word for word in self._flags() if word.startswith(_OF_LINKER)]
        link = [*more, *([] if self._options.pie else ["-no-pie"])]
        if self._options.library:
            run([*self._driver(), "-shared", objects.pop(), "-o", _LIBRARY, *more], self.folder)
            link += [_LIBRARY, "-rdynamic", "-Wl,-rpath,$ORIGIN"]
        link += [] if self._options.is_windows else ["-pthread"]
        run([*self._driver(), *objects, str(self._main()), *link, "-o", self.program.name], self.folder)

    def _compile(self, name: str) -> list[str]:
        is_library = self._options.library and name.startswith("b.")
        position = "-fPIC" if is_library else self._position()
        words = [self._options.level, *([] if self._options.is_windows else [position]), *self._extra()]
        return [*self._driver(), "-w", "-g", *words, "-MD", "-c", name, "-o", f"{Path(name).stem}.o"]

    def _main(self) -> Path:
        name = next(name for name in self._texts if name.startswith("main."))
        texts = {file: self._texts[file] for file in (name, "base.h")}
        words = self._compile(name)
        folder = SUPPORT / sha256(repr((texts, words)).encode()).hexdigest()[:16]
        made = folder / "main.o"
        if not made.exists():
            folder.mkdir(parents=True)
            for file, text in texts.items():
                (folder / file).write_text(text)
            run(words, folder)
        return made

    def _driver(self) -> list[str]:
        language = "cxx" if self._options.language == "cxx" else "c"
        name = _DRIVERS[language, self._options.compiler]
        if not self._options.is_aarch64 and not self._options.is_windows:
            return [_versioned(name)]
        target = WINDOWS if self._options.is_windows else AARCH64
        if self._options.compiler == "gcc":
            return [f"{target}-{name}"]
        return [_versioned(name), f"--target={target}"]

    def _extra(self) -> list[str]:
        include = ["-I/usr/include/csmith"] if self._options.language == "csmith" else []
        return [*(word for word in self._flags() if not word.startswith(_OF_LINKER)), *include]

    def _flags(self) -> list[str]:
        return " ".join(self._options.flags).split()

    def _position(self) -> str:
        # On AArch64 -fpie counts from the GOT's page, which is refused (docs/limits.md, "AArch64").
        pie = "-fPIE" if self._options.is_aarch64 else "-fpie"
        return pie if self._options.pie else "-fno-pie"


class CargoBuild(_Sources):
    """Rust: a workspace with a target directory of its own."""

    def __init__(self, options: Options, folder: Path) -> None:
        super().__init__(folder)
        self._options = options
        self.program = folder / "target" / "debug" / "app"

    def write(self, texts: Mapping[str, str]) -> None:
        level = self._options.level.removeprefix("-O")
        quoted = level if level.isdigit() else f'"{level}"'
        profile = "\n".join([quoted, *self._options.flags])
        more = {"Cargo.toml": texts["Cargo.toml"].replace("OPT_LEVEL", profile)}
        if not self._options.pie:
            more[".cargo/config.toml"] = '[build]\nrustflags = ["-C", "relocation-model=static"]\n'
        super().write({**texts, **more})

    def make(self) -> None:
        run(["cargo", "build", "--quiet", "--offline"], self.folder)


def run(words: list[str], folder: Path) -> None:
    """Errors: `BuildFailed`."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise BuildFailed("build-failed", f"{' '.join(words)} in {folder}", "Mend the generator.", done.stderr)


def _versioned(name: str) -> str:
    # Debian's clang has a version in its name.
    if shutil.which(name):
        return name
    found = [f"{name}-{version}" for version in range(25, 13, -1) if shutil.which(f"{name}-{version}")]
    if not found:
        raise BuildFailed("compiler-missing", f"there is no {name}", "Run scripts/setup.")
    return "clang-19".replace("clang", name) if f"{name}-19" in found else found[0]
