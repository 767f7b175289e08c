"""What new code calls by a name that is known already: whatever the linker and the loader made of it before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from capstone import CS_ARCH_X86, CS_MODE_64, Cs
from elftools.elf.elffile import ELFFile
from planned import build_sources, plan_for, write_sources
from running_program import WAIT, Running, run, running

from ipbp.pipeline.record import Record
from ipbp.protocol import PatchPlan

LIBRARY = "int f(int x) { return x + 1; }\nint g(int x) { return f(x) + 1; }\n"
PROGRAM = WAIT + "int g(int); int f(int x) { return x + 5000; }\n"
PROGRAM += "int main(void) { int n = g(1); ready_and_wait(); return n; }\n"
EDITED = LIBRARY.replace("return f(x) + 1;", "return f(x) + f(x + 1);")


def calls(plan: PatchPlan, name: str) -> set[int]:
    """Where the new code of a function calls, through the patch's own stubs."""
    (row,) = (row for row in plan.functions if row.name == name)
    segments = {}
    for segment in plan.segments:
        content = Path(plan.files[segment.file]).read_bytes()
        segments[segment.address] = content[segment.file_offset :][: segment.size]

    def at(address: int, size: int) -> bytes:
        return next((c[address - s :][:size] for s, c in segments.items() if s <= address < s + len(c)), b"")

    code = at(row.address, row.size)
    found = set()
    for line in Cs(CS_ARCH_X86, CS_MODE_64).disasm(code, row.address):
        if line.mnemonic not in ("call", "jmp"):
            continue
        target = int(line.op_str, 16)
        stub = at(target, 6)
        if stub[:2] == b"\xff\x25":  # jmp *slot(%rip)
            target = int.from_bytes(at(target + 6 + int.from_bytes(stub[2:], "little", signed=True), 8), "little")
        found.add(target)
    return found


def place(process: Running, image: str, name: str) -> int:
    """Load address of the image's own function."""
    loaded = process.process()
    (found,) = (module.image for module in loaded.modules if module.mapped.path.endswith(f"/{image}"))
    return int(found.symbols.address[found.symbols.by_name[name][0]])


def build(folder: Path, *link: str) -> Path:
    """The program and its library, which are linked and in a compilation database."""
    rows = []
    for name, text, code in (("library", LIBRARY, "-fPIC"), ("main", PROGRAM, "-fPIE")):
        (folder / f"{name}.c").write_text(text)
        words = ["gcc", "-g", "-O1", code, "-c", f"{name}.c", "-o", f"{name}.o"]
        run(words, folder)
        rows.append({"directory": str(folder), "file": f"{name}.c", "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    (folder / "only_g.map").write_text("{ global: g; local: *; };\n")
    run(["gcc", "-shared", *link, "library.o", "-o", "library.so"], folder)
    run(["gcc", "main.o", "-rdynamic", "-L.", "-l:library.so", f"-Wl,-rpath,{folder}", "-o", "program"], folder)
    return folder / "program"


@pytest.mark.parametrize(
    ("link", "owner"),
    [
        ((), "program"),
        (("-Wl,-Bsymbolic",), "library.so"),
        (("-Wl,-Bsymbolic-functions",), "library.so"),
        (("-Wl,--version-script=only_g.map",), "library.so"),
    ],
    ids=["interposed", "Bsymbolic", "Bsymbolic-functions", "version script"],
)
@pytest.mark.parametrize("has_objects", [True, False], ids=["object", "image"])
def test_a_call_goes_where_the_library_s_calls_went(
    link: Sequence[str], owner: str, has_objects: bool, tmp_path: Path
) -> None:
    program = build(tmp_path, *link)
    with running(program) as process:
        (tmp_path / "library.c").write_text(EDITED)
        if not has_objects:
            (tmp_path / "library.o").unlink()
        plan = plan_for(process).plan
        assert plan is not None
        assert [image.path for image in plan.images] == [str(tmp_path / "library.so")]
        assert calls(plan, "g") == {place(process, owner, "f")}
        # The next patch has the record only.
        (tmp_path / "library.c").write_text(EDITED.replace("f(x + 1)", "f(x + 2)"))
        again = plan_for(process, Record.from_json(json.loads(json.dumps(plan.record))), 2).plan
        assert again is not None
        assert calls(again, "g") == {place(process, owner, "f")}


def test_a_wrapped_name_goes_to_the_wrapper_in_every_patch(tmp_path: Path) -> None:
    files = {
        "main.c": "int use(int); int main(void) { int n = use(1); ready_and_wait(); return n; }\n",
        "user.c": "int f(int); int use(int x) { return f(x) + 1; }\n",
        "real.c": "int f(int x) { return x * 2; }\n",
        "wrap.c": "int __real_f(int); int __wrap_f(int x) { return __real_f(x) + 100; }\n",
    }
    program = build_sources(tmp_path / "tree", files, "-O1", link=["-Wl,--wrap=f"])
    with running(program) as process:
        plan = None
        for number in (1, 2):
            record = Record.from_json(plan.record) if plan else None
            wrap = files["wrap.c"].replace("+ 100", f"+ {number}00 + __real_f({number})")
            write_sources(
                tmp_path / "tree", {"user.c": files["user.c"].replace("+ 1", f"+ f({number}2)"), "wrap.c": wrap}
            )
            plan = plan_for(process, record, number).plan
            assert plan is not None
            assert calls(plan, "use") == {place(process, "program", "__wrap_f")}
            assert calls(plan, "__wrap_f") == {place(process, "program", "f")}


def test_two_objects_are_patched_in_the_image_that_memory_says(tmp_path: Path) -> None:
    program = build(tmp_path)
    (tmp_path / "new.c").write_text(EDITED)
    run(["gcc", "-O1", "-fPIC", "-c", "new.c", "-o", "new.o"], tmp_path)
    (tmp_path / "compile_commands.json").unlink()
    with running(program) as process:
        plan = plan_for(process, objects=(tmp_path / "library.o", tmp_path / "new.o")).plan
    assert plan is not None
    assert [(image.path, image.is_executable) for image in plan.images] == [(str(tmp_path / "library.so"), False)]
    assert [row.name for row in plan.functions] == ["g"]
    with open(plan.files[0], "rb") as file:
        assert ELFFile(file).header.e_type == "ET_DYN"
