"""Libraries of templates that nobody here wrote, from the distribution's source packages, in a program of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scenario import PROGRAMS, Project


@dataclass(frozen=True)
class Change:
    """`file`: of the program, or below the library's folder of headers. `ask`: command -> answer. `functions`: parts of
    the names of functions that are then in the patch. `code`: of the refusal, "" where there is none."""

    name: str
    file: str
    old: str
    new: str
    ask: Sequence[tuple[str, str]]
    functions: Sequence[str] = ()
    code: str = ""


@dataclass(frozen=True)
class Guest:
    """`unit`: of the program, which includes the library. `sources`: of the library, below its folder."""

    package: str
    unit: str
    flags: Sequence[str]
    sources: Sequence[str]
    before: Sequence[tuple[str, str]]
    changes: Sequence[Change]


FMT = Guest(
    package="fmtlib",
    unit="with_fmt.cpp",
    flags=("-fno-exceptions", "-fno-rtti"),
    sources=("src/format.cc",),
    before=[("5", "     5|0x5|1.25|true of 561"), ("-3", "    -3|-0x3|-0.75|fa of 564")],
    changes=[
        Change(
            "its user", "with_fmt.cpp", '"{} of {}"', '"{} in {}"', [("5", "     5|0x5|1.25|true in 561")], ["show"]
        ),
        Change(
            "a template",
            "include/fmt/format.h",
            'value ? "true" : "false"',
            'value ? "yes!" : "no!"',
            [("5", "     5|0x5|1.25|yes! in 561"), ("-3", "    -3|-0x3|-0.75|no in 562")],
        ),
        Change(
            "a virtual function of a template",
            "include/fmt/format.h",
            "  T* old_data = this->data();\n",
            "  T* old_data = this->data();\n  if (size > 500) old_data[0] = T('#');\n",
            [("5", "#    5|0x5|1.25|yes! in 561")],
            ["4grow"],
        ),
        Change(
            "its layout",
            "include/fmt/format.h",
            "  T store_[SIZE];\n",
            "  int more_ = 0;\n  T store_[SIZE];\n",
            [("5", "#    5|0x5|1.25|yes! in 561")],
            code="layout-changed",
        ),
    ],
)
JSON = Guest(
    package="nlohmann-json3",
    unit="with_json.cpp",
    flags=(),
    sources=(),
    before=[("5", '[1,2.5,"three",null]5'), ("-3", "101")],
    changes=[
        Change(
            "its user", "with_json.cpp", 'made["x"].dump()', '"+" + made["x"].dump()', [("5", '[1,2.5,"three",null]+5')]
        ),
        Change(
            "a template",
            "include/nlohmann/detail/output/serializer.hpp",
            'case value_t::null:\n            {\n                o->write_characters("null", 4);',
            'case value_t::null:\n            {\n                o->write_characters(" null", 5);',
            [("5", '[1,2.5,"three", null]+5')],
        ),
        Change(
            "a virtual function of a template",
            "include/nlohmann/detail/output/output_adapters.hpp",
            "        str.append(s, length);\n",
            "        str.append(s, length);\n        if (length == 5) str.push_back(' ');\n",
            [("5", '[1,2.5,"three ", null ]+5')],
            ["write_characters"],
        ),
        Change(
            "what it throws",
            "include/nlohmann/detail/exceptions.hpp",
            "        return {id_, pos.chars_read_total, w.c_str()};",
            "        return {id_ + 1000, pos.chars_read_total, w.c_str()};",
            [("-3", "1101")],
        ),
        Change(
            "its layout",
            "include/nlohmann/json.hpp",
            "    value_t m_type = value_t::null;\n",
            "    value_t m_type = value_t::null;\n    int more = 0;\n",
            [("-3", "1101")],
            code="layout-changed",
        ),
    ],
)


def build_guest(guest: Guest, library: Path, folder: Path, compiler: str, *flags: str) -> Project:
    """The program, with a copy of the library's headers and sources in its folder."""
    shutil.copytree(library / "include", folder / "include")
    sources = [guest.unit, "main.cpp", *guest.sources]
    for name in sources:
        source = (library if "/" in name else PROGRAMS / "guest") / name
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, folder / name)
    shutil.copy(PROGRAMS / "guest" / "guest.h", folder)
    rows = []
    for name in sources:
        own = guest.flags if name != "main.cpp" else ()
        words = [
            compiler,
            "-std=c++17",
            *flags,
            *own,
            "-g",
            "-Iinclude",
            "-MD",
            "-c",
            name,
            "-o",
            f"{Path(name).stem}.o",
        ]
        subprocess.run(words, cwd=folder, check=True)
        rows.append({"directory": str(folder), "file": name, "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    objects = [f"{Path(name).stem}.o" for name in sources]
    subprocess.run([compiler, *objects, "-o", "host", "-pthread"], cwd=folder, check=True)
    return Project(folder, folder / "host")
