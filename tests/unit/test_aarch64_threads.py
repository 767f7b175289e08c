"""AArch64: accesses of thread-local variables get the form that a linker gives them which knows the offset."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from patch_maker import graph_of

from ipbp.graph.edges import EdgeKind
from ipbp.pipeline.link import link

CODE = """
extern __thread int outside; extern __thread long far_in[4000]; extern __thread short mine;
int take(void) { return outside; }
void give(int n) { outside = n; mine += n; }
long *place(int n) { return &far_in[n]; }
"""
MAIN = """
__thread long far_in[4000]; __thread int outside = 4; __thread short mine = 3;
int take(void); void give(int); long *place(int);
int main(int c, char **v) { give(c); return take() + (int)*place(c); }
"""


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("-fPIC", EdgeKind.TLSDESC_CALL),
        ("-fPIE", EdgeKind.GOT_TP_PAGE21),
        ("-ftls-model=local-exec", EdgeKind.TP_HIGH12),
    ],
)
def test_an_access_is_written_as_ld_writes_it(option: str, kind: EdgeKind, aarch64: str, tmp_path: Path) -> None:
    for name, text in (("unit", CODE), ("main", MAIN)):
        (tmp_path / f"{name}.c").write_text(text)
    command = [aarch64, "-O2", option, "-c", "unit.c", "-o", "unit.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([aarch64, "-static", "main.c", "unit.o", "-o", "program"], cwd=tmp_path, check=True)
    graph = graph_of(tmp_path / "unit.o")
    assert kind in set(graph.edges.kind.tolist())
    link([graph], tmp_path / "program", tmp_path / "patch.elf", None, {})
    assert _code(tmp_path / "patch.elf") == _code(tmp_path / "program")


def _code(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        elf = ELFFile(file)
        found = {}
        for name in ("take", "give", "place"):
            (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name(name)
            section = elf.get_section(symbol["st_shndx"])
            at = symbol["st_value"] - section["sh_addr"]
            found[name] = section.data()[at : at + symbol["st_size"]]
        return found
