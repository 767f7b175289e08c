"""C++ of clang's, which describes a class only in the units that make objects of it or have its virtual functions: a
layout that changed is seen all the same, though the unit that uses it knows of the class that there is one."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from scenario import Project
from sessions import debugged

from ipbp.formats.elf_object import read_object
from ipbp.pipeline.layouts import types_of_object

pytestmark = pytest.mark.live
SOURCES = {
    "types.h": """
struct Shape {
    Shape();
    virtual ~Shape();
    virtual int area() const;
    virtual int edges() const;
    int width;
};
struct Plain {
    explicit Plain(int);
    int first;
    int second;
};
template <class T> struct Box {
    explicit Box(T);
    int sum() const;
    T value;
    int count;
};
extern template struct Box<int>;
Shape *shape();
Plain *plain();
Box<int> *box();
""",
    "types.cpp": """
#include "types.h"
Shape::Shape() : width(3) {}
Shape::~Shape() {}
int Shape::area() const { return width * width; }
int Shape::edges() const { return 4; }
Plain::Plain(int x) : first(x), second(x + 1) {}
template <class T> Box<T>::Box(T x) : value(x), count(7) {}
template <class T> int Box<T>::sum() const { return count; }
template struct Box<int>;
Shape *shape() { static Shape one; return &one; }
Plain *plain() { static Plain one(20); return &one; }
Box<int> *box() { static Box<int> one(300); return &one; }
""",
    "use.cpp": """
#include "types.h"
int use() { return shape()->area() + plain()->second + box()->value + box()->sum(); }
""",
    "main.cpp": """
#include <cstdio>
int use();
int main()
{
    char line[80];
    setvbuf(stdout, nullptr, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) std::printf("%d\\n", use());
}
""",
}
HOME = "Plain::Plain(int x) : first(x), second(x + 1) {}\n"
ANSWER = str(9 + 21 + 300 + 7)


@dataclass(frozen=True)
class Edit:
    """Of types.h; `words` are said of the type `name`."""

    old: str
    new: str
    name: str
    words: str


EDITS = [
    Edit("    int width;", "    int more;\n    int width;", "Shape", "member 'more' is new"),
    Edit(
        "    virtual int area() const;\n    virtual int edges() const;",
        "    virtual int edges() const;\n    virtual int area() const;",
        "Shape",
        "the virtual function",
    ),
    Edit("    int first;\n    int second;", "    int second;\n    int first;", "Plain", "member 'second' moved"),
    Edit("    int second;", "    long second;", "Plain", "member 'second' was int and is long"),
    Edit("    T value;\n    int count;", "    int count;\n    T value;", "Box<int>", "member 'count' moved"),
]


def build(folder: Path, level: str) -> Project:
    folder.mkdir()
    rows = []
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
        if name.endswith(".cpp"):
            words = ["clang++-19", level, "-g", "-MD", "-c", name, "-o", Path(name).with_suffix(".o").name]
            rows.append({"directory": str(folder), "file": name, "arguments": words})
            subprocess.run(words, cwd=folder, check=True)
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    subprocess.run(["clang++-19", *(row["arguments"][-1] for row in rows), "-o", "limited"], cwd=folder, check=True)
    return Project(folder, folder / "limited")


@pytest.mark.parametrize(("debugger", "level"), [("gdb", "-O0"), ("lldb", "-O2")])
def test_a_layout_that_another_unit_describes_is_seen(debugger: str, level: str, tmp_path: Path) -> None:
    project = build(tmp_path / "limited", level)
    known = types_of_object(read_object((project.folder / "use.o").read_bytes(), "use.cpp"))
    assert known.aggregates.keys().isdisjoint(edit.name for edit in EDITS), "use.cpp describes them itself"
    header, use = project.folder / "types.h", project.folder / "use.cpp"
    with debugged(project.program, debugger) as (session, talk):
        assert talk.ask("") == ANSWER
        for edit in EDITS:
            assert SOURCES["types.h"].count(edit.old) == 1
            header.write_text(SOURCES["types.h"].replace(edit.old, edit.new))
            outcome = session.call("apply")
            assert outcome["outcome"] == "refused", (edit, outcome["text"])
            told = {row["symbol"]: row["fact"] for row in outcome["refusals"] if row["code"] == "layout-changed"}
            assert edit.words in told[edit.name], (edit, outcome["text"])
            assert talk.ask("") == ANSWER
        # Another unit describes it from now on.
        header.write_text(SOURCES["types.h"].replace(EDITS[2].old, EDITS[2].new))
        (project.folder / "types.cpp").write_text(SOURCES["types.cpp"].replace(HOME, ""))
        use.write_text(SOURCES["use.cpp"] + HOME)
        outcome = session.call("apply")
        assert outcome["outcome"] == "refused", outcome["text"]
        assert [(row["code"], row["symbol"]) for row in outcome["refusals"]] == [("layout-changed", "Plain")]
        assert talk.ask("") == ANSWER
        (project.folder / "types.cpp").write_text(SOURCES["types.cpp"])
        # Nothing of them is another; then one unit is patched that describes none of them.
        header.write_text(SOURCES["types.h"].replace("int sum() const;", "int sum() const; // of what"))
        use.write_text(SOURCES["use.cpp"].replace("->area() +", "->area() * 1000 +"))
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert talk.ask("") == str(9000 + 21 + 300 + 7)
        header.write_text(SOURCES["types.h"].replace("    int second;", "    int more;\n    int second;"))
        assert session.call("apply")["outcome"] == "refused"
        assert session.call("undo 0")["outcome"] == "undone"
        assert talk.ask("") == ANSWER
        assert talk.close() == 0
