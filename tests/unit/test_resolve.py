"""Every outside name of a patch gets one address or one refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running_program import WAIT, Running, build, compile_object, graph_of, run, running

from ipbp.errors import Refusal
from ipbp.graph.model import UNDEFINED
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.resolve import Defined, resolve

MAIN = (
    WAIT
    + r"""
#include <string.h>
int shared = 3; __attribute__((visibility("hidden"))) int hidden_one = 4; static int private_one = 5;
int own(int n) { private_one += n; return hidden_one; }
int main(int argc, char **argv) { printf("%d\n", own(argc)); ready_and_wait(); return (int)strlen(argv[0]); }
"""
)
OTHER = "static int own_static(int n) { return n; }\nint (*keep)(int) = own_static;\n"


def unit_of(path: Path, name: str = "new.c", image: str = "") -> Unit:
    """All of an object carried, nothing bound; a part of the executable unless an image's key is given."""
    graph = graph_of(path)
    unbound = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    return Unit(name, graph, np.arange(len(graph.blocks), dtype=np.int32), unbound, unbound.copy(), image)


def resolved(process: Running, *units: Unit) -> tuple[list[dict[str, int]], tuple[Refusal, ...], list[Unit]]:
    """Addresses of undefined symbols by name, for each unit."""
    loaded = process.process()
    main = loaded.modules[0].key
    homed = [replace(unit, image=unit.image or main) for unit in units]
    result, refusals = resolve(homed, {unit.image: loaded.scope(unit.image) for unit in homed})
    tables = []
    for unit in result:
        symbols = unit.graph.symbols
        rows = np.flatnonzero(symbols.block == UNDEFINED).tolist()
        tables.append({symbols.name[row]: int(unit.address[row]) for row in rows})
    return tables, refusals, result


@pytest.mark.parametrize("kind", ["-pie", "-no-pie", "-static"])
def test_names_of_the_program_and_of_its_libraries_get_addresses(kind: str, gcc: str, tmp_path: Path) -> None:
    code = "-fPIE" if kind == "-pie" else "-fno-pie"
    program, _objects = build(tmp_path, {"main": MAIN, "other": OTHER}, "-O1", code, cc=gcc, link=[kind])
    text = """
    #include <stdio.h>
    #include <string.h>
    extern int shared, hidden_one, own(int); extern int absent(void) __attribute__((weak));
    int fresh(int n) { printf("%d", own(n)); shared += hidden_one; return absent ? absent() : (int)strlen("x" + n); }
    """
    new = unit_of(compile_object(tmp_path, "new", text, "-O1", code, "-fno-builtin", cc=gcc))
    with running(program) as process:
        (table,), refusals, units = resolved(process, new)
        assert refusals == ()
        image, loaded = process.image(), process.process()
        for name in ("own", "shared", "hidden_one"):
            (row,) = image.symbols.by_name[name]
            assert table[name] == int(image.symbols.address[row])
        assert table["absent"] == 0
        if kind != "-static":
            printf = loaded.lookup("printf")
            assert printf is not None
            assert table["printf"] == printf.address
        strlen = units[0].graph.symbols.name.index("strlen")
        assert (units[0].address[strlen] != UNBOUND) != (units[0].resolver[strlen] != UNBOUND)
        assert new.address.max() == UNBOUND  # the unit that was given is as it was


@pytest.mark.parametrize("linker", ["-fuse-ld=bfd", "-fuse-ld=lld"])
def test_a_hidden_global_is_found_however_the_linker_writes_it(linker: str, clang: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN, "other": OTHER}, "-O1", cc=clang, link=[linker])
    text = "extern int hidden_one, private_one; int fresh(void) { return hidden_one + private_one; }"
    new = unit_of(compile_object(tmp_path, "new", text, "-O1", cc=clang))
    with running(program) as process:
        (table,), refusals, _units = resolved(process, new)
        (row,) = process.image().symbols.by_name["hidden_one"]
        assert table["hidden_one"] == int(process.image().symbols.address[row])
    assert [refusal.symbol for refusal in refusals] == ["private_one"]  # another file's static is not meant


def test_all_names_that_nobody_has_are_refused_together(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN, "other": OTHER}, cc=gcc)
    text = "extern int nowhere(int), never; extern int own_static(int), private_one;\n"
    text += "int fresh(int n) { return nowhere(n) + never + own_static(n) + private_one; }\n"
    new = unit_of(compile_object(tmp_path, "new", text, cc=gcc))
    with running(program) as process:
        (table,), refusals, _units = resolved(process, new)
    # The last two exist, but as statics of other files.
    assert {refusal.symbol for refusal in refusals} == {"nowhere", "never", "own_static", "private_one"}
    assert {refusal.code for refusal in refusals} == {"undefined-symbol"}
    assert table["nowhere"] == UNBOUND


def test_what_another_unit_of_the_patch_brings_is_left_to_layout(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN}, cc=gcc)
    user = unit_of(
        compile_object(tmp_path, "user", "int brought(int);\nint use(int n) { return brought(n); }\n", cc=gcc)
    )
    giver = unit_of(compile_object(tmp_path, "giver", "int brought(int n) { return n * 2; }\n", cc=gcc))
    with running(program) as process:
        tables, refusals, _units = resolved(process, user, giver)
    assert refusals == ()
    assert tables[0]["brought"] == UNBOUND


