"""Images of a process: which file it is, where its things are, and what a name means in it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from running_program import WAIT, Running, build, not_yet_running, run, running

from ipbp.errors import IpbpError
from ipbp.formats.elf_dynamic import read_dynamic
from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_linked import map_file, read_linked
from ipbp.formats.elf_process import read_process
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import Binding, BlockKind, SymbolType

MAIN = (
    WAIT.replace("puts", "(void)!printf")
    + r"""
#include <string.h>
#include <stdlib.h>
__thread long per_thread = 5; int visible = 4; static int own = 9; FILE *volatile out;
int length(const char *s) { return (int)strlen(s); }
int main(int argc, char **argv) { own += argc; out = stdout; (void)length(argv[0]); printf("%d\n", own); abs(own);
  printf("ready\n"); fflush(stdout); char c; return (int)read(0, &c, 1); }
"""
)


def address_of(library: str, name: str) -> int:
    """The offset of a name in a library that this very process has loaded too."""
    handle = ctypes.CDLL(library)
    return ctypes.cast(getattr(handle, name), ctypes.c_void_p).value or 0


@pytest.mark.parametrize(("compiler", "kind"), list(itertools.product(["gcc", "clang"], ["-pie", "-no-pie"])))
def test_names_of_libraries_mean_what_the_loader_bound(
    compiler: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    code = "-fPIE" if kind == "-pie" else "-fno-pie"
    cc = request.getfixturevalue(compiler)
    program, _objects = build(tmp_path, {"main": MAIN}, "-O1", code, "-fno-builtin", cc=cc, link=[kind])
    with running(program) as process:
        loaded = process.process()
        libc = next(image for image in loaded.images() if "libc.so" in image.path)
        image = loaded.executable_image()
        printf, strlen, stdout = (loaded.lookup(name) for name in ("printf", "strlen", "stdout"))
        assert printf is not None
        assert strlen is not None
        assert stdout is not None
        assert printf.is_function
        assert printf.address - libc.bias == address_of("libc.so.6", "printf") - _own_libc_bias()
        assert not strlen.indirect  # the loader's choice, the same on this machine
        assert strlen.address - libc.bias == address_of("libc.so.6", "strlen") - _own_libc_bias()
        assert not stdout.is_function
        copied = image.copied.get("stdout")
        assert stdout.address == copied or copied is None
        pointer = int.from_bytes(process.read([(stdout.address, 8)])[0] or b"", "little")
        out = int(image.symbols.address[image.symbols.by_name["out"][0]])
        assert process.read([(out, 8)])[0] == pointer.to_bytes(8, "little")  # the very variable that main read
        assert loaded.lookup("no_such_name_anywhere") is None
        assert loaded.lookup("main") is None or kind == "-no-pie"
        new = loaded.lookup("strcasestr")  # never imported by the program
        assert new is not None
        assert new.indirect or new.is_function
        errno = loaded.lookup("errno")
        assert errno is not None
        assert errno.thread_local


def _own_libc_bias() -> int:
    rows = [row.split() for row in Path("/proc/self/maps").read_text().splitlines()]
    code = next(row for row in rows if row[1] == "r-xp" and row[-1].endswith("libc.so.6"))
    return int(code[0].split("-")[0], 16) - int(code[2], 16)


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_every_linker_s_images_are_found_where_they_are(linker: str, clang: str, tmp_path: Path) -> None:
    (tmp_path / "extra.c").write_text("int counter; int from_extra(int n) { return n + counter++; }\n")
    link = f"-fuse-ld={linker}"
    run([clang, "-shared", "-fPIC", "extra.c", link, "-o", "libextra.so"], tmp_path)
    main = MAIN.replace("own += argc", "extern int from_extra(int); own += from_extra(argc)")
    words = [link, f"-L{tmp_path}", "-lextra", f"-Wl,-rpath,{tmp_path}"]
    program = tmp_path / "program"
    (tmp_path / "main.c").write_text(main)
    run([clang, "-O1", "main.c", *words, "-o", str(program)], tmp_path)
    with running(program) as process:
        images = {Path(image.path).name: image for image in process.process().images()}
        for name, function in (("program", "length"), ("libextra.so", "from_extra")):
            image = images[name]
            (address,) = _places(image, function)
            assert process.read([(address, 9)])[0] == image.original(address, 9)
            assert any(
                image.start <= region.start < image.end for region in process.regions() if "w" in region.protection
            )
        places = {name: address for address, name in images["program"].stubs.items()}
        assert {"read", "from_extra"} <= places.keys()
        if linker == "mold":  # it names its stubs, too
            assert {places["read"]} == _places(images["program"], "read$plt")
        assert list(images).index("libextra.so") < list(images).index("libc.so.6")  # its dynamic section was found


@pytest.mark.parametrize("linker", ["bfd", "lld"])
@pytest.mark.parametrize("packing", [[], ["-Wl,-z,pack-relative-relocs"]], ids=["plain", "packed"])
def test_pointers_of_an_image_are_known_as_the_loader_makes_them(
    packing: list[str], linker: str, clang: str, tmp_path: Path
) -> None:
    tables = "char *const words[] = {%s}; int (*const steps[])(const char *) = {length, length, 0, length};\n"
    main = MAIN.replace("int main(", tables % ", ".join(f'"word {n}"' for n in range(200)) + "int main(", 1)
    words = [f"-fuse-ld={linker}", *packing]
    program, _objects = build(tmp_path, {"main": main}, "-O1", "-fPIE", cc=clang, link=["-pie", *words])
    with running(program) as process:
        image = process.image()
        for name in ("words", "steps"):
            (row,) = image.symbols.by_name[name]
            address, size = int(image.symbols.address[row]), int(image.symbols.size[row])
            assert process.read([(address, size)])[0] == image.original(address, size)
    if packing:
        assert len(read_dynamic(read_linked(map_file(str(program)), "program")).packed) > 100


@pytest.mark.parametrize("kind", ["-static", "-static-pie"])
def test_a_static_program_has_no_link_map_and_its_own_symbols(kind: str, gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN}, "-fPIE", "-fno-builtin", cc=gcc, link=[kind])
    with running(program) as process:
        loaded = process.process()
        image = loaded.executable_image()
        assert loaded.is_linked == (kind == "-static-pie")  # its start code fills in what debuggers look for
        assert loaded.lookup("printf") is None
        (row,) = image.symbols.by_name["printf"]
        content = process.read([(int(image.symbols.address[row]), 4)])[0]
        assert content == image.original(int(image.symbols.address[row]), 4)
        named = {address for name in image.stubs.values() for address in _places(image, name)}
        assert not named.isdisjoint(_places(image, "strlen"))  # the stub of the indirect function, by one of its names


def _places(image: LoadedImage, name: str) -> set[int]:
    return {int(image.symbols.address[row]) for row in image.symbols.by_name.get(name, ())}


def test_before_the_loader_has_run_there_is_no_list_and_no_choice(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN}, "-fno-builtin", cc=gcc)
    with not_yet_running(program) as process:
        loaded = process.process()
        assert not loaded.is_linked
        assert next(image.path for image in loaded.images()) == str(program)
        assert any("ld-linux" in image.path for image in loaded.images())
        (own,) = _places(loaded.executable_image(), "own")
        assert process.read([(own, 4)])[0] == bytes([9, 0, 0, 0])


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_the_file_that_runs_is_opened_though_its_path_leads_elsewhere(fate: str, gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN}, "-fno-builtin", cc=gcc)
    want = read_image(str(program)).symbols
    with running(program) as process:
        program.unlink()
        if fate == "replaced":
            shutil.copy("/bin/true", program)
        image = process.image()
        assert list(image.symbols.name) == list(want.name)
        assert image.path == str(program)
        assert image.file != str(program)


def test_an_image_whose_file_is_lost_is_read_from_memory(gcc: str, tmp_path: Path) -> None:
    library = tmp_path / "libextra.so"
    (tmp_path / "extra.c").write_text("int from_extra(int n) { return n + 40; }\n")
    run([gcc, "-shared", "-fPIC", "extra.c", "-o", str(library)], tmp_path)
    main = MAIN.replace("own += argc", "extern int from_extra(int); own += from_extra(argc)")
    link = [f"-L{tmp_path}", "-lextra", f"-Wl,-rpath,{tmp_path}", "-Wl,--no-as-needed"]
    objects = tmp_path / "main.c"
    objects.write_text(main)
    program = tmp_path / "program"
    run([gcc, "-fno-builtin", "main.c", *link, "-o", str(program)], tmp_path)
    with running(program) as process:
        before = process.process().lookup("from_extra")
        regions = [
            replace(region, inode=region.inode + (1 << 40)) if "extra" in region.path else region
            for region in process.regions()
        ]
        library.unlink()
        loaded = read_process(process.pid, regions, str(program), process.read)
        after = loaded.lookup("from_extra")
        assert before is not None
        assert after == before


def test_a_process_whose_main_thread_is_gone_is_read_through_another_thread(gcc: str, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(r"""
    #include <pthread.h>
    #include <stdio.h>
    #include <unistd.h>
    static void *wait_here(void *main_thread) { char c; pthread_join(*(pthread_t *)main_thread, 0); puts("ready");
      fflush(stdout); return (void *)read(0, &c, 1); }
    int main(void) { static pthread_t own, t; own = pthread_self(); pthread_create(&t, 0, wait_here, &own);
      pthread_exit(0); }
    """)
    program = tmp_path / "program"
    run([gcc, "main.c", "-pthread", "-o", str(program)], tmp_path)
    with running(program) as process:
        thread = max(int(name) for name in os.listdir(f"/proc/{process.pid}/task"))
        alive = Running(thread, program)
        loaded = read_process(process.pid, alive.regions(), str(program), alive.read)
        assert loaded.is_linked
        assert loaded.executable_image().symbols.by_name["main"]


def test_sections_stubs_and_thread_local_places_of_an_image(gcc: str, tmp_path: Path) -> None:
    for number, flags in enumerate((["-fcf-protection=none"], ["-fcf-protection=full"])):
        program, _objects = build(tmp_path / str(number), {"main": MAIN}, "-O1", "-fno-builtin", *flags, cc=gcc)
        image = read_image(str(program), 0x10000)
        assert {"printf", "strlen", "read"} <= set(image.stubs.values())
        listing = subprocess.run(["objdump", "-d", str(program)], capture_output=True, text=True, check=True).stdout
        for address, name in image.stubs.items():
            label = f"{address - 0x10000:016x} <{name}@plt>:"
            assert label in listing or f"<{name}@plt>:" not in listing
        kinds = {part.name: part.kind for part in image.parts}
        assert kinds[".text"] == BlockKind.CODE
        assert kinds[".bss"] == BlockKind.BSS
        assert kinds[".tdata"] == BlockKind.TLS_DATA
        (row,) = image.symbols.by_name["per_thread"]
        assert image.symbols.type[row] == SymbolType.TLS
        assert image.original(int(image.symbols.address[row]), 8) == (5).to_bytes(8, "little")
        (row,) = image.symbols.by_name["own"]
        assert image.symbols.binding[row] == Binding.LOCAL
        assert image.symbols.files[image.symbols.file[row]] == "main.c"
        assert image.build_id


@pytest.mark.parametrize("damage", ["empty", "text", "header", "segments", "sections", "other machine", "32 bit"])
def test_a_damaged_file_is_one_clear_error(damage: str, gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN}, "-fno-builtin", cc=gcc)
    content = bytearray(program.read_bytes())
    damaged = {
        "empty": b"",
        "text": b"#!/bin/sh\n" * 20,
        "header": content[:48],
        "segments": content[:32] + (1 << 40).to_bytes(8, "little") + content[40:],
        "sections": content[:40] + (1 << 40).to_bytes(8, "little") + content[48:],
        "other machine": content[:18] + b"\x28\0" + content[20:],
        "32 bit": content[:4] + b"\1" + content[5:],
    }[damage]
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    with pytest.raises(IpbpError) as caught:
        read_image(str(path))
    assert caught.value.code in {"image-malformed", "image-wrong-architecture", "image-unreadable"}


def test_a_truncated_or_scribbled_file_never_ends_in_another_error(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN}, "-fno-builtin", cc=gcc)
    content = program.read_bytes()
    path = tmp_path / "damaged"
    for size in range(64, len(content), 397):
        path.write_bytes(content[:size])
        _reads_or_refuses(path)
    for place in range(16, 1024, 7):
        path.write_bytes(content[:place] + b"\xff\x7f\xff" + content[place + 3 :])
        _reads_or_refuses(path)
    for place in range(0, len(content) - 3, 211):
        path.write_bytes(content[:place] + b"\xff\x7f\xff" + content[place + 3 :])
        _reads_or_refuses(path)


def _reads_or_refuses(path: Path) -> None:
    with contextlib.suppress(IpbpError):
        read_image(str(path))
