"""Signatures of functions that were compiled, and debug information that leads nowhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ipbp.formats.elf_archive import read_unit
from ipbp.formats.signatures import SECTIONS, signatures
from ipbp.pipeline.layouts import sections_of_object

SOURCE = """
typedef unsigned size;
struct pair { int a, b; };
static int hidden(int x) { return x; }
size wide(const struct pair *p, size n, struct pair by_value, ...) { return n + p->a + by_value.b + hidden(1); }
void nothing(void) { for (int i = 0; i < 3; i++) { int inside = i; hidden(inside); } }
int (*chosen(int way))(int) { return way ? hidden : 0; }
"""


@pytest.fixture(scope="module", params=["gcc", "gcc -gdwarf-4", "clang", "clang -gdwarf-4"])
def sections(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("signatures")
    (folder / "unit.c").write_text(SOURCE)
    compiler, *flags = request.param.split()
    found = next(iter(sorted(Path("/usr/bin").glob(f"{compiler}-[0-9]*"), reverse=True)), Path(compiler))
    subprocess.run([found, "-g", *flags, "-O1", "-c", "unit.c"], cwd=folder, check=True)
    return sections_of_object(read_unit((folder / "unit.o").read_bytes(), "unit.o"), SECTIONS)


def test_what_functions_take_and_return_is_told(sections: dict[str, bytes]) -> None:
    assert signatures(sections, {"wide", "nothing", "chosen", "hidden", "missing"}, "unit.c") == {
        "wide": "unsigned int (struct pair *, unsigned int, struct pair of 8 bytes, ...)",
        "nothing": "void (void)",
        "chosen": "function * (int)",
    }
    assert signatures(sections, {"wide"}, "other.c") == {}


def test_damaged_debug_information_ends_in_no_signature(sections: dict[str, bytes]) -> None:
    content = sections[".debug_info"]
    for place in range(0, len(content) - 4, 3):
        for octets in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x0b\0\0\0"):
            damaged = content[:place] + octets + content[place + 4 :]
            signatures({**sections, ".debug_info": damaged}, {"wide", "nothing"})  # and it ends
    for size in range(0, len(content), 7):
        signatures({**sections, ".debug_info": content[:size]}, {"wide"})


CLASSES = """
namespace space {
struct Pair { int a; Pair *next(int x); template <class T> T as(T x) { return x + a; } };
double global(const Pair &pair) { return pair.a; }
static int hidden(int x) { return x; }
Pair *Pair::next(int x) { return hidden(x) && as(x) ? this : nullptr; }
}
"""


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_what_functions_of_classes_and_namespaces_return_is_told(compiler: str, level: str, tmp_path: Path) -> None:
    (tmp_path / "unit.cc").write_text(CLASSES)
    subprocess.run([compiler, "-g", level, "-c", "unit.cc"], cwd=tmp_path, check=True)
    sections = sections_of_object(read_unit((tmp_path / "unit.o").read_bytes(), "unit.o"), SECTIONS)
    names = {"_ZN5space6globalERKNS_4PairE", "_ZN5space4Pair4nextEi"}
    found = signatures(sections, names, shared=False)
    assert {name: text.partition(" (")[0] for name, text in found.items()} == {
        "_ZN5space6globalERKNS_4PairE": "double",
        "_ZN5space4Pair4nextEi": "struct Pair *",
    }
    assert signatures(sections, names) == {}