def test_only_what_carried_blocks_use_is_looked_for(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN}, cc=gcc)
    text = "int nowhere(void);\nint idle(void) { return nowhere(); }\nint fresh(int n) { return n; }\n"
    new = unit_of(compile_object(tmp_path, "new", text, "-ffunction-sections", cc=gcc))
    fresh = new.graph.symbols.name.index("fresh")
    carried = np.array([new.graph.symbols.block[fresh]], dtype=np.int32)
    with running(program) as process:
        _tables, refusals, _units = resolved(process, replace(new, carried=carried))
    assert refusals == ()


def test_a_function_that_the_loader_did_not_choose_yet_has_a_resolver(gcc: str, tmp_path: Path) -> None:
    (tmp_path / "extra.c").write_text(
        "static int one(void) { return 1; } static void *choose(void) { return (void *)one; }\n"
        'int chosen(void) __attribute__((ifunc("choose")));\n'
    )
    run([gcc, "-shared", "-fPIC", "extra.c", "-o", "libextra.so"], tmp_path)
    link = [f"-Wl,--no-as-needed,-rpath,{tmp_path}", f"-L{tmp_path}", "-lextra"]
    program, _objects = build(tmp_path, {"main": MAIN}, cc=gcc, link=link)
    new = unit_of(compile_object(tmp_path, "new", "int chosen(void);\nint fresh(void) { return chosen(); }\n", cc=gcc))
    with running(program) as process:
        _tables, refusals, (unit,) = resolved(process, new)
        row = unit.graph.symbols.name.index("chosen")
        assert refusals == ()
        assert unit.address[row] == UNBOUND
        extra = next(image for image in process.process().images() if "libextra" in image.path)
        (choose,) = extra.symbols.by_name["choose"]
        assert unit.resolver[row] == int(extra.symbols.address[choose])


def test_a_name_that_an_edited_object_defines_comes_before_the_libraries(gcc: str, tmp_path: Path) -> None:
    program, _objects = build(tmp_path, {"main": MAIN, "other": OTHER}, "-O1", "-fPIE", cc=gcc)
    text = (
        "extern int own_static(int), own(int), toupper(int); int fresh(int n) { return own_static(own(toupper(n))); }"
    )
    new = unit_of(compile_object(tmp_path, "new", text, "-O1", "-fPIE", "-fno-builtin", cc=gcc))
    with running(program) as process:
        loaded = process.process()
        image = loaded.executable_image()
        defined = {"own_static": 0x1000, "toupper": 0x2000, "own": 0x3000}
        edited = {image.key: {name: Defined(address, True) for name, address in defined.items()}}
        home = replace(new, image=image.key)
        (unit,), refusals = resolve([home], {image.key: loaded.scope(image.key)}, edited)
        symbols = unit.graph.symbols
        found = {name: int(unit.address[symbols.name.index(name)]) for name in defined}
        own = int(image.symbols.address[image.symbols.by_name["own"][0]])
        edited[image.key]["own"] = Defined(0x3000, True, is_beside=True)
        (again,), _ = resolve([home], {image.key: loaded.scope(image.key)}, edited)
    assert refusals == ()
    assert found == {"own_static": 0x1000, "toupper": 0x2000, "own": own}
    assert int(again.address[symbols.name.index("own")]) == 0x3000, "what the image has is another function"


@pytest.mark.parametrize("link", [["-fuse-ld=mold"], ["-fuse-ld=mold", "-static"]], ids=["mold", "mold static"])
def test_global_names_that_the_linker_hid_are_found_or_refused_with_their_rivals(
    link: list[str], gcc: str, tmp_path: Path
) -> None:
    other = OTHER + "__attribute__((noinline)) static int getpid(int n) { return n; }\n"
    other += "int only_here(int n) { return getpid(n); } int somewhere = 3;\n"
    program, _objects = build(tmp_path, {"main": MAIN, "other": other}, "-O1", "-fno-builtin", cc=gcc, link=link)
    text = """
    extern int only_here(int), getpid(int), absent(int), somewhere;
    int fresh(int n) { return only_here(n) + getpid(n) + absent(n) + somewhere; }
    """
    new = unit_of(compile_object(tmp_path, "new", text, "-O1", cc=gcc))
    with running(program) as process:
        image = process.image()
        (table,), refusals, _units = resolved(process, new)
        for name in ("only_here", "somewhere"):
            (row,) = image.symbols.by_name[name]
            assert table[name] == image.symbols.address[row]
        codes = {refusal.symbol: refusal.code for refusal in refusals}
        assert codes == {"getpid": "symbol-ambiguous", "absent": "undefined-symbol"}
        (fact,) = (refusal.fact for refusal in refusals if refusal.symbol == "getpid")
        for row in image.symbols.by_name["getpid"]:
            assert f"{int(image.symbols.address[row]):#x}" in fact
        assert "of a library" in fact or "-static" in link
