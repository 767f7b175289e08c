"""Which installed library defines a name that new code needs."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from ipbp.formats.elf_image import map_file
from ipbp.formats.elf_library_search import libraries_with
from ipbp.formats.elf_linked import read_linked


def library(folder: Path, name: str, source: str, compiler: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{name}", "-o", str(folder / name)]
    subprocess.run(command, input=source.encode(), check=True)


def cache(root: Path, rows: dict[str, str]) -> None:
    """/etc/ld.so.cache as ldconfig writes it."""
    strings, entries = b"", b""
    start = 48 + 24 * len(rows)
    for name, path in rows.items():
        places = []
        for text in (name, path):
            places.append(start + len(strings))
            strings += text.encode() + b"\0"
        entries += struct.pack("<iIIIQ", 0x0303, *places, 0, 0)
    header = b"glibc-ld.so.cache1.1" + struct.pack("<IIBxxxIIII", len(rows), len(strings), 2, 0, 0, 0, 0)
    (root / "etc").mkdir()
    (root / "etc/ld.so.cache").write_bytes(header + entries + strings)


def test_it_is_found_in_the_cache_and_in_the_program_s_folders(gcc: str, tmp_path: Path) -> None:
    library(tmp_path / "lib", "libwhole.so.1", "int wanted(void) { return 1; } char large[9];", gcc)
    library(tmp_path / "lib", "libuser.so.2", "int wanted(void); int other(void) { return wanted(); }", gcc)
    library(tmp_path / "own", "libown.so", "int mine(void) { return 2; }", gcc)
    rows = {"libwhole.so.1": "/lib/libwhole.so.1", "libuser.so.2": "/lib/libuser.so.2", "libgone.so": "/lib/libgone.so"}
    cache(tmp_path, rows)
    program = tmp_path / "bin" / "program"
    program.parent.mkdir()
    command = [gcc, "-x", "c", "-", "-Wl,-rpath,/own:/nowhere", "-o", str(program)]
    subprocess.run(command, input=b"int main(void) { return 0; }", check=True)
    linked = read_linked(map_file(str(program)), str(program))
    assert libraries_with("wanted", linked, tmp_path) == ["libwhole.so.1"]
    assert libraries_with("mine", linked, tmp_path) == ["libown.so"]
    assert libraries_with("nothing_of_this_name", linked, tmp_path) == []
