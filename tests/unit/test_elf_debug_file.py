"""Symbols and debug information that were taken out of an image are found where distributions and builds keep them."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import pytest
from running_program import run

from ipbp.errors import IpbpError
from ipbp.formats.elf_image import read_image
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import SymbolType

SOURCE = "static int own = 4; int shared; static int twice(int n) { return n * 2 + own++; }\n"
MAIN = "int main(int argc, char **argv) { return twice(argc) + shared + (argv == 0); }\n"


def built(folder: Path, *flags: str, text: str = SOURCE + MAIN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "unit.c").write_text(text)
    run(["gcc", "-g", "-O1", "-fno-inline", "unit.c", "-o", "program", *flags], folder)
    return folder / "program"


def split(program: Path, debug: Path, *, link: bool = False) -> Path:
    """The program stripped, its symbols and debug information in `debug`; returns that."""
    debug.parent.mkdir(parents=True, exist_ok=True)
    run(["objcopy", "--only-keep-debug", str(program), str(debug)], program.parent)
    run(["strip", "-s", str(program)], program.parent)
    if link:
        run(["objcopy", f"--add-gnu-debuglink={debug}", str(program)], program.parent)
    return debug


def statics(image: LoadedImage) -> set[str]:
    return {name for name in ("own", "twice", "shared", "main") if image.symbols.by_name.get(name)}


def functions(image: LoadedImage) -> set[tuple[str, int]]:
    rows = (image.symbols.type == SymbolType.FUNCTION).nonzero()[0].tolist()
    return {(image.symbols.name[row], int(image.symbols.address[row])) for row in rows}


ALL = {"own", "twice", "shared", "main"}


@pytest.mark.parametrize("place", ["beside", ".debug/beside"])
@pytest.mark.parametrize("flags", [(), ("-Wl,--build-id=none",), ("-no-pie", "-static")])
def test_a_linked_debug_file_beside_the_image_is_used(flags: tuple[str, ...], place: str, tmp_path: Path) -> None:
    program = built(tmp_path, *flags)
    whole = read_image(str(program))
    debug = split(program, tmp_path / "beside", link=True)
    if debug != tmp_path / place:
        (tmp_path / ".debug").mkdir()
        debug = debug.rename(tmp_path / place)

    image = read_image(str(program))

    assert statics(image) == ALL
    assert functions(image) == functions(whole)
    assert image.symbols.files == whole.symbols.files
    assert image.debug_file == str(debug)
    assert whole.debug_file == str(program)


def test_the_debug_file_of_another_build_is_never_used(tmp_path: Path) -> None:
    program = built(tmp_path / "one")
    debug = split(program, tmp_path / "one/program.debug", link=True)
    other = built(tmp_path / "two", text="int more;\n" + SOURCE + MAIN)
    shutil.copy(split(other, tmp_path / "two/program.debug"), debug)

    image = read_image(str(program))

    assert statics(image) == set()
    assert image.debug_file == str(program)


def test_without_build_ids_the_checksum_decides(tmp_path: Path) -> None:
    program = built(tmp_path, "-Wl,--build-id=none")
    debug = split(program, tmp_path / "program.debug", link=True)
    assert statics(read_image(str(program))) == ALL

    debug.write_bytes(debug.read_bytes() + b"\0")
    assert statics(read_image(str(program))) == set()


@pytest.mark.parametrize("way", ["DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME", "HOME"])
def test_what_debuginfod_fetched_before_is_used(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = {"XDG_CACHE_HOME": "debuginfod_client", "HOME": ".cache/debuginfod_client"}.get(way, "")
    for name in ("DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(way, str(tmp_path / "cache"))
    program = built(tmp_path)
    build_id = read_image(str(program)).build_id
    debug = split(program, tmp_path / "cache" / folder / build_id / "debuginfo")

    image = read_image(str(program))

    assert statics(image) == ALL
    assert image.debug_file == str(debug)
    debug.write_bytes(b"")  # the server had none
    assert statics(read_image(str(program))) == set()


def test_a_debug_file_by_elfutils_is_as_good(tmp_path: Path) -> None:
    program = built(tmp_path)
    run(["eu-strip", "-f", "program.debug", "program"], tmp_path)

    image = read_image(str(program))

    assert statics(image) == ALL
    assert image.debug_file == str(tmp_path / "program.debug")


def test_a_stripped_image_that_kept_its_symbols_has_its_debug_information_elsewhere(tmp_path: Path) -> None:
    program = built(tmp_path)
    run(["objcopy", "--only-keep-debug", "program", "program.debug"], tmp_path)
    run(["objcopy", "--strip-debug", "--add-gnu-debuglink=program.debug", "program"], tmp_path)

    image = read_image(str(program))

    assert statics(image) == ALL
    assert image.debug_file == str(tmp_path / "program.debug")


def test_the_small_symbol_table_inside_an_image_adds_to_the_dynamic_one(tmp_path: Path) -> None:
    program = built(tmp_path, "-rdynamic")
    embed(program)

    image = read_image(str(program))

    assert statics(image) == {"twice", "main", "shared"}
    assert len(image.symbols.by_name["main"]) == 1
    names = [name for name in image.symbols.name if name in ("twice", "main")]
    assert len(names) == 2
    assert (image.symbols.address[1:] >= image.symbols.address[:-1]).all()


def embed(program: Path) -> None:
    """The gdb manual's recipe for MiniDebugInfo: functions that the dynamic table has not."""
    listed = "nm -D program --format=posix --defined-only | awk '{ print $1 }' | sort > dynamic"
    wanted = "nm program --format=posix --defined-only | awk '{ if ($2 ~ /[Tt]/) print $1 }' | sort > functions"
    for line in (listed, wanted, "comm -13 dynamic functions > keep"):
        run(["sh", "-c", line], program.parent)
    run(["objcopy", "--only-keep-debug", "program", "whole"], program.parent)
    run(["objcopy", "-S", "--remove-section=.comment", "--keep-symbols=keep", "whole", "small"], program.parent)
    (program.parent / "small.xz").write_bytes(lzma.compress((program.parent / "small").read_bytes()))
    run(["strip", "-s", "program"], program.parent)
    run(["objcopy", "--add-section", ".gnu_debugdata=small.xz", "program"], program.parent)


@pytest.mark.parametrize("damage", [b"no xz at all", lzma.compress(b"no ELF file"), lzma.compress(b"x" * 4096)[:50]])
def test_a_damaged_small_symbol_table_is_one_clear_error(damage: bytes, tmp_path: Path) -> None:
    program = built(tmp_path)
    run(["strip", "-s", "program"], tmp_path)
    (tmp_path / "damage").write_bytes(damage)
    run(["objcopy", "--add-section", ".gnu_debugdata=damage", "program"], tmp_path)
    with pytest.raises(IpbpError) as caught:
        read_image(str(program))
    assert caught.value.code == "image-malformed"
