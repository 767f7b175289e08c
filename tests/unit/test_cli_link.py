"""`ipbp link`: what binutils see in the result, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from running_program import build, compile_object

from ipbp.cli import main

PROGRAM = r"""
#include <stdio.h>
int state = 3; static int hidden; __attribute__((noinline)) int own(int x) { return x + hidden++; }
int main(void) { printf("%d\n", own(state)); return puts("end"); }
"""
EDITED = r"""
#include <stdio.h>
extern int state; extern int own(int); static int fresh = 9; int zeros[100]; extern int nobody __attribute__((weak));
int edited(int x) { printf("hello %d\n", x); return own(x) + state + fresh++ + zeros[x] + (&nobody != 0); }
"""
KINDS = {"pie": (["-fPIE"], ["-pie"]), "fixed": (["-fno-pie"], ["-no-pie"])}


@pytest.fixture(params=KINDS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A linked program and a new object for it."""
    flags, link = KINDS[request.param]
    path, _objects = build(tmp_path, {"main": PROGRAM}, "-O2", *flags, link=link)
    return path, compile_object(tmp_path, "edited", EDITED, "-O2", "-g", *flags)


def ipbp_link(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    status = main.main(["link", *map(str, words)])
    return status, capsys.readouterr().out


def symbols(path: Path) -> dict[str, int]:
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {row.name: row["st_value"] for row in table.iter_symbols() if row.name}


def calls(path: Path, function: str) -> list[int]:
    """Where the calls of a function go, as objdump has it."""
    listing = subprocess.run(
        ["objdump", "-d", f"--disassemble={function}", path], check=True, capture_output=True, text=True
    ).stdout
    return [int(address, 16) for address in re.findall(r"\tcall +([0-9a-f]+)", listing)]


def test_names_mean_what_the_program_has(
    program: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image, new = program
    output = tmp_path / "patch.elf"
    status, said = ipbp_link(capsys, new, "--image", image, "-o", output, "--json")
    assert status == 0
    summary = json.loads(said)
    assert (summary["outcome"], summary["refusals"]) == ("linked", [])
    stub = next(target for target in calls(image, "main") if target != symbols(image)["own"])
    assert calls(output, "edited") == [stub, symbols(image)["own"]]
    blocks = {row["name"]: row for row in summary["blocks"]}
    assert {name: blocks[name]["kind"] for name in ("edited", "fresh", "zeros")} == {
        "edited": "code",
        "fresh": "data",
        "zeros": "bss",
    }
    assert all(symbols(output)[name] == blocks[name]["address"] for name in ("edited", "fresh", "zeros"))
    loads = subprocess.run(["readelf", "-lW", output], check=True, capture_output=True, text=True).stdout
    assert [row.split()[6:-1] for row in loads.splitlines() if "LOAD" in row] == [["R", "E"], ["R"], ["RW"]]


def test_the_base_is_the_one_that_was_asked_for_and_far_names_get_stubs(
    program: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image, _new = program
    new = compile_object(tmp_path, "far", "int far(int); int f(int x) { return far(x) + 1; }", "-O2", "-fPIC")
    words = [new, "--image", image, "-o", tmp_path / "p", "--base", "0x10000000", "--define", "far=0x7ffff7e01000"]
    assert ipbp_link(capsys, *words)[0] == 0
    assert symbols(tmp_path / "p")["f"] == 0x1000_0000
    assert calls(tmp_path / "p", "f") == [symbols(tmp_path / "p")["stub$far"]]
    _status, said = ipbp_link(capsys, *words)
    assert re.search(r"0x10000000 .* code +f  \(.*far.o\)", said)
    assert re.search(r"cell +far = 0x7ffff7e01000", said)


def test_every_refusal_is_said_and_no_file_is_written(
    program: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image, _new = program
    source = "int nowhere(int), twice(int); int f(int x) { return nowhere(x) + twice(x); } int g(void) { return f(1); }"
    one = compile_object(tmp_path, "one", source, "-O2", "-fPIC")
    words = [one, "--image", image, "-o", tmp_path / "p", "--define", "g=0x1000"]
    status, said = ipbp_link(capsys, *words, "--json")
    assert status == 3
    found = {(row["code"], row["symbol"]) for row in json.loads(said)["refusals"]}
    assert found == {("undefined-symbol", "nowhere"), ("undefined-symbol", "twice"), ("duplicate-symbol", "g")}
    status, said = ipbp_link(capsys, *words)
    assert status == 3
    assert said.startswith("not linked:")
    assert said.count("[undefined-symbol]") == 2
    assert not (tmp_path / "p").exists()


def test_one_name_in_two_objects_is_refused(
    program: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    objects = [compile_object(tmp_path, name, "int f(int x) { return x; }") for name in ("one", "two")]
    status, said = ipbp_link(capsys, *objects, "--image", program[0], "-o", tmp_path / "p")
    assert status == 3
    assert "[duplicate-symbol]" in said


@pytest.mark.parametrize(
    "words", [["--base", "0x1001"], ["--base", "-4096"], ["--define", "f"], ["--define", "=1"], ["--define", "f=x"]]
)
def test_words_that_make_no_sense_are_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(["link", "new.o", "--image", "exe", "-o", "p", *words])
    assert stop.value.code == 2


def test_what_cannot_be_read_or_written_is_one_error(
    program: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image, new = program
    for words, code in (
        ([tmp_path / "none.o", "--image", image, "-o", tmp_path / "p"], "object-unreadable"),
        ([new, "--image", tmp_path / "none", "-o", tmp_path / "p"], "image-unreadable"),
        ([new, "--image", image, "-o", tmp_path / "none" / "p"], "output-unwritable"),
    ):
        status, said = ipbp_link(capsys, *words, "--json")
        assert status == 1
        assert json.loads(said)["error"]["code"] == code


def test_a_programs_thread_locals_are_reached_and_new_ones_need_a_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main_text = "__thread int seen = 3; __thread int pad[5]; int main(void) { return seen + pad[1]; }"
    image, _objects = build(tmp_path, {"main": main_text}, "-O2")
    source = "extern __thread int seen; int f(void) { return seen; }"
    for number, flags in enumerate((["-fPIE"], ["-fPIC"], ["-fPIC", "-ftls-model=initial-exec"])):
        new, output = compile_object(tmp_path, f"new{number}", source, "-O2", *flags), tmp_path / "p"
        assert ipbp_link(capsys, new, "--image", image, "-o", output)[0] == 0
        code = subprocess.run(["objdump", "-d", output], check=True, capture_output=True, text=True).stdout
        ((immediate, displacement),) = re.findall(r"0x(f{8}[0-9a-f]{8})|-0x([0-9a-f]+)\(%r", code)
        offset = int(immediate, 16) - (1 << 64) if immediate else -int(displacement, 16)
        with image.open("rb") as stream:
            (block,) = [row for row in ELFFile(stream).iter_segments() if row["p_type"] == "PT_TLS"]
        # The block ends at the thread pointer, aligned (psABI, TLS variant II).
        size = -(-block["p_memsz"] // block["p_align"]) * block["p_align"]
        assert offset == symbols(image)["seen"] - size
    new = compile_object(tmp_path, "fresh", "__thread int fresh; int f(void) { return fresh; }", "-O2", "-fPIE")
    status, said = ipbp_link(capsys, new, "--image", image, "-o", tmp_path / "p")
    assert status == 3
    assert "[new-thread-local]" in said
