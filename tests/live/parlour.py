"""A C++ program in several files with threads that never rest, and edits of it, one after the other.

The threads call virtual functions and throw exceptions through all of the files all the time; what they find must
always be something that the old code or the new code may answer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenario import PROGRAMS, Project

Replace = tuple[str, str]


@dataclass(frozen=True)
class Step:
    """`replace`: file -> (text that stands in it once, new text). `ask`: command -> answer, in this order. `functions`:
    that are in the patch, by the last part of their names."""

    name: str
    replace: Mapping[str, Sequence[Replace]]
    ask: Sequence[tuple[str, str]]
    functions: set[str]


STEPS = (
    Step(
        "inline functions, templates, static members and statics of inline functions in a header",
        {
            "shapes.h": [
                ("#define SCALE 10", "#define SCALE 100"),
                ("return x + x;", "return x + x + 1000;"),
                ("count += x; return count;", "count += 2 * x; return count;"),
                ("left -= n; return left;", "left -= 5 * n; return left;"),
                ("made += 1;", "made += 2;"),
            ]
        },
        [("left 1", "2014"), ("right 1", "1833"), ("left 1", "2027"), ("boxed 3", "610"), ("area 1", "12 circle")],
        {"scaled", "twice", "counted", "take", "put"},
    ),
    Step(
        "anonymous namespaces, and a local class",
        {
            "left.cpp": [("return x + 1;", "return x + 2;")],
            "right.cpp": [("return x + 5;", "return x + 6;"), ("total += n; return", "total += n * 2; return")],
        },
        [("left 1", "2034"), ("right 1", "1755"), ("odd 2", "56")],
        {"hidden", "next"},
    ),
    Step(
        "a virtual function, reached through old tables",
        {"shapes.cpp": [("return side * side;", "return side * side + 1000;")]},
        [("area 0", "1016 shape"), ("made 3", "1009 shape"), ("turns", "on")],
        {"area"},
    ),
    Step(
        "what is thrown",
        {"risky.cpp": [("case 1: throw Failure(1);", "case 1: throw Failure(11);")]},
        [("caught 1", "ioh failure 11"), ("again 1", "io(11)risky failure"), ("old 1", "old failure 11 7Failure")],
        {"risky"},
    ),
    Step(
        "what it is thrown through",
        {
            "through.cpp": [
                ("return risky(x) + 1;", "Trace more(log, 'm'); return risky(x) + 2;"),
                ("noexcept { return risky(x); }", "noexcept { return risky(x) * 2; }"),
            ]
        },
        [
            *(("caught 0", "got 2"), ("caught 1", "mioh failure 11"), ("caught 2", "mioh worse 20")),
            *(("caught 3", "mioh risky"), ("caught 4", "mioh int 4"), ("old 1", "old failure 11 7Failure")),
            *(("old 2", "old worse 20"), ("old 3", "old risky"), ("firm 1", "42"), ("turns", "on")),
        ],
        {"through", "firm"},
    ),
    Step(
        "who catches it",
        {
            "caught.cpp": [
                ('" worse " + std', '" WORSE " + std'),
                ('log + " int "', 'log + " INT "'),
                ('log += " worse";', 'log += " WORSE";'),
            ]
        },
        [
            *(("caught 1", "mioh failure 11"), ("caught 2", "mioh WORSE 20"), ("caught 4", "mioh INT 4")),
            *(("again 1", "mio(11)risky failure"), ("again 2", "mio(20)risky WORSE"), ("turns", "on")),
        ],
        {"caught", "again"},
    ),
    Step(
        "a new override in a class with live objects, and a new class",
        {
            "shapes.h": [
                ("override;\n    int side;", "override;\n    std::string name() const override;\n    int side;")
            ],
            "shapes.cpp": [
                (
                    "std::unique_ptr<Shape> made(",
                    'std::string Square::name() const { return "square"; }\n'
                    "struct Round : Circle {\n    using Circle::Circle;\n"
                    '    std::string name() const override { return "round"; }\n};\n'
                    "std::unique_ptr<Shape> made(",
                ),
                ("make_unique<Circle>(size);", "make_unique<Round>(size);"),
            ],
        },
        [("area 0", "1016 square"), ("area 1", "12 circle"), ("made 3", "1009 square"), ("made 0", "0 round")],
        {"made", "name"},
    ),
    Step(
        "an exception of a new class, which old code catches by its base",
        {
            "risky.cpp": [
                (
                    "int risky(int x) {",
                    "struct Odd : Worse {\n    using Worse::Worse;\n"
                    "    int code() const override { return 500 + value; }\n};\nint risky(int x) {",
                ),
                ("case 4: throw 4;", "case 4: throw 4;\n    case 5: throw Odd(5);"),
                ("if (x == 1) return new", "if (x == 5) return new Odd(5);\n    if (x == 1) return new"),
            ]
        },
        # And old code casts an object of it.
        [
            *(("caught 5", "mioh WORSE 505"), ("old 5", "old worse 505"), ("again 5", "mio(505)risky WORSE")),
            ("fresh 5", "worse 505"),
        ],
        {"risky", "code", "failure"},
    ),
    Step(
        "types of old and of new objects, told by new code",
        {
            "caught.cpp": [
                (
                    'return dynamic_cast<const Worse *>(f) ? "worse" : "plain";',
                    'return typeid(*f) == typeid(Worse) ? "Worse" : dynamic_cast<const Worse *>(f) ? "more" : "Plain";',
                ),
                ('#include "errors.h"', '#include "errors.h"\n#include <typeinfo>'),
            ]
        },
        [("kind 0", "Plain 1"), ("kind 1", "Worse 20"), ("fresh 2", "Worse 20"), ("fresh 5", "more 505")],
        {"kind"},
    ),
    Step(
        "another type to catch, which changes no instruction",
        {"caught.cpp": [("std::exception &e) {\n        return", "std::logic_error &e) {\n        return")]},
        [("caught 3", "mioh unknown"), ("caught 2", "mioh WORSE 20"), ("turns", "on")],
        {"caught"},
    ),
    Step(
        "the override gone",
        {
            "shapes.h": [("    std::string name() const override;\n    int side;", "    int side;")],
            "shapes.cpp": [('std::string Square::name() const { return "square"; }\n', "")],
        },
        [("area 0", "1016 shape"), ("area 1", "12 circle"), ("made 3", "1009 shape")],
        set(),
    ),
    Step(
        "the body of a lambda expression that the program keeps",
        {"right.cpp": [("return base * 100 + y; };", "return base * 1000 + y; };")]},
        [("mapped 2", "2543")],
        set(),
    ),
    Step(
        "what it captures: the one that is kept goes on in its old code",
        {
            "right.cpp": [
                ("[base](int y) { return base * 1000 + y", "[base, x](int y) { return base * 10 + y + x * 1000000")
            ]
        },
        [("mapped 2", "2543"), ("mapped 3", "2654")],
        {"mapped"},
    ),
    Step(
        "and one that is made afterwards runs the new",
        {"right.cpp": [("if (!kept) kept", "kept = nullptr; kept")]},
        [("mapped 2", "2000563"), ("mapped 3", "3000684"), ("turns", "on")],
        {"mapped"},
    ),
)
REFUSED = (
    Step(
        "a member",
        {"shapes.h": [("    int side;", "    int more;\n    int side;")]},
        [("area 0", "1016 shape")],
        {"Square"},
    ),
    Step(
        "a virtual function",
        {"shapes.h": [("virtual int area()", "virtual int first() const { return 1; }\n    virtual int area()")]},
        [("area 0", "1016 shape"), ("turns", "on")],
        {"Shape", "Square", "Circle", "Round"},
    ),
    Step(
        "what is thrown",
        {"errors.h": [("    int value;\n", "    long value;\n")]},
        [("caught 2", "mioh WORSE 20")],
        {"Failure"},
    ),
)
"""Of layouts, after `STEPS`; `functions` are the types."""
BEFORE = (
    *(("left 1", "916"), ("right 1", "829"), ("mapped 2", "743"), ("boxed 3", "308"), ("odd 2", "52")),
    *(("caught 0", "got 1"), ("caught 1", "ioh failure 1"), ("caught 2", "ioh worse 20"), ("caught 3", "ioh risky")),
    *(("caught 4", "ioh int 4"), ("again 1", "io(1)risky failure"), ("again 2", "io(20)risky worse")),
    *(("kind 0", "plain 1"), ("kind 1", "worse 20"), ("area 0", "16 shape"), ("made 2", "4 shape")),
    *(("old 1", "old failure 1 7Failure"), ("firm 1", "42"), ("turns", "on")),
)


CALM = ("left.cpp", "right.cpp", "shapes.cpp")
"""Sources that throw nothing and catch nothing."""


def build_parlour(
    folder: Path,
    *flags: str,
    compiler: str = "g++",
    link: Sequence[str] = (),
    joined: Sequence[str] = (),
    calm: Sequence[str] = (),
) -> Project:
    """The program as it is before the first edit. `joined`: sources that are compiled as one (a unity build). `calm`:
    more flags for the sources that throw nothing."""
    shutil.copytree(PROGRAMS / "parlour", folder)
    if joined:
        (folder / "unity.cpp").write_text("".join(f'#include "{name}"\n' for name in joined))
    write_database(folder, *flags, compiler=compiler, without=joined, calm=calm)
    rows = json.loads((folder / "compile_commands.json").read_text())
    for row in rows:
        subprocess.run(row["arguments"], cwd=folder, check=True)
    objects = [Path(row["file"]).with_suffix(".o").name for row in rows]
    subprocess.run([compiler, *link, *objects, "-o", "parlour", "-pthread"], cwd=folder, check=True)
    return Project(folder, folder / "parlour")


def make(step: Step, folder: Path) -> None:
    """The edit."""
    for name, pairs in step.replace.items():
        text = (folder / name).read_text()
        for old, new in pairs:
            assert text.count(old) == 1, (step.name, old)
            text = text.replace(old, new)
        (folder / name).write_text(text)


def write_database(
    folder: Path, *flags: str, compiler: str, without: Sequence[str] = (), calm: Sequence[str] = ()
) -> None:
    rows = []
    for source in sorted(path for path in folder.glob("*.cpp") if path.name not in without):
        words = [compiler, "-std=c++17", *flags, *(calm if source.name in CALM else ())]
        words += ["-g", "-MD", "-c", source.name, "-o", source.with_suffix(".o").name]
        rows.append({"directory": str(folder), "file": source.name, "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
