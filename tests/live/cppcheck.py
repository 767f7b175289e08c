"""cppcheck 2, built from the distribution's own source package with the package's own compiler flags, and with threads:
a hundred thousand lines of C++ with virtual functions, templates and exceptions."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from source_packages import unpack

# Each file takes some milliseconds; the last function is what is reported.
_HELPER = """static int helper{n}(int a, int b) {{
    int c = a * {n};
    for (int i = 0; i < b; i++) c += i % {n};
    if (c > {n} && b < a) c -= b;
    return c;
}}
int use{n}(int a) {{ return helper{n}(a, {n}); }}
"""
_CODE = "".join(_HELPER.format(n=number) for number in range(2, 26))
SUSPECT = _CODE + "int value(int a, int b) {\n    if (a == 1 && a == 2) b += 1;\n    return b;\n}\n"
BROKEN = "int broken(int a { return a; }\n"
"""What the tokenizer throws an exception for."""
_FILES = 12_000


@dataclass(frozen=True)
class Cppcheck:
    """A built tree."""

    folder: Path

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """It checks thousands of files of two kinds in two threads; what it says is in `folder/said`."""
        (folder / "suspect.c").write_text(SUSPECT)
        (folder / "broken.c").write_text(BROKEN)
        names = [folder / f"f{number:05}.c" for number in range(_FILES)]
        for number, name in enumerate(names):
            os.link(folder / ("broken.c" if number % 2 else "suspect.c"), name)
        command = [self.folder / "cppcheck", "-j2", "--enable=warning", *names]
        with (folder / "said").open("wb") as said:
            return subprocess.Popen(command, cwd=self.folder, stdout=said, stderr=subprocess.STDOUT)


def build_cppcheck(folder: Path) -> Cppcheck:
    """Fetch, unpack and make. About eight minutes on two cores."""
    source = unpack("cppcheck", folder, {"DEB_BUILD_MAINT_OPTIONS": "hardening=+bindnow"}, "g++")
    flags = source.environment
    source.run(
        *("make", "--silent", "-j2", f"CXX={source.recorder}", f"CXXFLAGS={flags['CXXFLAGS']} -std=c++11 -pthread"),
        *(f"CPPFLAGS={flags['CPPFLAGS']} -DUSE_THREADS", f"LDFLAGS={flags['LDFLAGS']} -pthread", "cppcheck"),
    )
    (source.folder / "compile_commands.json").write_text(json.dumps(source.commands()))
    return Cppcheck(source.folder)
