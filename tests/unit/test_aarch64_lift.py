"""AArch64: the linked image as the old side. An unedited object finds itself in it, an edited one exactly its edits."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lifted_sources import OTHER, WORK
from patch_maker import graph_of

from ipbp.arch.aarch64_references import code_references
from ipbp.arch.instructions import CodeReference
from ipbp.errors import IpbpError
from ipbp.formats.elf_image import read_image
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import LinkGraph
from ipbp.stages.compare import Comparison, Status, compare
from ipbp.stages.correlate import correlate
from ipbp.stages.lift import lift

MAIN = "double work(int); int other(int);\nint main(void) { return (int)work(1) + other(2); }\n"
SOURCES = {"work": WORK, "other": OTHER, "main": MAIN}  # lld lets the C library's names stand under the last one
SECTIONS = ("-ffunction-sections", "-fdata-sections")
VARIANTS = [
    pytest.param(*row, marks=[] if row in FAST else [pytest.mark.slow])
    for FAST in ({("gcc", "-O2", "pie", "lld"), ("clang", "-O0", "static", "bfd"), ("gcc", "-O0", "pie", "bfd")},)
    for row in itertools.product(["gcc", "clang"], ["-O0", "-O2"], ["pie", "static"], ["bfd", "lld"])
]
CODES = {"pie": "-fPIE", "static": "-fno-pie"}
LINKS = {"pie": "-pie", "static": "-static"}


@dataclass(frozen=True)
class Program:
    image: LoadedImage

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [self.image.original(address, size) for address, size in ranges]

    def lifted(self, new: LinkGraph) -> LinkGraph:
        return lift(new, self.image, self.read)[0]


@dataclass(frozen=True)
class Tools:
    """Both compilers and linkers for AArch64, in one folder."""

    gcc: str
    clang: str
    folder: Path

    def compiled(self, name: str, text: str, compiler: str, *flags: str) -> LinkGraph:
        (self.folder / f"{name}.c").write_text(text)
        driver = [self.gcc] if compiler == "gcc" else [self.clang, "--target=aarch64-linux-gnu"]
        command = [*driver, "-w", *flags, "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(command, cwd=self.folder, check=True)
        return graph_of(self.folder / f"{name}.o")

    def linked(self, names: Sequence[str], linker: str, *flags: str) -> Program:
        driver = [self.gcc] if linker == "bfd" else [self.clang, "--target=aarch64-linux-gnu"]
        objects = [f"{name}.o" for name in names]
        command = [*driver, f"-fuse-ld={linker}", *objects, *flags, "-o", "program"]
        subprocess.run(command, cwd=self.folder, check=True)
        return Program(replace(read_image(str(self.folder / "program")), is_executable=True))


@pytest.fixture
def tools(aarch64: str, clang: str, tmp_path: Path) -> Tools:
    return Tools(aarch64, clang, tmp_path)


def judged(old: LinkGraph, new: LinkGraph) -> tuple[Comparison, dict[str, str]]:
    """The comparison, and what it says of named blocks that are not the same."""
    comparison = compare(old, new, correlate(old, new))
    anchors = new.blocks.anchor.tolist()
    named = [block for block in comparison.reason if new.symbols.name[anchors[block]]]
    words = {new.block_name(b): f"{Status(comparison.status[b]).name}: {comparison.reason[b]}" for b in named}
    return comparison, words


@pytest.mark.parametrize(("compiler", "level", "kind", "linker"), VARIANTS)
def test_an_unedited_object_finds_itself_in_the_image(
    compiler: str, level: str, kind: str, linker: str, tools: Tools
) -> None:
    flags = [level, CODES[kind], *SECTIONS]
    objects = {name: tools.compiled(name, text, compiler, *flags) for name, text in SOURCES.items()}
    program = tools.linked(list(SOURCES), linker, LINKS[kind])
    for name in ("work", "other"):
        new = objects[name]
        old = program.lifted(new)
        comparison, words = judged(old, new)
        assert words == {}
        assert [old.block_name(block) for block in comparison.removed] == []
        assert comparison.notes == ()
        assert comparison.refusals == ()


EDITS = {
    "work": ('printf("work %d', 'printf("now it works: %d'),
    "pick": ("return 99;", "return 98;"),
    "chosen": ("shared ? pick : helper", "shared ? helper : pick"),
    "helper": ("return n + count;", "return n - count * 2 + (int)shared;"),
}


@pytest.mark.parametrize(("compiler", "level", "kind", "linker"), VARIANTS)
def test_an_edit_is_found_where_it_is_and_nowhere_else(
    compiler: str, level: str, kind: str, linker: str, tools: Tools
) -> None:
    flags = [level, CODES[kind], *SECTIONS]
    for name, text in SOURCES.items():
        tools.compiled(name, text, compiler, *flags)
    program = tools.linked(list(SOURCES), linker, LINKS[kind])
    for function, (before, after) in EDITS.items():
        text = WORK.replace(before, after)
        assert text != WORK
        new = tools.compiled("work", text, compiler, *flags)
        comparison, words = judged(program.lifted(new), new)
        assert {name for name in words if "." not in name} == {function}, words
        assert comparison.refusals == ()


STATICS = r"""
int first(int n) { static int count = 5, more = 50; count += n; more -= count; return count * more; }
int second(int n) { static int count = 6; static int table[9]; count *= n; table[n] += count; return table[9 - n]; }
int third(int n) { static int count = 7; for (int i = 0; i < n; i++) count ^= i * n; return count; }
int fourth(int n) { static int *where, count = 8; where = &count; return *where + n; }
"""
STATICS_MAIN = (
    "int first(int), second(int), third(int), fourth(int);\n"
    "int main(void) { return first(1) + second(2) + third(3) + fourth(4); }\n"
)
INITIAL = {"first": 5, "second": 6, "third": 7, "fourth": 8}


def counted(program: Program, new: LinkGraph) -> dict[str, int]:
    """By function what the variable `count` of the image that was paired with its own has at first."""
    old, found = lift(new, program.image, program.read)
    pairs = correlate(old, new)
    values = {}
    for symbol, name in enumerate(new.symbols.name):
        if name.startswith("count.") and pairs.symbol[symbol] >= 0:
            address = int(found.address[pairs.symbol[symbol]])
            values[user(new, symbol)] = int.from_bytes(program.read([(address, 4)])[0] or b"", "little")
    return values


def user(graph: LinkGraph, symbol: int) -> str:
    """The function that refers to a static variable."""
    rows = [row for row in range(len(graph.edges)) if graph.edges.target[row] == symbol]
    return graph.block_name(int(graph.edges.block[rows[0]]))


@pytest.mark.parametrize("sections", [(), SECTIONS], ids=["anchors", "sections"])
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-Os"])
def test_static_variables_are_known_by_who_uses_them(level: str, sections: Sequence[str], tools: Tools) -> None:
    """Without -fdata-sections gcc counts from one variable of a section to all others."""
    tools.compiled("main", STATICS_MAIN, "gcc", level)
    tools.compiled("statics", STATICS, "gcc", level, *sections)
    program = tools.linked(["main", "statics"], "bfd")
    changed = STATICS.replace("return", "return 1 +")
    assert counted(program, tools.compiled("statics", changed, "gcc", level, *SECTIONS)) == INITIAL
    for gone in INITIAL:
        left = "".join(line for line in changed.splitlines(keepends=True) if f"int {gone}(" not in line)
        new = tools.compiled("statics", left, "gcc", level, *SECTIONS)
        assert counted(program, new) == {name: value for name, value in INITIAL.items() if name != gone}


FOLLOWED = {
    "halves that are far apart": (
        """
        adrp x9, FIRST
        cbz x0, 1f
        add x1, x9, #:lo12:FIRST
        b 2f
