"""What jumps into the first bytes of a function: other functions, and tables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from ipbp.formats.elf_object import read_object
from ipbp.stages.entry_targets import entry_targets

F = """
.globl f, g
.type f, @function
.type g, @function
f: push %rbp
   mov %rsp, %rbp
   nop
   pop %rbp
   ret
.size f, . - f
"""
TABLE = ".section .rodata\n.align 8\ntable:\n"


def targets(folder: Path, text: str) -> tuple[int, ...]:
    (folder / "f.s").write_text(text)
    subprocess.run(["gcc", "-c", "f.s", "-o", "f.o"], cwd=folder, check=True)
    graph = read_object((folder / "f.o").read_bytes(), "f.o")
    block = int(graph.symbols.block[graph.symbols.name.index("f")])
    return entry_targets(graph, np.array([block], dtype=np.int32)).get(block, ())


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("g: jmp f\n.size g, . - g", ()),
        ("g: jmp f + 1\n.size g, . - g", (1,)),
        ("g: test %eax, %eax\njz f + 4\nret\n.size g, . - g", (4,)),
        (".fill 300, 1, 0x90\ng: jmp f + 2\n.size g, . - g", (2,)),
        (".section .text.g\ng: jmp f + 3\n.size g, . - g", (3,)),
        ("g: ret\n.size g, . - g\n" + TABLE + ".quad f + 4, f + 40", (4,)),
        ("g: ret\n.size g, . - g\n" + TABLE + ".long 0, f + 1 - table, f + 30 - table", (1,)),
        ("g: lea f + 1(%rip), %rax\nret\n.size g, . - g", (1,)),
    ],
)
def test_branches_and_tables_into_the_first_bytes_are_found(tmp_path: Path, rest: str, found: tuple[int, ...]) -> None:
    assert targets(tmp_path, F + rest + "\n") == found


def test_a_loop_of_its_own_is_not_told_here(tmp_path: Path) -> None:
    assert targets(tmp_path, F.replace("nop", "jnz f + 1") + "g: ret\n.size g, . - g\n") == ()