1:      ldr w1, [x9, #:lo12:FIRST]
2:      bl other
        ldr w2, [x9, #:lo12:FIRST]
        ret
        """,
        {"FIRST"},
    ),
    "a page that is kept in the frame": (
        """
        stp x29, x30, [sp, #-48]!
        mov x29, sp
        adrp x0, FIRST
        str x0, [sp, #24]
        bl other
        ldr x0, [x29, #24]
        str w1, [x0, #:lo12:FIRST]
        ldp x29, x30, [sp], #48
        ret
        """,
        {"FIRST"},
    ),
    "an address that is only counted from": (
        """
        adrp x1, FIRST
        add x1, x1, #:lo12:FIRST
        ldp w2, w3, [x1, #4]
        ret
        """,
        {"SECOND", "THIRD"},
    ),
    "a copy of an address that is only counted from": (
        """
        adrp x19, FIRST
        add x19, x19, #:lo12:FIRST
        mov x1, x19
        str w0, [x1, #8]
        bl other
        ret
        """,
        {"THIRD"},
    ),
    "the end of an array": (
        """
        adrp x1, FIRST
        add x1, x1, #:lo12:FIRST
        add x2, x1, #4
1:      ldr w3, [x1], #4
        cmp x1, x2
        b.ne 1b
        ret
        """,
        {"FIRST"},
    ),
    "a jump through a table into the midst of code": (
        """
        adrp x9, FIRST
        adr x1, 1f
        br x1
        adrp x9, FIRST
        add x0, x0, #1
1:      ldr w0, [x9, #:lo12:FIRST]
        ret
        """,
        {"FIRST"},
    ),
    "a handler that nothing leads to": (
        """
        adrp x19, SECOND
        bl other
        ret
        ldr w0, [x19, #:lo12:SECOND]
        b other
        """,
        {"SECOND"},
    ),
}
UNTOLD = {
    "a page of one of two": """
        cbz x0, 1f
        adrp x1, FIRST
        b 2f
1:      mov x1, x2
2:      ldr w0, [x1, #:lo12:FIRST]
        ret
        """,
    "a number that varies, then a distance": """
        adrp x1, FIRST
        add x1, x1, #:lo12:FIRST
        add x1, x1, w0, sxtw #2
        ldr w0, [x1, #8]
        ret
        """,
    "what a call may have given back": """
        adrp x1, FIRST
        add x1, x1, #:lo12:FIRST
        bl other
        ldr w0, [x1, #4]
        ret
        """,
}
ASSEMBLY = """
.text
.globl function
.type function, %function
function:
BODY
.size function, . - function
.globl other
.type other, %function
other: ret
.size other, . - other
.data
.balign 4
VARIABLES
"""
VARIABLES = "".join(
    f".type {name}, %object\n.size {name}, 4\n{name}: .word {value}\n"
    for value, name in enumerate(("FIRST", "SECOND", "THIRD"))
)


def references(body: str, tools: Tools) -> tuple[set[str], bool]:
    """Names of the variables that the linked function refers to, and whether all is sure."""
    text = ASSEMBLY.replace("BODY", body).replace("VARIABLES", VARIABLES)
    (tools.folder / "unit.s").write_text(text)
    command = [tools.gcc, "-nostdlib", "-Wl,-e,function", "unit.s", "-o", "program"]
    subprocess.run(command, cwd=tools.folder, check=True)
    image = read_image(str(tools.folder / "program"))
    table = image.symbols
    places = {int(table.address[table.by_name[name][0]]): name for name in ("FIRST", "SECOND", "THIRD")}
    (row,) = table.by_name["function"]
    start = int(table.address[row])
    found = code_references(image.original(start, int(table.size[row])) or b"", start, 2)
    named = {places[place] for place in places for ref in found if ref.place == place and is_meant(ref)}
    return named, not any(ref.is_unsure for ref in found)


def is_meant(reference: CodeReference) -> bool:
    """As the lift decides it where each thing is one place."""
    return not (reference.reached or reference.may_be_end or reference.is_unsure)


@pytest.mark.parametrize("name", FOLLOWED)
def test_an_address_is_followed_to_its_uses(name: str, tools: Tools) -> None:
    body, wanted = FOLLOWED[name]
    assert references(body, tools) == (wanted, True)


@pytest.mark.parametrize("name", UNTOLD)
def test_what_may_mean_something_else_is_unsure(name: str, tools: Tools) -> None:
    _found, is_sure = references(UNTOLD[name], tools)
    assert not is_sure


def test_a_variable_that_may_be_meant_or_not_is_refused(tools: Tools) -> None:
    """One that is known by who refers to it alone."""
    text = "extern int other(int);\nint function(int n) { static int count = 5; return other(count += n); }\n"
    tools.compiled("main", "int function(int);\nint main(void) { return function(1); }\n", "gcc", "-O2")
    new = tools.compiled("unit", text, "gcc", "-O2", *SECTIONS)
    assembly = ASSEMBLY.replace("BODY", UNTOLD["a page of one of two"]).replace("VARIABLES", VARIABLES)
    assembly = '.file "unit.c"\n' + assembly.replace("FIRST", "count.0").replace("other", "other_one")
    (tools.folder / "unit.s").write_text(assembly)
    subprocess.run([tools.gcc, "-c", "unit.s", "-o", "unit.o"], cwd=tools.folder, check=True)
    tools.compiled("other", "int other(int n) { return n; }\n", "gcc", "-O2")
    program = tools.linked(["unit", "other", "main"], "bfd")
    with pytest.raises(IpbpError) as caught:
        program.lifted(new)
    assert caught.value.code == "image-not-lifted"
    assert "'function'" in caught.value.fact
